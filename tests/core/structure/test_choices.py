"""Floors and multiples: which widths a group may have, in channels of its layers."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.structure.choices import choices_of
from tests.core.networks import conv, mlp, network


def ladders(model, **arguments):
    """The widths that each group to prune may have."""
    graph = morph.ChannelGraph.from_model(model)
    choices = choices_of(graph, **arguments)
    return {
        group.name: ladder.tolist()
        for group, ladder in zip(graph.groups, choices.ladders, strict=True)
        if group.prunable
    }


def test_widths_are_multiples_from_the_floor_on_or_the_seeds_own():
    assert ladders(mlp((20, 7)), multiple_of=8, min_channels=1) == {"d1": [8, 16, 20], "d2": [7]}
    assert ladders(mlp((20, 7)), multiple_of=8, min_channels=9) == {"d1": [16, 20], "d2": [7]}
    assert ladders(mlp((4, 3)), min_channels=2) == {"d1": [2, 3, 4], "d2": [2, 3]}


def test_by_default_a_layer_keeps_a_sixteenth_and_at_least_one_channel():
    found = ladders(mlp((100, 12)))
    assert (found["d1"][0], found["d2"][0]) == (7, 1)


def test_floors_and_multiples_may_be_given_by_layer():
    found = ladders(mlp((20, 20)), multiple_of={"d1": 8}, min_channels={"d2": 18})
    assert found == {"d1": [8, 16, 20], "d2": [18, 19, 20]}


def test_tied_layers_have_one_width_and_the_strictest_of_their_numbers():
    def body(x):
        return layers.Add()([conv(12, "b")(x), x])

    assert ladders(network(body), multiple_of={"a": 4, "b": 6}, min_channels={"a": 2, "b": 3}) == {"a": [12]}
    assert ladders(network(body), multiple_of={"a": 2, "b": 4}, min_channels={"a": 2, "b": 3}) == {"a": [4, 8, 12]}


def test_a_channel_of_a_grouped_convolution_is_one_in_each_group():
    found = ladders(network(conv(24, "b", groups=4)), multiple_of=8, min_channels=9)
    assert found["b"] == [4, 6]  # 16 and 24 channels of the layer; one in each group is 4
    assert ladders(network(conv(24, "b", groups=3)), multiple_of=8, min_channels=1)["b"] == [8]


def test_heads_of_attention_count_with_the_features_that_they_have():
    inputs = keras.Input((4, 16))
    attended = layers.MultiHeadAttention(8, key_dim=4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(attended)))
    graph = morph.ChannelGraph.from_model(model)
    (heads,) = [index for index, group in enumerate(graph.groups) if group.size == 8]
    choices = choices_of(graph, multiple_of=8, min_channels=12)
    assert choices.ladders[heads].tolist() == [4, 6, 8]  # 16, 24 and 32 features


def test_rounding_up_stays_within_the_ladder():
    graph = morph.ChannelGraph.from_model(mlp((20, 7)))
    choices = choices_of(graph, multiple_of=8, min_channels=1)
    assert choices.at_least(np.array([1, 0, 2])).tolist() == [8, 0, 2]
    assert choices.at_least(np.array([17, 3, 2])).tolist() == [20, 7, 2]
    assert choices.wider(np.array([16, 7, 2]))[:2].tolist() == [24, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multiple_of": 0}, "multiple_of is 0; expected a whole number of channels, at least 1"),
        ({"multiple_of": True}, "multiple_of is True"),
        ({"multiple_of": 2.5}, "multiple_of is 2.5"),
        ({"min_channels": {"d1": "two"}}, r"min_channels\['d1'\] is 'two'"),
        (
            {"min_channels": {"d11": 2}},
            "min_channels names 'd11', which is no layer .*; did you mean 'd.'",
        ),
        ({"multiple_of": {"head": 8}}, "multiple_of names 'head', .* its channels stay as they are: it is an output"),
        ({"multiple_of": {"nothing_like": 8}}, r"no layer of model .* print\(graph\) lists"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        ladders(mlp(), **arguments)
