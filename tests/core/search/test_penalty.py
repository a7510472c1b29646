"""The penalty of a fixed strength is MorphNet's regulariser, written here from the paper.

Gordon et al., CVPR 2018. A convolution from inputs i to outputs j spends `C x (sum of A_i) x (sum of B_j)`, where A and
B say which channels are alive and C is 2 x positions x size of the kernel for FLOPs, the size of the kernel for the
model's size (equations 2 and 3). Its regulariser replaces one alive sum at a time by the scales (equation 6):
`C x (sum of |gamma_i|) x (sum of B_j) + C x (sum of A_i) x (sum of |gamma_j|)`. Channels tied by additions share the
largest of their scales.
"""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy

ALIVE = 0.01  # the paper's threshold on |gamma|
STRENGTH = 1e-4


@dataclasses.dataclass
class Spent:
    """One layer that multiplies: what it reads and makes ("" for channels without a scale), and its coefficients."""

    reads: str
    makes: str
    positions: int
    kernel: int
    fixed_in: int = 0
    fixed_out: int = 0


class Built:
    """A network whose layers are noted as they are made; 12x12 images of 2 channels."""

    def __init__(self):
        self.inputs = keras.Input((12, 12, 2))
        self.spent = []
        self.scales = {}

    def conv(self, x, reads, makes, width, kernel, strides=1):
        y = layers.Conv2D(width, kernel, strides=strides, padding="same", use_bias=False)(x)
        self.spent.append(Spent(reads, makes, y.shape[1] * y.shape[2], kernel**2, fixed_in=0 if reads else x.shape[-1]))
        normalization = layers.BatchNormalization()
        self.scales.setdefault(makes, []).append(normalization)
        return normalization(y)

    def finish(self, x, reads, classes=3):
        y = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
        self.spent.append(Spent(reads, "", 1, 1, fixed_out=classes))
        self.model = keras.Model(self.inputs, y)
        return self


def chain():
    built = Built()
    x = layers.ReLU()(built.conv(built.inputs, "", "a", 5, 3))
    x = layers.ReLU()(built.conv(x, "a", "b", 7, 1, strides=2))
    return built.finish(layers.ReLU()(built.conv(x, "b", "c", 4, 5)), "c")


def residual():
    """Two blocks on one stream, the second with a single convolution, which reads and makes the same channels."""
    built = Built()
    x = layers.ReLU()(built.conv(built.inputs, "", "stream", 6, 3, strides=2))
    y = layers.ReLU()(built.conv(x, "stream", "inside", 5, 3))
    x = layers.Add()([x, built.conv(y, "inside", "stream", 6, 3)])
    return built.finish(layers.Add()([x, built.conv(x, "stream", "stream", 6, 1)]), "stream")


NETWORKS = {"chain": chain(), "residual": residual()}
SEARCHES = {
    (name, cost): morph.StructureSearch(built.model, cost=cost, strength=STRENGTH, gate="gamma")
    for name, built in NETWORKS.items()
    for cost in ("flops", "params")
}


def regulariser(built, cost):
    """Equation 6, summed over the network; the size also counts the four weights of BatchNormalization."""
    gamma = {
        name: np.max([np.abs(as_numpy(each.gamma)) for each in several], axis=0)
        for name, several in built.scales.items()
    }
    norm = {name: scales.sum() for name, scales in gamma.items()} | {"": 0.0}
    alive = {name: (scales > ALIVE).sum() for name, scales in gamma.items()} | {"": 0}
    total = 0.0
    for layer in built.spent:
        coefficient = layer.kernel * (2 * layer.positions if cost == "flops" else 1)
        inputs, outputs = alive[layer.reads] + layer.fixed_in, alive[layer.makes] + layer.fixed_out
        total += coefficient * (norm[layer.reads] * outputs + inputs * norm[layer.makes])
    if cost == "params":
        total += sum(4 * len(several) * norm[name] for name, several in built.scales.items())
    return total


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    seed=st.integers(0, 10_000),
    closed=st.floats(0.0, 0.9),
    scale=st.sampled_from([0.05, 1.0, 30.0]),
)
@pytest.mark.filterwarnings("ignore:All .* channels that the search decides on are closed")
@pytest.mark.parametrize("cost", ["flops", "params"])
def test_the_penalty_is_the_papers_bilinear_regulariser(cost, name, seed, closed, scale):
    built, search = NETWORKS[name], SEARCHES[name, cost]
    rng = np.random.default_rng(seed)
    for several in built.scales.values():
        gone = rng.random(several[0].gamma.shape) < closed
        for each in several:
            drawn = rng.normal(0, scale, each.gamma.shape)
            each.gamma.assign(np.where(gone, rng.uniform(-ALIVE, ALIVE, drawn.shape), drawn))
    search.update(0.5)
    assert float(as_numpy(search.penalty())) == pytest.approx(STRENGTH * regulariser(built, cost), rel=1e-4)


def test_the_cost_that_the_penalty_stands_for_is_the_networks_own():
    """With every scale at 1 the regulariser of a layer is twice its cost: once for its inputs, once for its outputs."""
    built = NETWORKS["chain"]
    for several in built.scales.values():
        for each in several:
            each.gamma.assign(np.ones(each.gamma.shape))
    ends = sum(
        2
        * layer.positions
        * layer.kernel
        * (layer.fixed_in or layer.fixed_out)
        * len(as_numpy(built.scales[name][0].gamma))
        for layer in built.spent
        if (name := layer.makes if layer.fixed_in else layer.reads) and (layer.fixed_in or layer.fixed_out)
    )
    cost = morph.ChannelGraph.from_model(built.model).cost("flops")
    assert regulariser(built, "flops") == pytest.approx(2 * cost - ends)
