"""Graphs that break pruning tools: for each, what can be pruned, why the rest stays, and the law.

In the drawings data flows from left to right; `a` is the stem, a convolution or dense layer of 12 channels. What stays
fixed is listed with the words that its reason must hold; the model's own outputs always stay and are not listed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.arrays import as_numpy
from tests.core.networks import batch_for, conv, network, random_structure, randomize, sizes, thorough_but


@dataclasses.dataclass(frozen=True)
class Case:
    """A graph, and what is expected of it.

    Attributes:
        build: makes the model.
        prunable: the channels of each group that can be pruned.
        fixed: for each other group, a pattern that its reason holds.
    """

    build: Callable[[], keras.Model]
    prunable: dict[str, int]
    fixed: dict[str, str]


CASES: dict[str, Case] = {}


def image(prunable: dict[str, int], fixed: dict[str, str] | None = None) -> Callable:
    """Registers a body between the stem, a convolution of 12 channels on 8x8 places, and the head."""
    return _register(prunable, fixed, network)


def sequence(prunable: dict[str, int], fixed: dict[str, str] | None = None) -> Callable:
    """Registers a body between the stem, a dense layer of 12 channels at 6 steps, and the head."""

    def build(body: Callable) -> keras.Model:
        steps = keras.Input((6, 5))
        y = body(layers.Dense(12, name="a")(steps))
        y = layers.GlobalAveragePooling1D()(y) if len(y.shape) > 2 else y
        return randomize(keras.Model(steps, layers.Dense(5, name="head")(y)))

    return _register(prunable, fixed, build)


def model(prunable: dict[str, int], fixed: dict[str, str] | None = None) -> Callable:
    """Registers a function that makes the whole model."""
    return _register(prunable, fixed, lambda make: randomize(make()))


def _register(prunable: dict[str, int], fixed: dict[str, str] | None, build: Callable) -> Callable:
    def add(body: Callable) -> Callable:
        CASES[body.__name__.replace("_", " ")] = Case(lambda: build(body), prunable, fixed or {})
        return body

    return add


@pytest.mark.parametrize("name", CASES)
def test_what_can_be_pruned_and_why_the_rest_stays(name):
    case = CASES[name]
    graph = morph.ChannelGraph.from_model(case.build())
    assert sizes(graph) == case.prunable
    reasons = {group.name: group.reason for group in graph.groups if not group.prunable}
    reasons = {group: reason for group, reason in reasons.items() if reason != "it is an output of the model"}
    assert reasons.keys() == case.fixed.keys(), reasons
    for group, pattern in case.fixed.items():
        assert re.search(pattern, reasons[group]), reasons[group]
        assert f"{group}: " in str(graph) and reasons[group] in str(graph)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", thorough_but([0.75, 0.5, 0.25], quick=[0.5]))
def test_masked_equals_rebuilt(name, share):
    case = CASES[name]
    seed = case.build()
    graph = morph.ChannelGraph.from_model(seed)
    structure = random_structure(graph, share, seed=int(100 * share))
    inputs = batch_for(seed)
    assert morph.verify(seed, structure, inputs) < 1e-5
    student = morph.rebuild(seed, structure)
    assert structure.costs["params"]["structure"] == student.count_params()
    assert structure.costs["flops"]["structure"] == morph.ChannelGraph.from_model(student).cost("flops")
    if any(size > 1 for size in case.prunable.values()):
        # Closing gates must matter: a law about networks that answer the same in any case would say nothing.
        assert student.count_params() < seed.count_params()
        before, after = (
            np.concatenate([np.ravel(as_numpy(output)) for output in keras.tree.flatten(outputs)])
            for outputs in (seed(inputs, training=False), morph.masked(seed, structure, inputs))
        )
        assert np.abs(before - after).max() > 1e-3 * np.abs(before).max()


# --- adding and concatenating -----------------------------------------------------------------------------------------


@image({"a": 12, "c": 10})
def residual_addition(x):
    """a --+-- c -- b --+
    |            Add
    +------------+
    """
    return layers.Add()([x, conv(12, "b")(conv(10, "c")(x))])


@image({"a": 12, "c": 4, "b": 6})
def chained_concatenation(x):
    """a --+-- c -- Concatenate --+
    |        |           Concatenate -- b
    +--------+-----------+
    """
    inner = layers.Concatenate()([x, conv(4, "c")(x)])
    return conv(6, "b")(layers.Concatenate()([x, inner]))


@image({"a": 12, "b": 4, "c": 4, "d": 4})
def dense_concatenation(x):
    """a -+- b -+- c -+- d -+     every layer reads all before it, each through its own BatchNormalization
    +-----+-----+-----+
    """
    for name in "bcd":
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same", name=name)(y)])
    return x


@image({"a": 12, "b": 6})
def concatenation_with_itself(x):
    """a ==(twice)== Concatenate -- b"""
    return conv(6, "b")(layers.Concatenate()([x, x]))


@image({"a": 12, "b": 4, "c": 8})
def concatenation_then_addition(x):
    """a --+-- b(4) --+
    +-- c(8) -- Concatenate -- Add
    +-- d(12) -----------------+
    """
    return layers.Add()([layers.Concatenate()([conv(4, "b")(x), conv(8, "c")(x)]), conv(12, "d")(x)])


@image({"a": 12, "b": 6})
def concatenation_along_the_height(x):
    """a --+-- c --+
    +----- Concatenate(axis=1) -- b
    """
    return conv(6, "b")(layers.Concatenate(axis=1)([x, conv(12, "c")(x)]))


# --- splitting and slicing --------------------------------------------------------------------------------------------


@image({"a": 6, "a:2": 6, "b": 5, "c": 7})
def split_into_equal_parts(x):
    """a(12) -- split --+-- [:6] -- b --+
    +-- [6:] -- c -- Concatenate
    """
    first, second = ops.split(x, 2, axis=-1)
    return layers.Concatenate()([conv(5, "b")(first), conv(7, "c")(second)])


@image({"a": 3, "a:2": 5, "a:3": 4, "b": 5, "c": 7, "d": 4})
def split_into_unequal_parts(x):
    """a(12) -- split --+-- [:3] -- b --+
    +-- [3:8] - c -- Concatenate
    +-- [8:] -- d --+
    """
    parts = ops.split(x, [3, 8], axis=-1)
    return layers.Concatenate()([conv(5, "b")(parts[0]), conv(7, "c")(parts[1]), conv(4, "d")(parts[2])])


@image({"a": 4, "a:2": 4, "a:3": 4, "b": 5, "c": 7})
def overlapping_slices(x):
    """a(12) --+-- [:8] -- b --+
    +-- [4:] -- c -- Concatenate
    """
    return layers.Concatenate()([conv(5, "b")(x[..., :8]), conv(7, "c")(x[:, :, :, 4:])])


@image({"a": 4, "a:2": 8, "b": 6})
def slices_that_change_places(x):
    """a(12) --+-- [4:] --+
    +-- [:4] -- Concatenate -- b      b reads all channels alike, but they have moved
    """
    return conv(6, "b")(layers.Concatenate()([x[..., 4:], x[..., :4]]))


@image({"a": 4, "a:2": 8, "b": 6})
def split_parts_that_change_places(x):
    """a(12) -- split --+-- [:4] -- relu --+
    +-- [4:] -- Concatenate -- b
    """
    first, second = ops.split(x, [4], axis=-1)
    return conv(6, "b")(layers.Concatenate()([second, layers.ReLU()(first)]))


@image({"a": 6, "b": 5})
def split_halves_that_are_added(x):
    """a(12) -- split --+-- [:6] --+
    +-- [6:] -- Add -- b     channel c of one half goes with channel c of the other
    """
    first, second = ops.split(x, 2, axis=-1)
    return conv(5, "b")(first + second)


@image({"b": 5}, {"a": r"'get_item-1' \(GetItem\) picks one channel by its number"})
def one_channel_by_its_number(x):
    """a(12) --+-- [3] ----+
    +-- b(5) -- Multiply
    """
    return conv(5, "b")(x) * ops.expand_dims(x[..., 3], -1)


@image({"a": 6, "b": 5})
def every_other_channel(x):
    """a(12) -- [::2] -- b     each with its neighbour, so that steps of two stay such"""
    return conv(5, "b")(x[..., ::2])


@image({"a": 12, "b": 5})
def every_other_place(x):
    """a(12) -- [:, ::2, 1::2] -- b"""
    return conv(5, "b")(x[:, ::2, 1::2])


# --- shuffling --------------------------------------------------------------------------------------------------------


@image({"a": 4, "b": 6})
def channel_shuffle_by_operations(x):
    """a(12) -- (3, 4) -- transpose -- (4, 3) -- (12) -- b     three groups of four: equal places are one"""
    y = ops.reshape(x, (-1, 8, 8, 3, 4))
    y = ops.transpose(y, (0, 1, 2, 4, 3))
    return conv(6, "b")(ops.reshape(y, (-1, 8, 8, 12)))


@model({"a": 4})
def channel_shuffle_of_a_fixed_batch():
    """a(12) -- (2, 3, 4) -- transpose -- (2, 4, 3) -- (2, 12) -- head     the batch is named, too"""
    inputs = keras.Input(batch_shape=(2, 5))
    y = ops.transpose(ops.reshape(layers.Dense(12, name="a")(inputs), (2, 3, 4)), (0, 2, 1))
    return keras.Model(inputs, layers.Dense(5, name="head")(ops.reshape(y, (2, 12))))


@image({"a": 4, "b": 6})
def channel_shuffle_by_layers(x):
    """a(12) -- Reshape(3, 4) -- Permute -- (4, 3) -- Reshape(12) -- b"""
    y = layers.Reshape((8, 8, 3, 4))(x)
    y = layers.Permute((1, 2, 4, 3))(y)
    return conv(6, "b")(layers.Reshape((8, 8, -1))(y))


@image({"a": 3, "b": 3})
def channel_shuffle_between_grouped_convolutions(x):
    """a(12) -- shuffle(2 groups of 6) -- b(6, groups=2)     as in ShuffleNet"""
    y = ops.reshape(x, (-1, 8, 8, 2, 6))
    y = ops.reshape(ops.transpose(y, (0, 1, 2, 4, 3)), (-1, 8, 8, 12))
    return layers.Conv2D(6, 3, groups=2, name="b")(y)


@image({"a": 3, "b": 6})
def depth_to_space(x):
    """a(8x8x12) -- (8, 8, 2, 2, 3) -- (8, 2, 8, 2, 3) -- (16x16x3) -- b"""
    y = ops.reshape(x, (-1, 8, 8, 2, 2, 3))
    y = ops.transpose(y, (0, 1, 3, 2, 4, 5))
    return conv(6, "b")(ops.reshape(y, (-1, 16, 16, 3)))


@image({"a": 12, "b": 6})
def space_to_depth(x):
    """a(8x8x12) -- (4, 2, 4, 2, 12) -- (4, 4, 2, 2, 12) -- (4x4x48) -- b"""
    y = ops.reshape(x, (-1, 4, 2, 4, 2, 12))
    y = ops.transpose(y, (0, 1, 3, 2, 4, 5))
    return conv(6, "b")(ops.reshape(y, (-1, 4, 4, 48)))


@image({"a": 12, "b": 6})
def there_and_back_again(x):
    """a(8x8x12) -- Permute(channels first) -- ReLU -- Permute(channels last) -- b"""
    y = layers.ReLU()(layers.Permute((3, 1, 2))(x))
    return conv(6, "b")(layers.Permute((2, 3, 1))(y))


@image({"b": 6}, {"a": r"'b' \(Conv2D\) reads axis 3, but the channels lie along another axis"})
def channels_read_as_places(x):
    """a(8x8x12) -- Permute(8x12x8) -- b     b convolves over the channels"""
    return layers.Conv2D(6, 3, name="b")(layers.Permute((1, 3, 2))(x))


@image({"a": 12, "b": 6})
def places_in_one_row(x):
    """a(8x8x12) -- Reshape(64x12) -- Conv1D b"""
    return layers.Flatten()(layers.Conv1D(6, 3, name="b")(layers.Reshape((64, 12))(x)))


@image({"a": 12, "b": 16})
def flatten_then_dense(x):
    """a(8x8x12) -- Flatten(768) -- Dense b"""
    return layers.Dense(16, activation="relu", name="b")(layers.Flatten()(x))


@image({"a": 12, "b": 16})
def flatten_by_reshape(x):
    """a(8x8x12) -- reshape(768) -- Dense b"""
    return layers.Dense(16, name="b")(ops.reshape(x, (-1, 768)))


# --- convolutions of every kind ---------------------------------------------------------------------------------------


@image({"a": 3, "b": 2, "c": 6})
def grouped_convolution(x):
    """a(12 = 4 groups of 3) -- b(8 = 4 groups of 2) -- c     every group loses the same channels"""
    return conv(6, "c")(layers.Conv2D(8, 3, groups=4, activation="relu", name="b")(x))


@image({"a": 12, "c": 6})
def grouped_convolution_with_a_group_a_channel(x):
    """a(12) -- b(24, groups=12) -- c"""
    return conv(6, "c")(layers.Conv2D(24, 3, groups=12, activation="relu", name="b")(x))


@image({"a": 12, "c": 6})
def depthwise(x):
    """a -- depthwise -- c"""
    return conv(6, "c")(layers.DepthwiseConv2D(3, activation="relu")(x))


@image({"a": 12, "c": 6})
def depthwise_times_two(x):
    """a(12) -- depthwise(24) -- c"""
    return conv(6, "c")(layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x))


@image({"a": 12, "b": 10, "c": 6})
def separable(x):
    """a -- b -- c"""
    return conv(6, "c")(layers.SeparableConv2D(10, 3, depth_multiplier=2, activation="relu", name="b")(x))


@image({"a": 12, "b": 10, "c": 6})
def transposed(x):
    """a(8x8) -- b(16x16) -- c"""
    return conv(6, "c")(layers.Conv2DTranspose(10, 3, strides=2, padding="same", activation="relu", name="b")(x))


@image({"a": 12, "b": 1, "c": 6})
def one_output_channel(x):
    """a(12) -- b(1) -- c     the only way: b keeps its one channel or goes with everything"""
    return conv(6, "c")(layers.Conv2D(1, 3, name="b")(x))


@image({"a": 12})
def called_twice(x):
    """a -- b -- b     one set of weights"""
    layer = layers.Conv2D(12, 3, padding="same", activation="relu", name="b")
    return layer(layer(x))


@image({"a": 12, "b": 6, "d": 5})
def called_on_two_tensors(x):
    """a --+-- c -- b --+
    +-- d -- b -- Add     c and d are read by one kernel, so they go together
    """
    layer = layers.Conv2D(6, 3, padding="same", activation="relu", name="b")
    return layers.Add()([layer(conv(5, "c")(x)), layer(conv(5, "d")(x))])


# --- gates and attention over places ----------------------------------------------------------------------------------


def _excitation(x: Any) -> Any:
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(4, 1, activation="relu", name="squeeze")(y)
    return layers.Conv2D(12, 1, activation="sigmoid", name="excite")(y)


@image({"a": 12, "squeeze": 4})
def squeeze_and_excite(x):
    """a --+-- pool -- squeeze -- excite --+
    +--------------------------- Multiply
    """
    return layers.Multiply()([x, _excitation(x)])


@image({"a": 12, "squeeze": 4})
def squeeze_and_excite_by_operators(x):
    """As above, with `*` and keras.ops instead of layers."""
    y = layers.Dense(4, activation="relu", name="squeeze")(ops.mean(x, axis=(1, 2)))
    y = layers.Dense(12, name="excite")(y)
    return x * ops.reshape(ops.sigmoid(y), (-1, 1, 1, 12))


@image({"a": 12, "b": 6}, {"where": r"'multiply-1' \(Multiply\) spreads it over all channels"})
def spatial_attention(x):
    """a(12) --+-- where(1) --+
    +------------ Multiply -- b     one number for each place
    """
    return conv(6, "b")(layers.Multiply()([x, layers.Conv2D(1, 3, padding="same", name="where")(x)]))


# --- normalisation ----------------------------------------------------------------------------------------------------


@image({"a": 4, "b": 6})
def group_normalization(x):
    """a(12) -- GroupNormalization(3 groups of 4) -- b     every group loses the same channels"""
    return conv(6, "b")(layers.ReLU()(layers.GroupNormalization(3)(x)))


@image({"a": 12, "b": 6})
def instance_normalization(x):
    """a(12) -- GroupNormalization(a group a channel) -- b"""
    return conv(6, "b")(layers.ReLU()(layers.GroupNormalization(-1)(x)))


@image({"a": 12, "b": 6})
def one_group_of_normalization(x):
    """a(12) -- GroupNormalization(1 group) -- b"""
    return conv(6, "b")(layers.GroupNormalization(1)(x))


@image({"a": 12, "b": 6})
def layer_normalization(x):
    """a -- LayerNormalization -- b     statistics over the channels that are left"""
    return conv(6, "b")(layers.LayerNormalization()(x))


@image({"a": 12, "b": 4, "c": 6})
def layer_normalization_of_a_concatenation(x):
    """a(12) --+-- b(4) --+
    +--------- Concatenate -- LayerNormalization -- c
    """
    return conv(6, "c")(layers.LayerNormalization()(layers.Concatenate()([x, conv(4, "b")(x)])))


@image({"a": 12, "b": 6})
def rms_normalization(x):
    """a -- RMSNormalization -- b"""
    return conv(6, "b")(layers.RMSNormalization()(x))


@image({"a": 12, "b": 6})
def unit_normalization(x):
    """a -- UnitNormalization -- b"""
    return conv(6, "b")(layers.UnitNormalization()(x))


@image({"b": 6}, {"a": r"'over_places' \(LayerNormalization\) normalises over other axes than the last"})
def layer_normalization_over_places(x):
    """a -- LayerNormalization(all axes) -- b"""
    return conv(6, "b")(layers.LayerNormalization(axis=(1, 2, 3), name="over_places")(x))


@image({"a": 12, "b": 6})
def slopes(x):
    """a -- PReLU -- b"""
    return conv(6, "b")(layers.PReLU(shared_axes=[1, 2])(x))


# --- keras.ops and operators ------------------------------------------------------------------------------------------


@image({"a": 12, "c": 6})
def operators(x):
    """a --+-- b --+
    +------ x * y + 1 -- c
    """
    return conv(6, "c")(x * conv(12, "b")(x) + 1)


@image({"a": 12, "c": 6})
def more_operators(x):
    """a --+-- b --+
    +------ (2 - x) / (1 + |y|) -- c
    """
    return conv(6, "c")((2.0 - x) / (1.0 + ops.abs(conv(12, "b")(x))))


@image({"c": 6}, {"a": r"'add-1' \(Add\) joins a constant with a number for each channel"})
def a_constant_for_each_channel(x):
    """a(12) -- + [0, 1, ... 11] -- c"""
    return conv(6, "c")(x + np.arange(12, dtype="float32"))


@image({"a": 12, "c": 6})
def operations_without_a_row(x):
    """a -- clip -- pad -- average_pool -- repeat -- flip -- c     probed, one by one"""
    y = ops.average_pool(ops.pad(ops.clip(x, -1.0, 1.0), [[0, 0], [1, 1], [1, 1], [0, 0]]), 2, strides=2)
    return conv(6, "c")(ops.flip(ops.repeat(y, 2, axis=-1), axis=-1))


@image({"c": 6}, {"a": r"'roll-1' \(Roll\) has no rule, and .*fewer channels.*register_rule"})
def a_permutation_that_depends_on_the_width(x):
    """a(12) -- roll by 5 channels -- c     with other channels there, others would meet"""
    return conv(6, "c")(ops.roll(x, 5, axis=-1))


@image({}, {"a": r"'einsum-1' \(Einsum\) makes channels along several axes", "b": r"'einsum-1' \(Einsum\)"})
def einsum_over_channels(x):
    """a --+-- b --+
    +------ einsum(over c) -- head     each pair of channels meets
    """
    return layers.Flatten()(ops.einsum("bhwc,bhwd->bcd", x, conv(6, "b")(x)))


@image({"a": 12, "c": 6})
def einsum_over_places(x):
    """a --+-- mean -- b --+
    +-------------- einsum("bhwc,bc->bhwc") -- c     a product for each channel
    """
    y = layers.Dense(12, name="b")(ops.mean(x, axis=(1, 2)))
    return conv(6, "c")(ops.einsum("bhwc,bc->bhwc", x, y))


@image({"b": 6}, {"a": r"'softmax-1' \(Softmax\) compares channels with each other"})
def softmax_over_channels(x):
    """a -- softmax -- b"""
    return conv(6, "b")(ops.softmax(x, axis=-1))


# --- custom layers ----------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Affine(layers.Layer):
    """A scale and an offset for each channel; its configuration says nothing of widths, so the probe can read it."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.bias = self.add_weight(shape=(1, shape[-1]), initializer="zeros", name="bias")

    def call(self, inputs):
        return inputs * self.scale + self.bias


