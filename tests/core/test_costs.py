"""What networks cost, against closed forms and against counts made by others."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.costs import cost_of, marginal_costs, total_cost
from tests.core.networks import conv, mlp, network, random_structure, residual

# Multiply-adds of convolutions and dense layers in millions, at the default input: counted by hooks on each layer's
# kernel and output in an independent script.
MILLION_MULTIPLY_ADDS = {
    "ResNet50": 3858,
    "ResNet50V2": 3482,
    "MobileNet": 568.7,
    "MobileNetV2": 300.8,
    "VGG16": 15470,
    "DenseNet121": 2834.2,
    "Xception": 8357,
    "NASNetMobile": 563.6,
}


@pytest.mark.parametrize("name", MILLION_MULTIPLY_ADDS)
def test_known_networks_cost_what_others_counted(name):
    model = getattr(keras.applications, name)(weights=None)
    graph = morph.ChannelGraph.from_model(model)
    assert graph.cost("flops") == pytest.approx(2e6 * MILLION_MULTIPLY_ADDS[name], rel=1e-3)
    assert graph.cost("params") == model.count_params()


def test_dense_layers_in_closed_form():
    graph = morph.ChannelGraph.from_model(mlp((100, 50), inputs=32, outputs=2))
    assert graph.cost("flops") == 2 * (32 * 100 + 100 * 50 + 50 * 2)
    assert graph.cost("params") == 33 * 100 + 101 * 50 + 51 * 2


@pytest.mark.parametrize(
    ("layer", "multiply_adds"),
    [
        (layers.Conv2D(6, 3, padding="same", name="b"), 64 * 9 * 12 * 6),
        (layers.Conv2D(6, 3, strides=2, padding="same", name="b"), 16 * 9 * 12 * 6),
        (layers.Conv2D(6, 3, padding="valid", name="b"), 36 * 9 * 12 * 6),
        (layers.Conv2D(6, 3, padding="same", groups=3, name="b"), 64 * 9 * 4 * 6),
        (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="b"), 64 * 9 * 24),
        (layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2, name="b"), 64 * (9 * 24 + 24 * 6)),
        (layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="b"), 64 * 9 * 12 * 6),
        (layers.Dense(6, name="b"), 64 * 12 * 6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_layers_in_closed_form(layer, multiply_adds):
    model = network(layer)
    stem, head = 64 * 27 * 12, model.get_layer("head").input.shape[-1] * 5
    assert morph.ChannelGraph.from_model(model).cost("flops") == 2 * (stem + multiply_adds + head)
    assert morph.ChannelGraph.from_model(model).cost("params") == model.count_params()


def test_three_dimensional_and_one_dimensional_convolutions():
    for kind, rank in ((layers.Conv1D, 1), (layers.Conv3D, 3)):
        inputs = keras.Input((*[6] * rank, 2))
        model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(kind(4, 3, padding="same")(inputs))))
        graph = morph.ChannelGraph.from_model(model)
        positions = 6**rank
        assert graph.cost("flops") == 2 * (positions * 3**rank * 2 * 4 + positions * 4 * 3)
        assert graph.cost("params") == model.count_params()


def test_the_cost_of_a_structure_is_that_of_the_rebuilt_network():
    model = network(lambda x: layers.Add()([x, conv(12, "b")(conv(9, "c")(x))]))
    graph = morph.ChannelGraph.from_model(model)
    structure = random_structure(graph, 0.4)
    student = morph.rebuild(model, structure)
    assert graph.cost("params", structure) == student.count_params()
    assert graph.cost("flops", structure) == morph.ChannelGraph.from_model(student).cost("flops")
    assert structure.costs["params"] == {"seed": model.count_params(), "structure": student.count_params()}


@pytest.mark.parametrize("name", ["flops", "params"])
def test_the_penalty_equals_the_papers_bilinear_regularizer(name):
    """Gordon et al., equation 6: sum over layers of C (alive_in x sum |gamma_out| + alive_out x sum |gamma_in|).

    Checked on a chain of dense layers without bias, where C is 2 for FLOPs and 1 for parameters.
    """
    inputs = keras.Input((5,))
    hidden = layers.Dense(7, use_bias=False, name="a")(inputs)
    hidden = layers.Dense(11, use_bias=False, name="b")(hidden)
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(3, use_bias=False)(hidden)))
    rng = np.random.default_rng(0)
    gamma = {"a": rng.random(7), "b": rng.random(11)}
    alive = {"a": 4, "b": 6}
    scale = 2 if name == "flops" else 1
    paper = scale * (
        5 * gamma["a"].sum() + (alive["a"] * gamma["b"].sum() + alive["b"] * gamma["a"].sum()) + 3 * gamma["b"].sum()
    )
    widths = np.array([alive.get(group.name, group.size) for group in graph.groups])
    marginal = marginal_costs(graph, cost_of(name), widths)
    ours = sum(marginal[index] * gamma[group.name].sum() for index, group in enumerate(graph.groups) if group.prunable)
    assert ours == pytest.approx(paper, rel=1e-12)


def test_marginal_costs_of_a_users_cost_are_taken_one_by_one():
    graph = morph.ChannelGraph.from_model(mlp((10, 20)))

    def outputs(calls):
        return float(sum(call.axes["out"] ** 2 for call in calls))

    widths = graph.seed_widths.astype(float)
    assert marginal_costs(graph, cost_of(outputs), widths) == pytest.approx(2 * widths)


def test_a_removed_branch_costs_nothing():
    model = residual(8, blocks=2)
    graph = morph.ChannelGraph.from_model(model)
    structure = morph.describe(graph, {"b1_in": 0})
    spent = {layer["name"]: layer["costs"]["params"][1] for layer in structure.layers}
    assert spent["b1_in"] == spent["b1_out"] == 0
    assert graph.cost("params", structure) == morph.rebuild(model, structure).count_params()


def test_an_unknown_cost_is_refused_with_the_known_ones():
    with pytest.raises(morph.MorphError, match=r"Unknown cost 'flop'. Expected one of 'flops', 'params'"):
        morph.ChannelGraph.from_model(mlp()).cost("flop")


def test_flops_of_an_unknown_image_size_are_refused_but_params_are_known():
    model = network(lambda x: x, shape=(None, None, 3))
    graph = morph.ChannelGraph.from_model(model)
    assert graph.cost("params") == model.count_params()
    with pytest.raises(morph.MorphError, match=r"'a' .* unknown size .*cost='params'"):
        graph.cost("flops")
    assert set(random_structure(graph, 0.5).costs) == {"params"}


def test_total_cost_of_half_channels_lies_between():
    graph = morph.ChannelGraph.from_model(mlp((10, 20)))
    low, high = (total_cost(graph, cost_of("flops"), graph.seed_widths + step) for step in (0, 1))
    assert low < total_cost(graph, cost_of("flops"), graph.seed_widths + 0.5) < high
