"""What each gate charges and ranks by, that tied channels share one, and which one "auto" means."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from tests.core.networks import batch_for, conv, mlp, network, randomize, residual, two_moons

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("goal", [{"target": 0.5}, {"budget": 4e3}])
@pytest.mark.parametrize("model", [residual(8), mlp((32, 32))], ids=["with scales", "without"])
def test_auto_is_fisher_where_a_budget_steers(model, goal):
    settings = morph.StructureSearch(model, **goal)._plan.settings
    assert settings["gate"] == "fisher"
    assert "steers by a budget" in settings["gate_reason"]


@pytest.mark.parametrize(
    ("model", "gate", "reason"),
    [
        (residual(8), "gamma", "BatchNormalization scales the channels of every group"),
        (mlp((32, 32)), "logistic_sigmoid", "group 'd1' and of 1 more have no scale"),
        (network(conv(8, "b")), "logistic_sigmoid", "group 'a' have no scale"),
    ],
    ids=["all have a scale", "none has", "one has none"],
)
def test_auto_with_a_fixed_strength_is_the_papers_where_every_group_has_a_scale(model, gate, reason):
    settings = morph.StructureSearch(model, strength=1e-6)._plan.settings
    assert settings["gate"] == gate
    assert reason in settings["gate_reason"]


def test_the_choice_is_printed_and_stands_in_the_structure_and_the_report(capsys):
    search = morph.StructureSearch(mlp((16,), inputs=8), target=0.5)
    search.compile("sgd", LOSS)
    search.fit(*two_moons(64), epochs=1, verbose=2)
    assert "gate: fisher (the search steers by a budget" in capsys.readouterr().out
    structure = search.structure()
    assert structure.settings["gate"] == "fisher"
    assert morph.Structure.from_json(structure.to_json()).settings["gate_reason"] == structure.settings["gate_reason"]
    assert structure.settings["gate_reason"] in morph.report.html(structure)


def test_a_gate_that_was_asked_for_needs_no_reason():
    assert "gate_reason" not in morph.StructureSearch(residual(8), target=0.5, gate="gamma")._plan.settings


def test_an_unknown_gate_is_told_its_likely_name():
    with pytest.raises(morph.MorphError, match=r"Unknown gate 'gama'. Did you mean 'gamma'\? Expected one of 'auto', "):
        morph.StructureSearch(residual(8), target=0.5, gate="gama")


@pytest.mark.parametrize("gate", sorted(morph.GATES))
def test_tied_channels_share_one_gate(gate):
    #  stem --+-- b1_in -- b1_out --+
    #         |                     Add ---> head       stem and b1_out are tied: 6 channels, 6 gates
    #         +---------------------+
    model = residual(6, blocks=1)
    search = morph.StructureSearch(model, cost="params", target=0.6, gate=gate)
    names = [group.name for group in search.graph.groups]
    charged = as_numpy(search._gate.charged())
    assert charged.shape == (len(search.graph.group_of),)
    assert (np.bincount(search.graph.group_of)[[names.index("stem"), names.index("b1_in")]] == 6).all()
    search.compile("sgd", LOSS)
    images, labels = np.random.default_rng(0).normal(size=(64, 8, 8, 1)), np.arange(64) % 10
    search.fit(images, labels, batch_size=16, verbose=0)
    layers_left = search.structure().layers
    width = {layer["name"]: layer["width"] for layer in layers_left}
    assert width["stem"] == width["b1_out"] or width["b1_out"] == 0
    student = morph.rebuild(model, search.structure(), weights="inherit")
    assert student.get_layer("head").input.shape[-1] == width["stem"]


def test_gamma_takes_the_largest_scale_of_tied_channels():
    model = residual(4, blocks=1)
    search = morph.StructureSearch(model, target=0.5, gate="gamma")
    model.get_layer("stem_bn").gamma.assign([0.1, -0.7, 0.0, 0.3])
    model.get_layer("b1_out_bn").gamma.assign([-0.5, 0.2, 0.0, 0.4])
    stem = [group.name for group in search.graph.groups].index("stem")
    charged = as_numpy(search._gate.charged())[search.graph.group_of == stem]
    assert charged == pytest.approx([0.5, 0.7, 0.0, 0.4])


def test_group_lasso_takes_one_norm_over_the_kernels_of_tied_channels():
    model = residual(4, blocks=1)
    search = morph.StructureSearch(model, target=0.5, gate="group_lasso")
    kernels = [as_numpy(model.get_layer(name).kernel).reshape(-1, 4) for name in ("stem", "b1_out")]
    stem = [group.name for group in search.graph.groups].index("stem")
    charged = as_numpy(search._gate.charged())[search.graph.group_of == stem]
    assert charged == pytest.approx(np.linalg.norm(np.concatenate(kernels), axis=0), rel=1e-5)


def test_fisher_sees_one_gradient_through_all_readers_of_a_channel():
    """Two readers of one layer: the gradient at the gate is the sum of theirs, here from the chain rule by hand."""
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, use_bias=False, name="hidden")(inputs)
    outputs = layers.Add()([layers.Dense(1, use_bias=False, name=name)(hidden) for name in ("left", "right")])
    model = keras.Model(inputs, outputs)
    search = morph.StructureSearch(model, cost="params", target=0.5, gate="fisher")
    search.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.ones((8, 1))
    search.fit(x, y, batch_size=8, verbose=0)
    made = x @ as_numpy(model.get_layer("hidden").kernel)
    read = as_numpy(model.get_layer("left").kernel + model.get_layer("right").kernel)
    slope = (2 * (made @ read - y) * made * read.T).mean(0)
    hidden_group = [group.name for group in search.graph.groups].index("hidden")
    means = search.optimizer.gate.means(search._gate.trainable[0])[search.graph.group_of == hidden_group]
    assert means == pytest.approx(0.02 * np.square(slope), rel=1e-3)


@pytest.mark.parametrize("cost", ["flops", "params"])
def test_fisher_divides_by_the_cost_and_by_the_channels_that_are_left(monkeypatch, cost):
    """With equal gradients everywhere, what a channel scores is told by its marginal cost and its group's width."""
    tokens = keras.Input((6, 16))
    attended = layers.MultiHeadAttention(4, 8, name="attend")(tokens, tokens)
    hidden = layers.Dense(24, activation="relu", name="hidden")(attended)
    model = keras.Model(tokens, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(hidden)))
    search = morph.StructureSearch(model, cost=cost, target=0.9, gate="fisher")
    graph, gate = search.graph, search._gate
    monkeypatch.setattr(gate.optimizer, "means", lambda variable: np.ones(len(graph.group_of)))
    of = {group.name: graph.group_of == index for index, group in enumerate(graph.groups)}
    search.update(0.0)
    heads = next(name for name in of if "attend" in name and graph.prunable[list(of).index(name)])
    scores = gate.scores()
    per_cost = gate.marginal
    assert scores[of["hidden"]] * per_cost[of["hidden"]] == pytest.approx(1 / 24)
    assert scores[of[heads]] * per_cost[of[heads]] == pytest.approx(1 / (4 * 8))
    kept = of["hidden"].copy()
    kept[np.flatnonzero(of["hidden"])[6:]] = False
    gate.open = np.where(of["hidden"], kept, True)
    assert gate.scores()[of["hidden"]] == pytest.approx(4 * scores[of["hidden"]])
    assert gate.scores()[of[heads]] == pytest.approx(scores[of[heads]])


