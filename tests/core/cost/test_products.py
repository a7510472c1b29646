"""Counts of layers and operations that are no plain kernel, against an oracle that watches TensorFlow multiply."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from benchmarks.watched import watched_flops
from tests.core.networks import random_structure

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the oracle watches TensorFlow")


class LowRankStep(layers.Layer):
    """A recurrent cell of a stranger: a Dense layer on input and state."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = self.state_size = self.output_size = units
        self.mix = layers.Dense(units)

    def build(self, shape):
        self.mix.build((shape[0], shape[1] + self.units))

    def call(self, inputs, states):
        made = self.mix(ops.concatenate([inputs, states[0]], axis=-1))
        return made, [made]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Product(layers.Layer):
    """A layer of a stranger that multiplies with a weight of its own, by Python's operator."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x):
        return x @ self.table

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def tokens(length=6, width=8):
    return keras.Input((length, width))


def steps(x, width=12):
    return layers.Dense(width, activation="relu")(x)


def image(size=8, width=4):
    return keras.Input((size, size, width))


def sequence_model(layer, width=8):
    x = tokens(width=width)
    return keras.Model(x, layers.Dense(3)(layer(steps(x))))


def of_two(function, lengths=(6, 5), width=8):
    """Two branches whose widths can be pruned as far as the function lets them."""
    one, other = tokens(lengths[0], width), tokens(lengths[1], width)
    return keras.Model([one, other], layers.Dense(3)(function(steps(one), steps(other))))


def small_network():
    x = keras.Input((8, 8, 2))
    made = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    return keras.Model(x, layers.Dense(5)(made))


def video(layer):
    x = keras.Input((3, 8, 8, 2))
    return keras.Model(x, layers.Dense(3)(layer(x)))


def convolved(function, shape=(8, 8, 3), stem=lambda x: layers.Conv2D(4, 3, padding="same")(x)):
    x = keras.Input(shape)
    return keras.Model(x, layers.Dense(3)(function(stem(x))))


def scaled_attention(q, k):
    query = layers.Reshape((6, 2, 6))(q)
    key = layers.Reshape((5, 2, 6))(k)
    return layers.Reshape((6, 12))(ops.nn.dot_product_attention(query, key, key))


def kernel(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def by_hand_attention(q, k):
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))))
    return ops.matmul(scores, steps(k, 10))


def by_hand_einsum(q, k):
    scores = ops.softmax(ops.einsum("bqc,bkc->bqk", q, k))
    return ops.einsum("bqk,bkc->bqc", scores, steps(k, 10))


def tied_head():
    table = layers.ReversibleEmbedding(20, 8)
    ids = keras.Input((6,))
    return keras.Model(ids, table(steps(table(ids), 8), reverse=True))


def with_mask():
    x, mask = tokens(), keras.Input((6, 6))
    made = layers.MultiHeadAttention(2, 5, value_dim=3)(steps(x), steps(x, 7), attention_mask=mask)
    return keras.Model([x, mask], layers.Dense(3)(made))


NETWORKS = {
    "Attention": lambda: of_two(lambda q, k: layers.Attention()([q, k])),
    "Attention with keys": lambda: of_two(lambda q, k: layers.Attention()([q, steps(k, 9), k])),
    "Attention in mode concat": lambda: of_two(lambda q, k: layers.Attention(score_mode="concat")([q, k])),
    "AdditiveAttention": lambda: of_two(lambda q, k: layers.AdditiveAttention()([q, k])),
    "Dot": lambda: of_two(lambda q, k: layers.Dot(axes=2)([q, k])),
    "Dot over places": lambda: of_two(lambda q, k: layers.Dot(axes=(1, 1))([q, k]), (6, 6)),
    "EinsumDense": lambda: sequence_model(layers.EinsumDense("abc,cd->abd", (6, 5))),
    "EinsumDense with dots": lambda: sequence_model(layers.EinsumDense("...c,cde->...de", (2, 5))),
    "EinsumDense over places": lambda: sequence_model(layers.EinsumDense("abc,bd->adc", (4, 12))),
    "RNN of SimpleRNNCell": lambda: sequence_model(layers.RNN(layers.SimpleRNNCell(5))),
    "RNN of LSTMCell": lambda: sequence_model(layers.RNN(layers.LSTMCell(5), return_sequences=True)),
    "RNN of GRUCell": lambda: sequence_model(layers.RNN(layers.GRUCell(5))),
    "RNN of several cells": lambda: sequence_model(
        layers.RNN([layers.LSTMCell(5), layers.GRUCell(3), layers.SimpleRNNCell(4)])
    ),
    "RNN of a stranger's cell": lambda: sequence_model(layers.RNN(LowRankStep(5))),
    "ConvLSTM1D": lambda: convolved(layers.ConvLSTM1D(4, 3, padding="same"), (5, 8, 3), lambda x: x),
    "ConvLSTM2D": lambda: video(layers.ConvLSTM2D(4, 3, strides=2, padding="same", return_sequences=True)),
    "ConvLSTM3D": lambda: convolved(layers.ConvLSTM3D(2, 3), (2, 5, 5, 5, 2), lambda x: x),
    "TimeDistributed model": lambda: video(layers.TimeDistributed(small_network())),
    "TimeDistributed Dense": lambda: sequence_model(layers.TimeDistributed(layers.Dense(5))),
    "TimeDistributed Conv2D": lambda: video(layers.TimeDistributed(layers.Conv2D(4, 3))),
    "TimeDistributed LSTM": lambda: video(
        layers.TimeDistributed(keras.Sequential([keras.Input((8, 8, 2)), layers.Reshape((8, 16)), layers.LSTM(4)]))
    ),
    "TimeDistributed EinsumDense": lambda: video(
        layers.TimeDistributed(layers.EinsumDense("abcd,de->abce", (8, 8, 5)))
    ),
    "TimeDistributed stranger": lambda: sequence_model(layers.TimeDistributed(Product(5))),
    "Bidirectional LSTM": lambda: sequence_model(layers.Bidirectional(layers.LSTM(5))),
    "Bidirectional RNN": lambda: sequence_model(layers.Bidirectional(layers.RNN(layers.GRUCell(5)))),
    "Bidirectional ConvLSTM2D": lambda: video(layers.Bidirectional(layers.ConvLSTM2D(4, 3))),
    "ReversibleEmbedding": tied_head,
    "MultiHeadAttention": lambda: of_two(lambda q, k: layers.MultiHeadAttention(2, 5, value_dim=3)(q, k)),
    "MultiHeadAttention with keys": lambda: of_two(
        lambda q, k: layers.MultiHeadAttention(2, 5, output_shape=7)(q, k, key=steps(k, 9))
    ),
    "MultiHeadAttention with a mask": with_mask,
    "MultiHeadAttention over an axis": lambda: convolved(
        lambda x: layers.MultiHeadAttention(2, 5, attention_axes=(2,))(x, x)
    ),
    "MultiHeadAttention over two axes": lambda: convolved(lambda x: layers.MultiHeadAttention(2, 5)(x, x)),
    "GroupQueryAttention": lambda: of_two(lambda q, k: layers.GroupQueryAttention(5, 4, 2)(q, k)),
    "ops.matmul": lambda: of_two(by_hand_attention),
    "ops.einsum": lambda: of_two(by_hand_einsum),
    "@": lambda: of_two(lambda q, k: q @ ops.transpose(k, (0, 2, 1))),
    "@ a constant": lambda: sequence_model(lambda x: ops.matmul(x, kernel(12, 7))),
    "ops.dot": lambda: sequence_model(lambda x: ops.dot(x, kernel(12, 7))),
    "ops.tensordot": lambda: sequence_model(lambda x: ops.tensordot(x, kernel(12, 7), axes=[[2], [0]])),
    "ops.tensordot of some axes": lambda: sequence_model(lambda x: ops.tensordot(x, kernel(6, 12, 7), axes=2)),
    "ops.inner": lambda: sequence_model(layers.Lambda(lambda x: ops.inner(x, kernel(7, 12)), output_shape=(6, 7))),
    "ops.conv": lambda: convolved(lambda x: ops.conv(x, kernel(3, 3, 4, 5), strides=2, padding="same")),
    "ops.depthwise_conv": lambda: convolved(lambda x: ops.depthwise_conv(x, kernel(3, 3, 4, 2))),
    "ops.separable_conv": lambda: convolved(lambda x: ops.separable_conv(x, kernel(3, 3, 4, 2), kernel(1, 1, 8, 5))),
    "ops.conv_transpose": lambda: convolved(
        layers.Lambda(lambda x: ops.conv_transpose(x, kernel(3, 3, 5, 4), 2, padding="same"))
    ),
    "ops.dot_product_attention": lambda: of_two(scaled_attention),
    "a stranger's product": lambda: sequence_model(Product(5)),
    "Lambda": lambda: sequence_model(layers.Lambda(lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))))),
    "SpectralNormalization": lambda: sequence_model(layers.SpectralNormalization(layers.Dense(5))),
}


def watched(model):
    data = [np.zeros((1, *tensor.shape[1:]), "float32") for tensor in model.inputs]
    return sum(watched_flops(lambda: model(data if len(data) > 1 else data[0], training=False)).values())


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_what_tensorflow_multiplies_at_the_seeds_widths_and_at_fewer(name):
    model = NETWORKS[name]()
    graph = morph.ChannelGraph.from_model(model)
    assert not graph.uncounted
    assert graph.cost("flops") == watched(model)
    if graph.prunable.any():
        structure = random_structure(graph, 0.5)
        student = morph.rebuild(model, structure)
        assert graph.cost("flops", structure) == watched(student)
        assert morph.ChannelGraph.from_model(student).cost("flops") == watched(student)
