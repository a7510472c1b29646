"""Which channels are tied to which."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from morph_core import ChannelGraph
from tests.core.networks import conv, known_network, mlp, network, residual, sizes


def graph_of(body, **options) -> ChannelGraph:
    return ChannelGraph.from_model(network(body, **options))


def test_a_chain_has_one_group_a_layer():
    assert sizes(ChannelGraph.from_model(mlp((6, 7, 8)))) == {"d1": 6, "d2": 7, "d3": 8}


def test_add_couples_both_inputs():
    #  a --+-- b --+
    #      |       Add -- head
    #      +-------+
    graph = graph_of(lambda x: layers.Add()([x, conv(12, "b")(x)]))
    assert sizes(graph) == {"a": 12}
    (group,) = [group for group in graph.groups if group.prunable]
    assert group.producers == ("a", "b")
    assert group.consumers == ("b", "head")


def test_residual_blocks_share_the_stream():
    assert sizes(ChannelGraph.from_model(residual(16, blocks=2))) == {"stem": 16, "b1_in": 16, "b2_in": 16}


def test_concatenate_keeps_its_parts_apart():
    #  a -- b --+
    #  |        Concatenate -- head
    #  +-- c ---+
    graph = graph_of(lambda x: layers.Concatenate()([conv(4, "b")(x), conv(6, "c")(x)]))
    assert sizes(graph) == {"a": 12, "b": 4, "c": 6}


def test_concatenate_then_add_couples_each_part_with_its_place():
    #  a -- b(4) --+
    #  |           Concatenate --+
    #  +--- c(8) --+             Add -- head
    #  +--- d(12) ---------------+
    def body(x):
        joined = layers.Concatenate()([conv(4, "b")(x), conv(8, "c")(x)])
        return layers.Add()([joined, conv(12, "d")(x)])

    assert sizes(graph_of(body)) == {"a": 12, "b": 4, "c": 8}


def test_concatenate_of_a_tensor_with_itself_counts_it_twice():
    graph = graph_of(lambda x: layers.Concatenate()([x, x]))
    assert sizes(graph) == {"a": 12}
    assert graph.cost("params") == 3 * 3 * 3 * 12 + 12 + 24 * 5 + 5


def test_depthwise_follows_its_input():
    graph = graph_of(lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep")(x))
    assert sizes(graph) == {"a": 12}


def test_squeeze_and_excite_couples_the_gate_with_what_it_scales():
    #  a --+--------------------------------- Multiply -- head
    #      +-- pool -- squeeze -- excite ---------+
    def body(x):
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(3, 1, activation="relu", name="squeeze")(y)
        return layers.Multiply()([x, layers.Conv2D(12, 1, activation="sigmoid", name="excite")(y)])

    graph = graph_of(body)
    assert sizes(graph) == {"a": 12, "squeeze": 3}


def test_one_channel_spread_over_many_is_kept():
    graph = graph_of(lambda x: layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid", name="where")(x)]))
    assert sizes(graph) == {"a": 12}
    (group,) = [group for group in graph.groups if group.name == "where"]
    assert "spreads it over all channels" in group.reason


def test_flatten_gives_every_position_its_channel():
    graph = graph_of(lambda x: layers.Dense(7, name="wide")(layers.Flatten()(x)))
    assert sizes(graph) == {"a": 12, "wide": 7}
    assert graph.cost("params") == 3 * 3 * 3 * 12 + 12 + (8 * 8 * 12 + 1) * 7 + (7 + 1) * 5


def test_grouped_convolution_loses_equally_in_each_group():
    graph = graph_of(lambda x: layers.Conv2D(8, 3, groups=4, name="grouped")(x))
    assert sizes(graph) == {"a": 3, "grouped": 2}


def test_a_layer_called_twice_has_one_set_of_channels():
    def body(x):
        shared = layers.Conv2D(12, 3, padding="same", name="shared")
        return shared(layers.ReLU()(shared(x)))

    graph = graph_of(body)
    assert sizes(graph) == {"a": 12}
    assert graph.cost("params") == (9 * 3 + 1) * 12 + (9 * 12 + 1) * 12 + 13 * 5


def test_model_inputs_and_outputs_stay():
    graph = ChannelGraph.from_model(mlp((6,), inputs=4, outputs=3))
    (head,) = [group for group in graph.groups if not group.prunable]
    assert (head.name, head.size, head.reason) == ("head", 3, "it is an output of the model")


def test_an_addition_to_the_models_input_freezes_what_is_added():
    inputs = keras.Input((8, 8, 3))
    y = layers.Add()([inputs, layers.Conv2D(3, 3, padding="same", name="a")(inputs)])
    graph = ChannelGraph.from_model(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(y))))
    assert sizes(graph) == {}
    assert "joins it with channels that stay" in str(graph)


def test_softmax_inside_the_network_freezes_what_it_compares():
    graph = graph_of(lambda x: layers.Dense(6, activation="softmax", name="attention")(x))
    assert sizes(graph) == {"a": 12}
    assert "'attention' (Dense) has an activation that compares channels" in str(graph)


def test_an_activation_that_is_a_layer_stays_the_same_network_once_it_has_run():
    inputs = keras.Input((8, 8, 3))
    y = layers.Conv2D(6, 3, activation=layers.PReLU(), name="a")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(y)))
    before = ChannelGraph.from_model(model)
    model.predict(np.zeros((1, 8, 8, 3)), verbose=0)
    after = ChannelGraph.from_model(model)
    assert before.fingerprint == after.fingerprint
    assert "activation (PReLU)" in str(after) and "a layer of its own" in str(after)


class Differences(layers.Layer):
    def call(self, inputs):
        return inputs - keras.ops.max(inputs, axis=-1, keepdims=True)


class Projection(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 12))

    def call(self, inputs):
        return inputs @ self.kernel


def test_a_layer_without_a_rule_that_reads_only_the_models_input_is_named():
    inputs = keras.Input((8, 8, 3))
    graph = ChannelGraph.from_model(keras.Model(inputs, conv(4, "c")(Projection(name="own")(inputs))))
    assert sizes(graph) == {}
    assert "layer 'own' (Projection) has no rule" in str(graph) and "register_rule" in str(graph)


def test_a_layer_that_mixes_and_has_no_rule_is_kept_whole_and_named():
    graph = graph_of(lambda x: Differences(name="contrast")(x))
    assert sizes(graph) == {}
    assert "'contrast' (Differences) has no rule, and it mixes channels; add a row with" in str(graph)


class Standardized(layers.Conv2D):
    """A subclass may do anything in `call`, so the parent's rule must not speak for it."""


