"""A gate at a scale of BatchNormalization, where it is put there, does what one at each reader of the channel does."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.network.placement import Placement
from tests.core.networks import batch_for, known_network, randomize, residual, slow_on_jax


def _norm(x, name, activation="relu", **options):
    x = layers.Conv2D(6, 3, padding="same", name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_norm", **options)(x)
    return x if activation is None else layers.Activation(activation, name=f"{name}_act")(x)


def _end(x):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="end")(x))


def _towers(x):
    a, b = _norm(x, "a"), layers.MaxPooling2D(1)(_norm(x, "b"))
    return _end(layers.Concatenate()([a, b, layers.Conv2D(3, 1, name="bare")(x)]))


def _depthwise(x):
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(_norm(x, "a"))
    return _end(layers.ReLU()(layers.BatchNormalization(name="b_norm")(x)))


def _depthwise_read_twice(x):
    a = _norm(x, "a")
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(a)
    x = layers.ReLU()(layers.BatchNormalization(name="b_norm")(x))
    return layers.Add()([_end(x), layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="side")(a))])


def _squeeze_and_excite(x):
    x = _norm(x, "a")
    y = layers.Dense(6, "sigmoid", name="excite")(layers.Dense(3, "relu", name="squeeze")(ops.mean(x, axis=(1, 2))))
    return _end(layers.Multiply()([x, layers.Reshape((1, 1, 6))(y)]))


def _one_way_bends(x):
    x = _norm(x, "a")
    return layers.Add()([_end(x), layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, name="b")(ops.sigmoid(x)))])


def _half_scaled_sum(x):
    return _end(layers.Add()([_norm(x, "a"), layers.Conv2D(6, 3, padding="same", name="bare")(x)]))


def _grouped(x):
    return _end(layers.Conv2D(6, 3, groups=3, name="grouped")(_norm(x, "a")))


def _normalized_over_channels(x):
    return _end(layers.LayerNormalization(name="over")(_norm(x, "a")))


def _regularized(x):
    x = layers.Conv2D(4, 1, activity_regularizer="l2", name="b")(_norm(x, "a", None))
    return _end(x)


def _flat(x):
    return layers.Dense(4, name="end")(layers.Flatten()(layers.AveragePooling2D(2)(_norm(x, "a"))))


# For each network body, the calls whose scale is gated and those that are gated as consumers.
BODIES = {
    "towers": (_towers, {"a_norm", "b_norm"}, {"end"}),
    "depthwise": (_depthwise, {"b_norm"}, set()),
    "depthwise, read before and behind": (_depthwise_read_twice, set(), {"end", "side"}),
    "squeeze and excite": (_squeeze_and_excite, set(), {"squeeze", "excite", "end"}),
    "one reader behind a sigmoid": (_one_way_bends, set(), {"end", "b"}),
    "one term without a scale": (_half_scaled_sum, set(), {"end"}),
    "groups": (_grouped, {"a_norm"}, {"end"}),
    "statistics over channels": (_normalized_over_channels, set(), {"over", "end"}),
    "activity regularizer at the consumer": (_regularized, {"a_norm"}, {"end"}),
    "flattened": (_flat, {"a_norm"}, set()),
    "relu6": (lambda x: _end(_norm(x, "a", "relu6")), set(), {"end"}),
    "silu": (lambda x: _end(_norm(x, "a", "silu")), set(), {"end"}),
    "bounded ReLU": (lambda x: _end(layers.ReLU(max_value=1.0)(_norm(x, "a", None))), set(), {"end"}),
    "leaky ReLU": (lambda x: _end(layers.LeakyReLU()(_norm(x, "a", None))), {"a_norm"}, set()),
    "a number added": (lambda x: _end(_norm(x, "a") + 1.0), set(), {"end"}),
    "differences": (lambda x: _end(layers.Subtract()([_norm(x, "a"), _norm(x, "b")])), {"a_norm", "b_norm"}, set()),
    "greater of two": (lambda x: _end(ops.maximum(_norm(x, "a"), _norm(x, "b"))), {"a_norm", "b_norm"}, set()),
    "no scale": (lambda x: _end(_norm(x, "a", scale=False)), set(), {"end"}),
    "no offset": (lambda x: _end(_norm(x, "a", center=False)), {"a_norm"}, set()),
    "activity regularizer at the scale": (
        lambda x: _end(_norm(x, "a", activity_regularizer="l2")), set(), {"end"}
    ),
}  # fmt: skip


@pytest.fixture(params=slow_on_jax(BODIES, quick=("depthwise", "towers", "groups")))
def case(request):
    body, scales, consumers = BODIES[request.param]
    image = keras.Input((8, 8, 3))
    return randomize(keras.Model(image, body(image))), scales, consumers


def _search(model, at_scales):
    search = morph.StructureSearch(model, target=0.5, gate="fisher")
    search._placement = Placement(search.graph, at_scales=at_scales)
    return search


def _outputs(model, at_scales, gates, training):
    search = _search(model, at_scales)
    search._gates = lambda training: gates
    before = [as_numpy(weight) for weight in model.weights]
    outputs = [as_numpy(search(batch_for(model, count=4), training=training)), *map(as_numpy, search.losses)]
    statistics = [as_numpy(weight) for weight in model.non_trainable_weights]
    model.set_weights(before)
    return outputs, statistics


@pytest.mark.parametrize("training", [False, True])
def test_gates_of_any_value_do_the_same_at_scales_and_at_consumers(case, training):
    model = case[0]
    count = len(morph.ChannelGraph.from_model(model).group_of)
    gates = np.random.default_rng(0).choice([0.0, 0.3, 1.0, 1.7], count).astype("float32")
    outputs, statistics = _outputs(model, True, gates, training)
    expected, expected_statistics = _outputs(model, False, gates, training)
    for one, other in zip(outputs + statistics, expected + expected_statistics, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_training_step_is_the_same_for_weights_and_for_gates(case):
    model = case[0]
    x, y = batch_for(model, count=8), np.arange(8) % 4
    start, ends = model.get_weights(), []
    for at_scales in (True, False):
        model.set_weights(start)
        search = _search(model, at_scales)
        search.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        search.train_on_batch(x, y)
        ends.append([search._gate.optimizer.means(search._gate.trainable[0]), *model.get_weights()])
    assert np.abs(ends[0][0]).max() > 0
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-6)


def test_gates_are_at_scales_where_all_that_follows_is_homogeneous_and_nowhere_else(case):
    model, scales, consumers = case
    graph = morph.ChannelGraph.from_model(model)
    gated = Placement(graph, at_scales=True).gated(np.ones(len(graph.group_of), dtype="float32"))
    calls = list(zip(graph.trace.calls, gated, strict=True))
    assert {call.name for call, found in calls if found.values} == scales
    assert {call.name for call, found in calls if found.factors} == consumers


@pytest.mark.parametrize("model", [residual(8), pytest.param("ResNet50", marks=pytest.mark.slow)], ids=str)
def test_a_residual_network_has_all_gates_at_scales(model):
    model = known_network(model) if isinstance(model, str) else model
    graph = morph.ChannelGraph.from_model(model)
    gated = Placement(graph, at_scales=True).gated(np.ones(len(graph.group_of), dtype="float32"))
    assert not any(found.factors for found in gated)
    norms = [isinstance(call.layer, layers.BatchNormalization) for call in graph.trace.calls]
    assert [bool(found.values) for found in gated] == norms
