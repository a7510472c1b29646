"""Networks as data."""

import keras
import pytest
from keras import layers

from morph_core import ChannelGraph, MorphError
from morph_core.network.trace import trace
from tests.core.networks import mlp, residual


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_tracing_leaves_the_model_untouched():
    model = residual()
    layer = model.get_layer("b1_in")
    nodes = len(layer._inbound_nodes)
    trace(model)
    assert len(layer._inbound_nodes) == nodes
    assert layer.output.shape == (None, 8, 8, 16)


def test_unnamed_layers_get_the_same_names_in_every_build():
    def build():
        inputs = keras.Input((4,))
        return keras.Model(inputs, layers.Dense(2)(layers.ReLU()(layers.Dense(8)(inputs))))

    first, second = trace(build()), trace(build())
    assert [call.name for call in first.calls] == ["dense-1", "re_lu-1", "dense-2"]
    assert [call.name for call in first.calls] == [call.name for call in second.calls]


def test_names_people_chose_stay():
    assert [call.name for call in trace(mlp((4,))).calls] == ["d1", "head"]


def test_calls_come_before_their_readers():
    traced = trace(residual(blocks=3))
    seen = set(traced.inputs)
    for call in traced.calls:
        assert set(call.inputs) <= seen
        seen.update(call.outputs)
    assert set(traced.outputs) <= seen


def test_nested_models_are_unrolled():
    inner_input = keras.Input((8,))
    inner = keras.Model(inner_input, layers.Dense(6, name="wide")(inner_input), name="inner")
    outer_input = keras.Input((8,))
    tail = keras.Sequential([layers.Dense(4, name="narrow"), layers.ReLU()], name="tail")
    model = keras.Model(outer_input, layers.Dense(2, name="head")(tail(inner(outer_input))))
    assert [call.name for call in trace(model).calls] == ["inner-wide", "tail-narrow", "re_lu-1", "head"]


def test_an_inner_models_training_argument_reaches_its_layers():
    inner_input = keras.Input((8,))
    inner = keras.Model(inner_input, layers.BatchNormalization()(layers.Dense(6)(inner_input)))
    outer_input = keras.Input((8,))
    model = keras.Model(outer_input, layers.Dense(2)(inner(outer_input, training=False)))
    arguments = {call.kind: call.kwargs for call in trace(model).calls}
    assert arguments["BatchNormalization"]["training"] is False
    assert "training" not in arguments["Dense"]


def test_a_subclassed_model_is_refused_with_advice():
    with pytest.raises(
        MorphError, match=r"'subclassed.*' \(Subclassed\) is not a functional Keras model.*Call it on symbolic inputs"
    ):
        ChannelGraph.from_model(Subclassed())


def test_an_unbuilt_sequential_is_refused_with_advice():
    with pytest.raises(MorphError, match=r"not built.*keras\.Input\(shape\)"):
        ChannelGraph.from_model(keras.Sequential([layers.Dense(3)], name="later"))


def test_something_else_than_a_model_is_refused():
    with pytest.raises(MorphError, match="'str' is not a functional Keras model"):
        ChannelGraph.from_model("model.keras")  # pyright: ignore[reportArgumentType]