@keras.saving.register_keras_serializable("tests")
class Centered(layers.Layer):
    """Subtracts the mean over channels."""

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=-1, keepdims=True)


class Topped(layers.Layer):
    """Subtracts the maximum over channels."""

    def call(self, inputs):
        return inputs - ops.max(inputs, axis=-1, keepdims=True)


@image({"a": 12, "b": 6})
def custom_layer_that_subtracts_the_mean_over_channels(x):
    """a -- Centered -- b     the mean of those that are left"""
    return conv(6, "b")(Centered()(x))


@image({"a": 12, "b": 6})
def custom_layer_with_weights_for_each_channel(x):
    """a -- Affine -- b"""
    return conv(6, "b")(Affine()(x))


@image({"b": 6}, {"a": r"'contrast' \(Topped\) has no rule, and it mixes channels; add a row with .*register_rule"})
def custom_layer_that_mixes(x):
    """a -- Centered -- b"""
    return conv(6, "b")(Topped(name="contrast")(x))


@image({"a": 12, "b": 6})
def lambda_for_each_channel(x):
    """a -- Lambda(|x|) -- b     its function is no part of its configuration"""
    return conv(6, "b")(layers.Lambda(lambda tensor: ops.abs(tensor) + 1)(x))


@image({"b": 6}, {"a": r"'contrast' \(Lambda\) has no rule, and it mixes channels"})
def lambda_over_channels(x):
    """a -- Lambda(x - mean of x) -- b"""
    return conv(6, "b")(layers.Lambda(lambda tensor: tensor - ops.mean(tensor, -1, keepdims=True), name="contrast")(x))


