"""Networks of a thousand layers: nothing recurses over them or takes time that grows with their square.

Keras itself follows a chain of layers by a call in a call, so it builds none that is longer than Python's recursion
limit (1,000 as it comes). Who raises that for Keras needs no more for us.
"""

import sys

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph

WIDTH, SIZE = 8, 8
PIXELS = SIZE * SIZE


def convolution(x):
    return layers.Conv2D(WIDTH, 3, padding="same", use_bias=False)(x)


def residual(blocks: int) -> keras.Model:
    """An image, a convolution, and so many blocks of five layers: convolution, norm, ReLU, convolution, Add."""
    image = keras.Input((SIZE, SIZE, 3))
    x = convolution(image)
    for _ in range(blocks):
        y = layers.ReLU()(layers.BatchNormalization()(convolution(x)))
        x = layers.Add()([x, convolution(y)])
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def chain(length: int) -> keras.Model:
    """One convolution after the other."""
    x = image = keras.Input((SIZE, SIZE, 3))
    for _ in range(length):
        x = convolution(x)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def flops(widths_in_and_out) -> int:
    """Of 3x3 convolutions over the whole image."""
    return sum(2 * 9 * PIXELS * before * after for before, after in widths_in_and_out)


@pytest.fixture
def deep_recursion():
    """As somebody sets it who builds such a network with Keras."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.thorough
def test_a_residual_network_of_a_thousand_layers_is_followed_narrowed_and_rebuilt():
    model = residual(200)
    assert len(model.layers) > 1000
    graph = morph.ChannelGraph.from_model(model)
    assert len([group for group in graph.groups if group.prunable]) == 201, "the stream, and one inside each block"
    expected = flops([(3, WIDTH), *[(WIDTH, WIDTH)] * 400]) + 2 * WIDTH * 10
    assert graph.cost("flops") == expected
    structure = morph.uniform(graph, target=0.5)
    assert 0.49 * expected < graph.cost("flops", structure) <= 0.5 * expected
    assert morph.rebuild(model, structure).count_params() == structure.costs["params"]["structure"]


@pytest.mark.slow
def test_a_chain_that_is_longer_than_pythons_recursion_limit_works_once_keras_does(deep_recursion):
    model = chain(1100)
    graph = morph.ChannelGraph.from_model(model)
    structure = morph.uniform(graph, target=0.5)
    expected = flops([(3, WIDTH), *[(WIDTH, WIDTH)] * 1099]) + 2 * WIDTH * 10
    assert 0.49 * expected < graph.cost("flops", structure) <= 0.5 * expected == 0.5 * graph.cost("flops")
    assert len(morph.rebuild(model, structure).layers) == len(model.layers)


@pytest.mark.slow
def test_one_step_of_a_search_over_a_thousand_layers_ends_within_the_budget():
    model = residual(200)
    search = morph.StructureSearch(model, target=0.5)
    search.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).random((8, SIZE, SIZE, 3)).astype("float32")
    search.fit(images, np.arange(8), epochs=1, batch_size=8, verbose=0)
    structure = search.structure()
    costs = structure.costs["flops"]
    assert 0.49 * costs["seed"] < costs["structure"] <= 0.5 * costs["seed"]
    small = morph.rebuild(model, structure, weights="inherit")
    assert small.count_params() == structure.costs["params"]["structure"]
