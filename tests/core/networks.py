"""Small networks, and the ways to treat them, that the tests of the core share."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph


def known_network(name: str, **options: Any) -> keras.Model:
    """A network of keras.applications with random weights; skips the test where Keras does not offer it."""
    try:
        return getattr(keras.applications, name)(**{"weights": None, **options})
    except ValueError as error:
        if "not available with the" in str(error):
            pytest.skip(str(error))
        raise


def slow_on_jax(names: Iterable[str], quick: Collection[str] = ()) -> list:
    """Parameters of a test of large networks: all but `quick` are thorough, and slow under JAX, which compiles much."""
    if keras.backend.backend() != "jax":
        return thorough_but(names, quick)
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in quick)) for name in names]


def thorough_but(names: Iterable[Any], quick: Collection[Any]) -> list:
    """Parameters of a test: all but `quick` wait for `make test-thorough`."""
    return [pytest.param(name, marks=[pytest.mark.thorough] * (name not in quick), id=str(name)) for name in names]


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight a value that a mistake would show: no zeros, no ones, variances positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed_generator" in weight.path:
            continue
        name = weight.path.split("/")[-1]
        if name in ("gamma", "moving_variance", "scale", "alpha"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "bias", "moving_mean"):
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def calibrate(model: keras.Model, inputs: Any) -> keras.Model:
    """Give each BatchNormalization the statistics of these inputs, as training would.

    A deep network with statistics of no relation to its activations is chaotic: rounding alone changes its answer.
    """
    keras.utils.set_random_seed(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(inputs, training=True)
    return model


def random_structure(graph: morph.ChannelGraph, share: float, seed: int = 0) -> morph.Structure:
    """Keep a random `share` of the channels of each group, at least one."""
    rng = np.random.default_rng(seed)
    alive = {}
    for group in graph.groups:
        if group.prunable:
            count = max(1, round(group.size * share))
            alive[group.name] = sorted(rng.choice(group.size, count, replace=False).tolist())
    return morph.describe(graph, {name: len(kept) for name, kept in alive.items()}, alive)


def batch_for(model: keras.Model, seed: int = 0, count: int = 2) -> Any:
    """Random inputs for a model, `count` examples: numbers, or tokens from 0 to 7."""
    rng = np.random.default_rng(seed)

    def draw(tensor: Any) -> np.ndarray:
        shape = (tensor.shape[0] or count, *(size or 8 for size in tensor.shape[1:]))
        return rng.integers(0, 8, shape) if "int" in tensor.dtype else rng.uniform(-1, 1, shape).astype("float32")

    return keras.tree.map_structure(draw, model.input)


def sizes(graph: morph.ChannelGraph) -> dict[str, int]:
    """Channels of each group that can be pruned."""
    return {group.name: group.size for group in graph.groups if group.prunable}


def network(body: Callable[[Any], Any], shape: tuple[int | None, ...] = (8, 8, 3), classes: int = 5) -> keras.Model:
    """A model with a stem of 12 channels ('a'), `body`, and a head."""
    image = keras.Input(shape)
    y = body(layers.Conv2D(12, 3, padding="same", name="a")(image))
    if len(y.shape) > 2:
        y = layers.GlobalAveragePooling2D()(y)
    return randomize(keras.Model(image, layers.Dense(classes, name="head")(y)))


def conv(width: int, name: str, kernel: int = 3, **options: Any) -> Callable[[Any], Any]:
    """Convolution, BatchNormalization, ReLU."""

    def apply(x: Any) -> Any:
        y = layers.Conv2D(width, kernel, padding="same", use_bias=False, name=name, **options)(x)
        return layers.ReLU()(layers.BatchNormalization(name=f"{name}_bn")(y))

    return apply


def mlp(widths: tuple[int, ...] = (100, 100), inputs: int = 32, outputs: int = 2) -> keras.Model:
    """Dense layers 'd1', 'd2', ..., and 'head'."""
    start = x = keras.Input((inputs,))
    for index, width in enumerate(widths, start=1):
        x = layers.Dense(width, activation="relu", name=f"d{index}")(x)
    return keras.Model(start, layers.Dense(outputs, name="head")(x))


def residual(width: int = 16, blocks: int = 2) -> keras.Model:
    """A stem, `blocks` residual blocks of two convolutions each, and a head; for 8x8 images of one colour."""
    image = keras.Input((8, 8, 1))
    x = conv(width, "stem")(image)
    for index in range(1, blocks + 1):
        y = conv(width, f"b{index}_in")(x)
        y = layers.BatchNormalization(name=f"b{index}_out_bn")(
            layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"b{index}_out")(y)
        )
        x = layers.ReLU()(layers.Add(name=f"b{index}_add")([x, y]))
    return keras.Model(image, layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x)))


def two_moons(count: int = 512, features: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A learnable two-class problem: does the product of the first two features exceed zero?"""
    x = np.random.default_rng(seed).normal(size=(count, features)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype("int32")
