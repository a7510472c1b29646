"""Every functional network of keras.applications: channels, costs, the law; and whole blocks and towers that go."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import keras
import numpy as np
import pytest

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.network.trace import Call
from tests.core.networks import batch_for, calibrate, known_network, random_structure, randomize, slow_on_jax

# The smallest of each family; the others run with `make test-all`.
QUICK = (
    "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionV3 MobileNet MobileNetV2 MobileNetV3Small "
    "NASNetMobile ResNet50 ResNet50V2 VGG16 Xception"
).split()
SLOW = (
    "ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge DenseNet169 DenseNet201 EfficientNetB1 EfficientNetB2 "
    "EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B1 EfficientNetV2B2 "
    "EfficientNetV2B3 EfficientNetV2S EfficientNetV2M EfficientNetV2L InceptionResNetV2 MobileNetV3Large NASNetLarge "
    "ResNet101 ResNet101V2 ResNet152 ResNet152V2 VGG19"
).split()
# What differs between backends shows in a few.
if keras.backend.backend() != "tensorflow":
    SLOW = sorted({*QUICK, *SLOW} - {"MobileNetV2", "ResNet50"})
    QUICK = ["MobileNetV2", "ResNet50"]
SMALLEST_INPUT = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


@functools.lru_cache(maxsize=1)
def application(name: str) -> keras.Model:
    """The network with random weights at a small input and 10 classes; the last one is kept."""
    size = SMALLEST_INPUT.get(name, 32)
    options = {"input_shape": (size, size, 3), "classes": 10, "classifier_activation": None}
    seed = randomize(known_network(name, **options))
    # Some of them divide by 255 first.
    return calibrate(seed, 100 * batch_for(seed, seed=1, count=16))


def spread(quick: list[str], slow: list[str]) -> list:
    return [*quick, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


def test_all_networks_of_keras_applications_are_here():
    found = {name for name in dir(keras.applications) if name[0].isupper()}
    assert found == {*QUICK, *SLOW}
    assert len(found) == 40


@pytest.mark.parametrize("name", spread(slow_on_jax(QUICK, quick=["MobileNetV2", "ResNet50"]), SLOW))
def test_networks_of_keras_applications(name):
    seed = application(name)
    graph = morph.ChannelGraph.from_model(seed)
    assert graph.cost("params") == seed.count_params()
    fixed = {group.reason for group in graph.groups if not group.prunable}
    assert fixed == {"it is an output of the model"}
    inputs = 100 * batch_for(seed)
    before = as_numpy(seed(inputs, training=False))
    for share in (0.75, 0.5):
        assert morph.verify(seed, random_structure(graph, share, seed=int(100 * share)), inputs) < 1e-5
    structure = random_structure(graph, 0.25, seed=25)
    student = morph.rebuild(seed, structure, weights="inherit")
    after, received = as_numpy(morph.masked(seed, structure, inputs)), as_numpy(student(inputs, training=False))
    assert np.abs(after - received).max() < 1e-5 * np.abs(after).max()
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()
    assert student.count_params() == structure.costs["params"]["structure"]
    assert morph.ChannelGraph.from_model(student).cost("flops") == structure.costs["flops"]["structure"]


RESNET_BLOCKS = [
    f"conv{stage}_block{block}" for stage, count in enumerate((3, 4, 6, 3), start=2) for block in range(1, count + 1)
]


@pytest.mark.parametrize(
    "block",
    spread(
        slow_on_jax(RESNET_BLOCKS[::5], quick=RESNET_BLOCKS[:1]),
        [name for name in RESNET_BLOCKS if name not in RESNET_BLOCKS[::5]],
    ),
)
def test_each_block_of_resnet50_goes_as_a_whole(block):
    #   --+-- 1_conv -- 1_bn -- 1_relu -- 2_conv -- 2_bn -- 2_relu -- 3_conv -- 3_bn --+
    #     +-- (0_conv -- 0_bn, in the first block of a stage) ----------------------- Add --
    rest = ["1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "3_conv", "3_bn"]
    check_removal("ResNet50", f"{block}_1_conv", {f"{block}_{name}" for name in rest})


def towers() -> Iterator[tuple[str, str, set[str]]]:
    """Each tower of InceptionV3: its block, its last convolution, and the layers that nothing else reads."""
    calls = morph.ChannelGraph.from_model(application("InceptionV3")).trace.calls
    maker = {number: call for call in calls for number in call.outputs}
    readers: dict[int, list[Call]] = {}
    for call in calls:
        for number in call.inputs:
            readers.setdefault(number, []).append(call)

    def above(call: Call, fallen: set[str]) -> None:
        fallen.add(call.name)
        for number in call.inputs:
            if number in maker and all(reader.name in fallen for reader in readers[number]):
                above(maker[number], fallen)

    for join in (call for call in calls if call.kind == "Concatenate"):
        for number in join.inputs:
            fallen: set[str] = set()
            end = maker[number]
            if end.kind == "Activation":
                above(end, fallen)
                last = next(call.name for call in reversed(calls) if call.kind == "Conv2D" and call.name in fallen)
                yield join.name, last, fallen


# In three blocks a tower is a pooling of the block before, and two towers of mixed9 and mixed10 end in two halves.
TOWERS = {"mixed0": 4, "mixed1": 4, "mixed2": 4, "mixed3": 2, "mixed4": 4, "mixed5": 4, "mixed6": 4, "mixed7": 4}
TOWERS |= {"mixed8": 2, "mixed9_0": 2, "concatenate-1": 2, "mixed9": 2, "mixed9_1": 2, "concatenate-2": 2, "mixed10": 2}


@pytest.mark.parametrize(
    "block",
    spread(
        slow_on_jax(["mixed0", "mixed3", "mixed9_0"]),
        [name for name in TOWERS if name not in ("mixed0", "mixed3", "mixed9_0")],
    ),
)
def test_each_tower_of_inception_v3_goes_as_a_whole(block):
    of_block = [(last, fallen) for join, last, fallen in towers() if join == block]
    assert len(of_block) == TOWERS[block]
    for last, fallen in of_block:
        check_removal("InceptionV3", last, fallen)


def check_removal(name: str, group: str, expected: set[str]) -> None:
    """Closing `group` removes the `expected` layers, the law holds, and costs are those of what is left."""
    seed = application(name)
    graph = morph.ChannelGraph.from_model(seed)
    structure = morph.describe(graph, {group: 0})
    assert set(structure.removed["layers"]) == expected
    assert morph.verify(seed, structure) < 1e-5
    student = morph.rebuild(seed, structure)
    assert not expected & {layer.name for layer in student.layers}
    assert student.count_params() == structure.costs["params"]["structure"] < seed.count_params()
    assert morph.ChannelGraph.from_model(student).cost("flops") == structure.costs["flops"]["structure"]