# --- sequences --------------------------------------------------------------------------------------------------------


@model({"embedding-1": 12, "b": 6})
def embedding():
    """tokens -- Embedding(12) -- b"""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Dense(6, activation="relu", name="b")(layers.Embedding(8, 12)(tokens))
    return keras.Model(tokens, layers.Dense(5, name="head")(layers.GlobalAveragePooling1D()(x)))


@model({"words": 12, "recurrent": 8})
def masked_embedding():
    """tokens -- words(mask_zero) -- LayerNormalization -- recurrent     the mask must travel through all of them"""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.LayerNormalization()(layers.Embedding(8, 12, mask_zero=True, name="words")(tokens))
    return keras.Model(tokens, layers.Dense(5, name="head")(layers.LSTM(8, name="recurrent")(x)))


@sequence({"a": 12, "attention": 4, "attention:2": 6})
def self_attention(x):
    """a ==(query, key, value)== attention(4 heads, 6 channels)"""
    return layers.MultiHeadAttention(4, 3, output_shape=6, name="attention")(x, x)


@sequence({"a": 12, "q": 6, "k": 7, "v": 8, "attention": 4})
def cross_attention(x):
    """a --+-- q(6) --+---------------------------+
    +-- k(7) -- attention(4 heads, 6 channels) -- Add
    +-- v(8) --+
    """
    q, k, v = (layers.Dense(width, name=name)(x) for width, name in ((6, "q"), (7, "k"), (8, "v")))
    # Under JAX, Keras 3.12 fails where values are not as wide as keys.
    width = 3 if keras.backend.backend() == "jax" else 2
    y = layers.MultiHeadAttention(4, 3, value_dim=width, name="attention")(q, v, key=k, use_causal_mask=True)
    return layers.Add()([q, y])


