"""Mixtures of experts: weights of three dimensions that code multiplies with, and losses that are added in training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.arrays import as_numpy
from tests.core.networks import random_structure, randomize

STEPS, WIDTH, HIDDEN, EXPERTS, CHOSEN = 6, 8, 12, 3, 2


@keras.saving.register_keras_serializable("test_experts")
class Experts(layers.Layer):
    """Experts that all run, weighted by a router; in training the router pays for using some more than others.

    kind: how the two halves of a gated product lie in one weight: "plain" (no gate), "halves" or "interleaved".
    """

    def __init__(self, kind="plain", matmul=False, **options):
        super().__init__(**options)
        self.kind, self.matmul = kind, matmul

    def build(self, shape):
        self.router = layers.Dense(EXPERTS)
        self.router.build(shape)
        wide = HIDDEN if self.kind == "plain" else 2 * HIDDEN
        self.up = self.add_weight(shape=(EXPERTS, WIDTH, wide), name="up", initializer="glorot_uniform")
        self.up_bias = self.add_weight(shape=(EXPERTS, wide), name="up_bias", initializer="random_normal")
        self.down = self.add_weight(shape=(EXPERTS, HIDDEN, WIDTH), name="down", initializer="glorot_uniform")

    def call(self, x, training=False):
        batch, steps, _ = ops.shape(x)
        flat = ops.reshape(x, (-1, WIDTH))
        logits = self.router(flat)
        best, places = ops.top_k(ops.softmax(logits, axis=-1), k=CHOSEN)
        routing = ops.transpose(ops.sum(ops.one_hot(places, EXPERTS) * best[..., None], axis=1), (1, 0))
        if self.matmul:
            hidden = ops.matmul(ops.repeat(ops.expand_dims(flat, 0), EXPERTS, axis=0), self.up)
        else:
            hidden = ops.einsum("th,ehm->etm", flat, self.up)
        hidden = hidden + self.up_bias[:, None, :]
        if self.kind == "plain":
            hidden = ops.relu(hidden)
        elif self.kind == "halves":
            gate, hidden = ops.split(hidden, 2, axis=-1)
            hidden = hidden * ops.silu(gate)
        else:
            hidden = (ops.clip(hidden[..., 1::2], -7.0, 7.0) + 1) * ops.sigmoid(hidden[..., ::2])
        product = ops.matmul(hidden, self.down) if self.matmul else ops.einsum("eti,eih->eth", hidden, self.down)
        made = ops.sum(product * routing[:, :, None], axis=0)
        if training:
            used = ops.mean(ops.one_hot(places, EXPERTS), axis=(0, 1))
            self.add_loss(0.1 * ops.sum(used * ops.mean(ops.softmax(logits, axis=-1), axis=0)))
        return x + ops.reshape(made, (batch, steps, WIDTH))

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "matmul": self.matmul}


def network(**options: Any) -> keras.Model:
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(WIDTH, name="stem")(inputs)
    x = Experts(**options, name="two")(Experts(**options, name="one")(x))
    return randomize(keras.Model(inputs, layers.Dense(3, name="head")(x)))


def batch() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, STEPS, 5)).astype("float32")


def losses_in_training(model: Any) -> list[float]:
    model(batch(), training=True)
    return [float(as_numpy(loss)) for loss in model.losses]


KINDS = [{"kind": "plain"}, {"kind": "halves"}, {"kind": "interleaved"}, {"kind": "plain", "matmul": True}]


@pytest.mark.parametrize("options", KINDS, ids=lambda one: "-".join(map(str, one.values())))
def test_hidden_units_and_the_width_of_experts_can_be_pruned_and_the_law_holds(options):
    model = network(**options)
    graph = morph.ChannelGraph.from_model(model)
    prunable = {group.name: group.size for group in graph.groups if group.prunable}
    assert {"one-up": HIDDEN, "two-up": HIDDEN}.items() <= prunable.items(), str(graph)
    assert prunable.get("stem") == WIDTH, str(graph)
    for seed, share in enumerate((0.75, 0.5, 0.25)):
        structure = random_structure(graph, share, seed)
        assert morph.verify(model, structure, batch()) < 1e-5
        assert structure.costs["params"]["structure"] == morph.rebuild(model, structure).count_params()


@pytest.mark.parametrize("options", KINDS, ids=lambda one: "-".join(map(str, one.values())))
def test_flops_of_experts_are_those_of_their_products(options):
    graph = morph.ChannelGraph.from_model(network(**options))
    wide = HIDDEN if options["kind"] == "plain" else 2 * HIDDEN
    block = WIDTH * EXPERTS + EXPERTS * (WIDTH * wide + HIDDEN * WIDTH)
    assert graph.cost("flops") == 2 * STEPS * (5 * WIDTH + 2 * block + WIDTH * 3)


def test_losses_of_training_are_added_by_the_opened_the_rebuilt_and_the_loaded_network(tmp_path):
    model = network()
    graph = morph.ChannelGraph.from_model(model)
    assert not any("stays closed" in note for note in graph.notes)
    expected = losses_in_training(model)
    assert len(expected) == 2 and all(expected)
    student = morph.rebuild(model, random_structure(graph, 1.0), weights="inherit")
    np.testing.assert_allclose(losses_in_training(student), expected, rtol=1e-5)
    student(batch(), training=False)
    assert not student.losses
    student.save(tmp_path / "student.keras")
    np.testing.assert_allclose(losses_in_training(keras.models.load_model(tmp_path / "student.keras")), expected, 1e-5)


def test_losses_of_training_take_part_in_a_search():
    model = network()
    search = morph.StructureSearch(model, cost="flops", target=0.6, gate="logistic_sigmoid")
    search.compile("adam", "mse")
    search.fit(batch(), np.zeros((3, STEPS, 3), "float32"), epochs=8, verbose=0)
    structure = search.structure()
    graph = morph.ChannelGraph.from_model(model)
    assert graph.cost("flops", structure) <= 0.6 * graph.cost("flops")
    assert morph.verify(model, structure, batch()) < 1e-5
    assert len(losses_in_training(search)) == 2


@keras.saving.register_keras_serializable("test_experts")
class Costly(layers.Layer):
    """A loss that is made of channels: they stay, since the loss would be another without them."""

    def build(self, shape):
        self.wide, self.narrow = layers.Dense(HIDDEN), layers.Dense(WIDTH)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], HIDDEN))

    def call(self, x, training=False):
        hidden = self.wide(x)
        if training:
            self.add_loss(ops.mean(ops.square(hidden)))
        return self.narrow(hidden)


def test_channels_of_which_a_loss_is_made_stay():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(Costly(name="costly")(inputs)))
    graph = morph.ChannelGraph.from_model(model)
    (wide,) = [group for group in graph.groups if group.name == "costly-wide"]
    assert not wide.prunable and "reduces over the channels" in wide.reason
    assert [group.name for group in graph.groups if group.prunable] == ["costly-narrow"]


@keras.saving.register_keras_serializable("test_experts")
class Unsteady(Costly):
    """Adds another loss whenever it is asked."""

    def build(self, shape):
        super().build(shape)
        self.asked = 0

    def call(self, x, training=False):
        hidden = self.wide(x)
        if training:
            self.asked += 1
            self.add_loss(self.asked * ops.mean(ops.square(hidden)))
        return self.narrow(hidden)


def test_a_layer_whose_losses_are_not_the_same_each_time_stays_closed():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(Unsteady(name="unsteady")(inputs)))
    graph = morph.ChannelGraph.from_model(model)
    assert any("'unsteady' stays closed" in note for note in graph.notes)
