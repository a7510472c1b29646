"""Tables of numbers that code adds along an axis of channels: they go with the channels, and are no reason to stay."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.arrays import as_numpy
from tests.core.networks import random_structure, randomize

STEPS, WIDTH, HEADS, FEATURES = 6, 8, 4, 3


@keras.saving.register_keras_serializable("test_tables")
class Sloped(layers.Layer):
    """Attention whose scores get a slope for each head: "table", "repeated" for each example, or of "inputs"."""

    def __init__(self, kind="table", **options):
        super().__init__(**options)
        self.kind = kind

    def build(self, shape):
        self.query, self.key, self.value = (
            layers.EinsumDense("bqm,muh->bquh", (None, HEADS, FEATURES)) for _ in range(3)
        )
        self.narrow = layers.Dense(WIDTH)
        for layer in (self.query, self.key, self.value):
            layer.build(shape)
        self.narrow.build((*shape[:-1], HEADS * FEATURES))

    def call(self, x):
        scores = ops.einsum("bquh,bkuh->buqk", self.query(x), self.key(x))
        slopes: Any = ops.convert_to_tensor([2.0**-place for place in range(HEADS)])
        if self.kind != "table":
            ones = ops.ones((ops.shape(x)[0], STEPS), dtype="int32")
            if self.kind == "inputs":
                ones = ops.cast(ops.less(x[..., 0], 0.5), "int32")
            positions = ops.cast((ops.cumsum(ones, axis=-1) - 1) * ones, "float32")[:, None, :]
            table = ops.transpose(ops.expand_dims(slopes[..., None] * positions, 0), [1, 2, 0, 3])
        else:
            table = ops.expand_dims(slopes[:, None] * ops.arange(STEPS, dtype="float32")[None], 1)[None]
        attended = ops.einsum("buqk,bkuh->bquh", ops.softmax(scores + table, axis=-1), self.value(x))
        return x + self.narrow(ops.reshape(attended, (-1, STEPS, HEADS * FEATURES)))

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


def network(kind: str) -> keras.Model:
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(WIDTH, name="stem")(inputs)
    x = Sloped(kind, name="two")(Sloped(kind, name="one")(x))
    return randomize(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def batch() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, STEPS, 5)).astype("float32")


@pytest.mark.parametrize("kind", ["table", "repeated", "inputs"])
def test_heads_with_slopes_go_with_their_slopes_and_the_law_holds(kind):
    model = network(kind)
    graph = morph.ChannelGraph.from_model(model)
    # The heads of one block are not those of the other, though both have the same slopes.
    heads = [group.name for group in graph.groups if group.prunable and group.size == HEADS]
    assert heads == ["one-query", "two-query"], str(graph)
    for seed, share in enumerate((0.75, 0.5, 0.25)):
        assert morph.verify(model, random_structure(graph, share, seed), batch()) < 1e-5


def test_the_slopes_that_are_left_are_those_of_the_heads_that_are_left(tmp_path):
    model = network("table")
    graph = morph.ChannelGraph.from_model(model)
    structure = morph.describe(graph, {"one-query": 2}, {"one-query": [1, 3]})
    student = morph.rebuild(model, structure)
    tables = [layer.value for layer in student.layers if "one" in layer.name and hasattr(layer, "value")]
    assert any(table.shape == (1, 2, 1, STEPS) and np.allclose(table[0, :, 0, 2], [1, 0.25]) for table in tables)
    student.save(tmp_path / "student.keras")
    again: Any = keras.models.load_model(tmp_path / "student.keras")
    assert np.allclose(as_numpy(student(batch())), as_numpy(again(batch())), atol=1e-6)


def test_a_head_too_many_gets_a_slope_of_the_seed():
    model = network("table")
    graph = morph.ChannelGraph.from_model(model)
    wider = morph.expand(random_structure(graph, 1.0), graph, cost="params", target=2.0)
    count = wider.groups["one-query"]["width"]
    assert count > HEADS
    tables = [layer.value for layer in morph.rebuild(model, wider).layers if hasattr(layer, "value")]
    (table,) = [one for one in tables if one.shape == (1, count, 1, STEPS)][:1]
    assert set(np.unique(table[0, :, 0, 1])) == {1.0, 0.5, 0.25, 0.125}


@keras.saving.register_keras_serializable("test_tables")
class Placed(layers.Layer):
    """Adds a table of positions that its code computes."""

    def call(self, x):
        places = ops.arange(STEPS, dtype="float32")[:, None] * ops.arange(WIDTH, dtype="float32")[None]
        return x + ops.sin(places)

    def build(self, shape):
        self.unused = layers.Dropout(0.1)


def test_a_table_of_positions_does_not_keep_the_width_that_it_is_added_to():
    inputs = keras.Input((STEPS, 5))
    x = Placed(name="placed")(layers.Dense(WIDTH, name="stem")(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    graph = morph.ChannelGraph.from_model(model)
    assert [group.name for group in graph.groups if group.prunable] == ["stem"]
    for seed, share in enumerate((0.75, 0.5, 0.25)):
        assert morph.verify(model, random_structure(graph, share, seed), batch()) < 1e-5


def test_a_table_that_is_summed_over_all_channels_still_keeps_them():
    inputs = keras.Input((STEPS, 5))

    @keras.saving.register_keras_serializable("test_tables")
    class Ranked(layers.Layer):
        def build(self, shape):
            self.unused = layers.Dropout(0.1)

        def call(self, x):
            return ops.sort(x + ops.arange(WIDTH, dtype="float32"), axis=-1)

    x = Ranked(name="ranked")(layers.Dense(WIDTH, name="stem")(inputs))
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    assert not graph.prunable.any()