@sequence({"a": 12, "attention": 4, "wide": 20})
def transformer_block(x):
    """a --+-- norm -- attention --+   +-- norm -- wide -- narrow --+
    +---------------------- Add +------------------------- Add
    """
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(4, 3, name="attention")(y, y)
    y = layers.Dense(20, activation="gelu", name="wide")(layers.LayerNormalization()(x))
    return x + layers.Dense(12, name="narrow")(y)


@model({"a": 12, "attention": 4, "attention:2": 12})
def attention_with_a_mask():
    """steps -- a == attention -- head
    mask ------------+
    """
    steps, mask = keras.Input((6, 5)), keras.Input((6, 6), dtype="int32")
    x = layers.Dense(12, name="a")(steps)
    y = layers.MultiHeadAttention(4, 3, name="attention")(x, x, attention_mask=ops.greater(mask, 3))
    return keras.Model([steps, mask], layers.Dense(5, name="head")(layers.GlobalAveragePooling1D()(y)))


@sequence({"attention": 4, "attention:2": 12, "b": 6}, {"a": r"'get_item-1' \(GetItem\) picks one channel"})
def attention_with_a_mask_of_channels(x):
    """a ==== attention(mask made from a) -- b"""
    mask = ops.reshape(x[..., 0], (-1, 6, 1)) * ops.ones((6, 6)) > 0
    return layers.Dense(6, name="b")(layers.MultiHeadAttention(4, 3, name="attention")(x, x, attention_mask=mask))


