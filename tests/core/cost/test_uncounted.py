"""Layers whose work cannot be told: named everywhere, and refused where they weigh."""

import keras
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.structure.describe import describe


class TwoFactors(layers.Layer):
    """Its matrix is a product of two weights, which leaves no record."""

    def build(self, shape):
        self.left = self.add_weight(shape=(shape[-1], 4), name="left")
        self.right = self.add_weight(shape=(4, 6), name="right")

    def call(self, x):
        return ops.matmul(x, ops.matmul(self.left, self.right))


def network(width=12):
    x = keras.Input((8,))
    # A layer that adds a loss of its output is not opened.
    factors = TwoFactors(name="factors", activity_regularizer="l2")
    made = factors(layers.Dense(width, activation="relu", name="dense")(x))
    return keras.Model(x, layers.Dense(3, name="head")(layers.Dense(8, name="hidden")(made)))


def test_a_layer_whose_work_cannot_be_seen_is_named_with_its_share_of_the_parameters():
    model = network()
    graph = morph.ChannelGraph.from_model(model)
    assert list(graph.uncounted) == ["factors"]
    assert graph.uncounted["factors"].share == (12 * 4 + 4 * 6) / model.count_params()
    assert "uses weight 'left' in a way that cannot be seen" in graph.uncounted["factors"].reason
    assert "factors (TwoFactors): not in FLOPs and latency, with 27.4% of the parameters" in str(graph)


def test_counting_leaves_the_model_as_it_was():
    model = network()
    layer = model.get_layer("factors")
    before = len(layer._inbound_nodes), len(model.weights)
    assert morph.ChannelGraph.from_model(model).uncounted
    assert (len(layer._inbound_nodes), len(model.weights)) == before


def test_a_structure_carries_what_was_not_counted_through_its_file():
    graph = morph.ChannelGraph.from_model(network())
    structure = morph.Structure.from_json(describe(graph, {}).to_json())
    assert structure.settings["uncounted"]["factors"]["kind"] == "TwoFactors"
    complete = morph.ChannelGraph.from_model(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    assert "uncounted" not in describe(complete, {}).settings


@pytest.mark.parametrize("cost", ["flops", "latency:v100"])
def test_a_search_that_leaves_out_much_work_is_refused_unless_allowed(cost):
    arguments = {"cost": cost, "strength": 1e-6, "gate": "logistic_sigmoid"}
    with pytest.raises(morph.MorphError, match=r"leaves out layers with 27.4% of the parameters.*'factors' \(27.4%\)"):
        morph.StructureSearch(network(), **arguments)
    assert morph.StructureSearch(network(), **arguments, allow_uncounted=True).graph.uncounted


def test_parameters_are_complete_whatever_is_not_counted():
    assert morph.StructureSearch(network(), cost="params", target=0.9).graph.uncounted