def excited():
    """A residual block, and a branch that scales the channels by numbers of their own (squeeze and excite)."""
    image = keras.Input((8, 8, 3))
    x = conv(6, "stem")(image)
    y = layers.Dense(3, activation="relu", name="squeeze")(layers.GlobalAveragePooling2D()(x))
    y = layers.Dense(6, activation="sigmoid", name="excite")(y)
    x = layers.Multiply(name="scale")([x, layers.Reshape((1, 1, 6))(y)])
    x = layers.Add(name="add")([x, layers.BatchNormalization()(layers.Conv2D(6, 1, name="out")(conv(5, "in")(x)))])
    return randomize(keras.Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))))


def towers():
    """Two towers side by side, of two layers each."""
    image = keras.Input((8, 8, 3))
    x = conv(5, "stem")(image)
    x = layers.Concatenate()([conv(4, f"{name}2")(conv(4, f"{name}1")(x)) for name in ("left", "right")])
    return randomize(keras.Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))))


@pytest.mark.parametrize(
    ("build", "dead"),
    [
        (lambda: randomize(residual(6, blocks=2)), ["b1_in"]),
        (lambda: randomize(residual(6, blocks=2)), ["b1_in", "b2_in"]),
        (excited, ["squeeze"]),
        (excited, ["in", "squeeze"]),
        (towers, ["left1"]),
    ],
    ids=["one block", "both blocks", "excitation", "excitation and block", "tower"],
)
@pytest.mark.parametrize("gate", ["fisher", "logistic_sigmoid"])
def test_a_search_whose_branches_died_answers_as_the_rebuilt_network(build, dead, gate):
    """A dead branch's offsets are constants that the rebuilt network does not have: the search must not see them."""
    model = build()
    search = morph.StructureSearch(model, cost="params", target=0.9, gate=gate)
    names = [group.name for group in search.graph.groups]
    kept = ~np.isin(search.graph.group_of, [names.index(name) for name in dead])
    search._steering.keep(kept)
    structure = morph.describe(search.graph, dict.fromkeys(dead, 0))
    assert structure.removed["layers"]
    x = batch_for(model)
    expected = as_numpy(morph.masked(model, structure, x))
    assert np.abs(as_numpy(search(x, training=False)) - expected).max() <= 1e-5 * np.abs(expected).max()
    search._steering.keep(np.ones_like(kept))
    assert np.abs(as_numpy(search(x, training=False)) - as_numpy(model(x, training=False))).max() < 1e-5