@sequence({"a": 12, "attention": 4, "attention:2": 12, "b": 6})
def attention_with_scores(x):
    """a ==== attention --+-- out -- b --+
    +-- scores(4 heads x 6 x 6) -- mean over keys and heads: heads are compared, so they stay
    """
    y, scores = layers.MultiHeadAttention(4, 3, name="attention")(x, x, return_attention_scores=True)
    weights = layers.GlobalAveragePooling1D()(layers.Permute((2, 3, 1))(scores)[:, :, 0])
    return layers.Concatenate()([layers.GlobalAveragePooling1D()(layers.Dense(6, name="b")(y)), weights])


@sequence({"a": 12, "attention": 2})
def grouped_query_attention(x):
    """a ==== attention(2 key-value heads, each with 2 query heads) -- Add with a"""
    return x + layers.GroupQueryAttention(3, 4, 2, name="attention")(x, x)


@sequence({"a": 12, "b": 8, "c": 7})
def long_short_term_memory(x):
    """a -- b -- c     four gates in a row in each kernel"""
    return layers.LSTM(7, name="c")(layers.LSTM(8, return_sequences=True, name="b")(x))


@sequence({"a": 12, "b": 8, "c": 7, "d": 6})
def gated_recurrent_units(x):
    """a -- b -- c -- d     with and without the separate bias of the recurrent kernel"""
    x = layers.GRU(8, return_sequences=True, name="b")(x)
    x = layers.GRU(7, return_sequences=True, reset_after=False, name="c")(x)
    return layers.SimpleRNN(6, name="d")(x)