def test_a_subclass_of_a_known_layer_does_not_inherit_its_rule():
    graph = graph_of(lambda x: Standardized(6, 3, name="own")(x))
    assert sizes(graph) == {}
    assert "'own' (Standardized)" in str(graph)


def test_channels_first_networks_have_the_same_groups():
    image = keras.Input((3, 8, 8))
    x = layers.Conv2D(12, 3, padding="same", data_format="channels_first", name="a")(image)
    y = layers.BatchNormalization(axis=1)(
        layers.Conv2D(12, 3, padding="same", data_format="channels_first", name="b")(x)
    )
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(layers.Add()([x, y]))
    graph = ChannelGraph.from_model(keras.Model(image, layers.Dense(5, name="head")(x)))
    assert sizes(graph) == {"a": 12}


# Counted by hand from the papers' block structure: one group for each inner convolution, one for each residual stream.
@pytest.mark.parametrize(
    ("name", "groups"), [("ResNet50", 37), ("MobileNetV2", 25), ("DenseNet121", 120), ("VGG16", 15), ("MobileNet", 14)]
)
def test_groups_of_known_networks(name, groups):
    model = known_network(name, input_shape=(64, 64, 3))
    graph = ChannelGraph.from_model(model)
    assert len(sizes(graph)) == groups
    assert len(graph.groups) == groups + 1  # the classifier's own


def test_fingerprints_agree_between_builds_and_differ_between_networks():
    assert ChannelGraph.from_model(residual()).fingerprint == ChannelGraph.from_model(residual()).fingerprint
    others = [residual(blocks=3), residual(width=8), mlp()]
    prints = {ChannelGraph.from_model(model).fingerprint for model in [residual(), *others]}
    assert len(prints) == 4


def test_fingerprints_agree_between_processes():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from networks import residual; "
        "from morph_core import ChannelGraph; print(ChannelGraph.from_model(residual()).fingerprint)"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1])]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == ChannelGraph.from_model(residual()).fingerprint


def test_printing_names_groups_readers_and_reasons():
    text = str(ChannelGraph.from_model(residual(16, blocks=1)))
    assert "2 groups can be pruned (32 channels), 1 stay fixed" in text
    assert "stem: 16 channels, made by stem, b1_out, read by b1_in, head" in text
    assert "head: 10 channels, fixed: it is an output of the model" in text


def test_units_number_every_channel_of_every_group_once():
    graph = ChannelGraph.from_model(residual())
    for index, group in enumerate(graph.groups):
        places = graph.position_of[graph.group_of == index]
        assert np.array_equal(np.sort(places), np.arange(group.size))
