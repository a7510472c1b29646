"""A model's graph is found once, and again when something that it depends on has changed."""

import gc
import weakref

import keras
import pytest
from keras import layers

import morph_core as morph
from morph_core.network import rules
from tests.core.networks import batch_for, mlp


def test_a_graph_is_found_once_whatever_the_model_is_used_for(tmp_path):
    model = mlp()
    graph = morph.ChannelGraph.from_model(model)
    model(batch_for(model))
    assert morph.ChannelGraph.from_model(model) is graph
    assert morph.StructureSearch(model, target=0.5).graph is graph
    assert morph.ChannelGraph.from_model(keras.models.clone_model(model)) is not graph


def changed_attribute(model, monkeypatch):
    model.get_layer("d1").activation = keras.activations.tanh


def changed_flag(model, monkeypatch):
    model.get_layer("d1").trainable = False


def changed_rule(model, monkeypatch):
    monkeypatch.setitem(rules.RULES, layers.Dense, rules.UNKNOWN)


def registered_rule(model, monkeypatch):
    monkeypatch.setitem(rules.RULES, type("Own", (layers.Layer,), {}), rules.UNKNOWN)


@pytest.mark.parametrize("change", [changed_attribute, changed_flag, changed_rule, registered_rule])
def test_what_a_graph_depends_on_makes_a_new_one(change, monkeypatch):
    model = mlp()
    graph = morph.ChannelGraph.from_model(model)
    change(model, monkeypatch)
    again = morph.ChannelGraph.from_model(model)
    assert again is not graph
    assert morph.ChannelGraph.from_model(model) is again


def test_a_layer_that_is_added_is_in_the_next_graph():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(3)])
    before = [group.size for group in morph.ChannelGraph.from_model(model).groups]
    model.add(layers.Dense(5))
    assert [group.size for group in morph.ChannelGraph.from_model(model).groups] == [*before, 5]


def test_a_model_is_saved_and_let_go_as_if_nothing_were_remembered(tmp_path):
    model = mlp()
    graph = morph.ChannelGraph.from_model(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert morph.ChannelGraph.from_model(loaded).fingerprint == graph.fingerprint
    gone = weakref.ref(graph)
    del model, graph
    keras.utils.clear_session()
    gc.collect()
    assert gone() is None