@sequence({"a": 12, "b": 8})
def recurrent_states(x):
    """a --+-- b(LSTM) == states == c(LSTM) -- head     an encoder starts a decoder: its units are the decoder's"""
    _, hidden, carried = layers.LSTM(8, return_state=True, name="b")(x)
    return layers.LSTM(8, name="c")(x, initial_state=[hidden, carried])


@sequence({"a": 12, "both": 7})
def bidirectional(x):
    """a -- both(7 units forwards, 7 backwards)     one width, which Keras takes for both directions"""
    return layers.Bidirectional(layers.LSTM(7), name="both")(x)


@sequence({"a": 12, "both": 7, "b": 6})
def bidirectional_sum(x):
    """a -- both(7 units forwards + 7 backwards) -- b"""
    both = layers.Bidirectional(layers.GRU(7, return_sequences=True), merge_mode="sum", name="both")(x)
    return layers.Dense(6, name="b")(both)


@sequence({"a": 12, "each": 7})
def time_distributed_dense(x):
    """a -- TimeDistributed(Dense)"""
    return layers.TimeDistributed(layers.Dense(7, activation="relu"), name="each")(x)


@model({"each": 7, "each_2": 6, "b": 5})
def time_distributed_convolutions():
    """video -- TimeDistributed(Conv2D, BatchNormalization, pooling, Flatten) -- LSTM b"""
    video = keras.Input((3, 6, 6, 2))
    x = layers.TimeDistributed(layers.Conv2D(7, 3, activation="relu"), name="each")(video)
    x = layers.TimeDistributed(layers.BatchNormalization())(x)
    x = layers.TimeDistributed(layers.Conv2D(6, 3), name="each_2")(x)
    x = layers.TimeDistributed(layers.Flatten())(layers.TimeDistributed(layers.MaxPooling2D())(x))
    return keras.Model(video, layers.Dense(4, name="head")(layers.LSTM(5, name="b")(x)))


@sequence({"a": 12, "b": 6})
def one_dimensional_convolution(x):
    """a -- b(Conv1D, causal)"""
    return layers.Conv1D(6, 3, padding="causal", name="b")(x)


# --- models -----------------------------------------------------------------------------------------------------------


@model({"a": 8, "b": 6, "c": 5})
def several_inputs_and_outputs():
    """left -- a --+               +-- first
    right - b -- Concatenate -- c --+-- second
    """
    left, right = keras.Input((4,), name="left"), keras.Input((6,), name="right")
    joined = layers.Concatenate()([layers.Dense(8, name="a")(left), layers.Dense(6, name="b")(right)])
    hidden = layers.Dense(5, activation="relu", name="c")(joined)
    return keras.Model([left, right], [layers.Dense(2, name="first")(hidden), layers.Dense(3, name="second")(hidden)])


@model({"a": 8, "inner-wide": 7, "inner-narrow": 6, "tail-d": 5})
def nested_models():
    """a -- inner(wide -- narrow) -- tail(d)     a functional and a Sequential model inside a functional one"""
    inner_input = keras.Input((8,))
    wide = layers.Dense(7, activation="relu", name="wide")(inner_input)
    inner = keras.Model(inner_input, layers.Dense(6, name="narrow")(wide), name="inner")
    tail = keras.Sequential([layers.Dense(5, name="d"), layers.ReLU()], name="tail")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(tail(inner(layers.Dense(8, name="a")(inputs)))))


@model({"a": 8, "inner-wide": 7})
def a_nested_model_called_twice():
    """a -- inner(wide -- narrow) -- inner -- head     a stream of 8 channels through one set of weights"""
    inner_input = keras.Input((8,))
    wide = layers.Dense(7, activation="relu", name="wide")(inner_input)
    inner = keras.Model(inner_input, layers.Dense(8, name="narrow")(wide), name="inner")
    inputs = keras.Input((4,))
    x = layers.Dense(8, name="a")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="head")(inner(inner(x))))


def test_masked_equals_rebuilt_with_channels_first_weights():
    #  a --+-- b -- bn --+
    #      +------------ Add -- pool -- head     CPU builds of TensorFlow do not convolve in this layout,
    #                                            so the weights are compared instead of the outputs.
    first = {"padding": "same", "data_format": "channels_first"}
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(12, 3, name="a", **first)(inputs)
    y = layers.BatchNormalization(axis=1, name="bn")(layers.Conv2D(12, 3, name="b", **first)(x))
    y = layers.GlobalAveragePooling2D(data_format="channels_first")(layers.Add()([x, y]))
    seed = randomize(keras.Model(inputs, layers.Dense(5, name="head")(y)))
    graph = morph.ChannelGraph.from_model(seed)
    assert sizes(graph) == {"a": 12}
    structure = random_structure(graph, 0.5)
    alive = structure.groups["a"]["alive"]
    student = morph.rebuild(seed, structure, weights="inherit")
    assert student.count_params() == structure.costs["params"]["structure"]
    expected = {
        "a": lambda weight: weight[..., alive],
        "bn": lambda weight: weight[alive],
        "b": lambda weight: weight[:, :, alive][..., alive] if weight.ndim == 4 else weight[alive],
        "head": lambda weight: weight[alive] if weight.ndim == 2 else weight,
    }
    for name, take in expected.items():
        for old, new in zip(seed.get_layer(name).weights, student.get_layer(name).weights, strict=True):
            assert np.array_equal(ops.convert_to_numpy(new), take(ops.convert_to_numpy(old)))


def test_a_part_of_a_split_goes_and_the_others_stay():
    #  a(12) -- split --+-- [:6] -- b --+
    #                   +-- [6:] -- c -- Concatenate
    seed = CASES["split into equal parts"].build()
    graph = morph.ChannelGraph.from_model(seed)
    structure = morph.describe(graph, {"a": 0})
    assert structure.removed["layers"] == ["b", "b_bn", "re_lu-1"]
    assert structure.widths["c"] == 7
    assert morph.verify(seed, structure) < 1e-5
    assert morph.rebuild(seed, structure).count_params() == structure.costs["params"]["structure"]


def test_a_subclassed_model_is_refused_with_advice():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(
        morph.MorphError, match=r"'own' \(Own\) is not a functional Keras model.*Call it on symbolic inputs"
    ):
        morph.ChannelGraph.from_model(Own(name="own"))
