"""A search reaches its target by itself, whatever it is asked; what cannot be is refused before any training."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.structure.budget import budget_of
from morph_core.structure.snap import check_feasible
from tests.core.networks import conv, mlp, network, random_structure, residual, two_moons

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def searched(model, epochs=6, optimizer="adam", callbacks=None, count=512, **goal):
    keras.utils.set_random_seed(0)
    search = morph.StructureSearch(model, **goal)
    search.compile(optimizer, LOSS, metrics=["accuracy"])
    x, y = two_moons(count, int(np.prod(model.input_shape[1:])))
    history = search.fit(
        x.reshape(-1, *model.input_shape[1:]), y, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks
    )
    return search, history


def share(structure, cost="flops"):
    return structure.costs[cost]["structure"] / structure.costs[cost]["seed"]


@functools.cache
def found(gate, cost, target):
    """The structure of one search; several tests look at it."""
    return searched(residual(12), epochs=3, cost=cost, target=target, gate=gate)[0].structure()


@pytest.mark.parametrize("gate", sorted(morph.GATES))
@pytest.mark.parametrize(("cost", "target"), [("flops", 0.3), ("params", 0.25)])
def test_the_target_is_reached_and_never_exceeded(gate, cost, target):
    structure = found(gate, cost, target)
    assert 0.93 * target < share(structure, cost) <= target
    assert structure.goal == {"cost": cost, "target": target}
    assert structure.settings["gate"] == gate


@pytest.mark.parametrize("gate", ["fisher", "group_lasso", "logistic_sigmoid"])
@pytest.mark.parametrize("target", [0.8, 0.2, 0.05])
def test_networks_without_batch_normalization_reach_their_target(target, gate):
    search, _ = searched(mlp((64, 64), inputs=8), target=target, gate=gate)
    assert 0.95 * target < share(search.structure()) <= target


def test_a_budget_is_an_absolute_number():
    model = mlp((64, 64), inputs=8)
    search, _ = searched(model, cost="params", budget=2000, gate="logistic_sigmoid", epochs=2)
    assert 1900 < search.structure().costs["params"]["structure"] <= 2000
    assert morph.rebuild(model, search.structure()).count_params() <= 2000


@pytest.mark.parametrize("gate", sorted(morph.GATES))
def test_several_targets_are_kept_at_once_and_logged_each(gate):
    targets = {"flops": 0.5, "params": 0.4}
    search, history = searched(residual(12), epochs=2, target=targets, gate=gate)
    structure = search.structure()
    shares = {cost: share(structure, cost) / target for cost, target in targets.items()}
    assert 0.95 < max(shares.values()) <= 1
    assert structure.goal == {"target": targets}
    binding = structure.settings["budget"]["binding"]
    assert structure.settings["budget"]["left"] == pytest.approx(1 - max(shares.values()))
    assert shares[binding] == max(shares.values())
    last = {name: values[-1] for name, values in history.history.items()}
    assert last["cost_flops"] == pytest.approx(share(structure, "flops"))
    assert last["cost_params"] == pytest.approx(share(structure, "params"))
    assert (last["cost"], last["target"]) == pytest.approx((share(structure, binding), targets[binding]))


@pytest.mark.parametrize("strength", [1e-9, 1e-3, 1e3])
def test_a_search_lands_from_any_starting_strength(strength):
    goal = {"target": 0.3, "strength": strength, "gate": "logistic_sigmoid"}
    search, _ = searched(mlp((64, 64), inputs=8), epochs=8, **goal)
    structure = search.structure()
    assert 0.97 * 0.3 < share(structure) <= 0.3
    assert structure.goal == {"cost": "flops", "target": 0.3}
    assert structure.settings["starting_strength"] == strength
    # Half way down nothing is left of where the price started.
    ratios = [row["cost"] / row["target"] for row in structure.trajectory]
    assert all(0.7 < ratio < 1.4 for ratio in ratios[len(ratios) // 2 :])


@pytest.mark.parametrize("gate", ["fisher", "logistic_sigmoid"])
def test_widths_are_multiples_within_the_target(gate):
    search, _ = searched(
        mlp((64, 48), inputs=8), epochs=2, target=0.5, gate=gate, multiple_of={"d1": 8, "d2": 16}, min_channels=20
    )
    structure = search.structure()
    assert structure.widths["d1"] in range(24, 65, 8)
    assert structure.widths["d2"] in (32, 48)
    assert share(structure) <= 0.5
    assert all(row["alive"] >= 24 + 32 for row in structure.trajectory if row["target"] == 0.5)
    assert structure.settings["min_channels"] == 20


@pytest.mark.parametrize("gate", sorted(morph.GATES))
@pytest.mark.parametrize(
    "goal",
    [{"target": 0.3}, {"target": {"flops": 0.5, "params": 0.3}}, {"target": 0.3, "multiple_of": 4}],
    ids=["one cost", "two costs", "multiples"],
)
def test_a_search_that_keeps_uniform_widths_chooses_the_channels_alone(gate, goal):
    inputs = keras.Input((6, 6, 3))
    x = inputs
    for width in (8, 16, 24):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(x)))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    search, _ = searched(model, epochs=2, count=256, gate=gate, min_channels="uniform", **goal)
    structure, uniform = search.structure(), morph.uniform(search.graph, **goal)
    assert structure.widths == uniform.widths
    assert structure.settings["min_channels"] == "uniform"
    assert morph.Structure.from_json(structure.to_json()) == structure
    # Which channels is for the search to say; that they are not the first ones each time shows that it did.
    alive = [group["alive"] for group in structure.groups.values()]
    assert any(kept != list(range(len(kept))) for kept in alive)


def test_uniform_floors_are_those_of_the_layers_that_a_search_decides_on():
    inputs = keras.Input((16,))
    hidden = layers.BatchNormalization()(layers.Dense(40, name="scaled")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(40, name="bare")(layers.ReLU()(hidden))))
    structure = searched(model, epochs=2, target=0.5, gate="gamma", min_channels="uniform")[0].structure()
    assert structure.widths["bare"] == 40  # it has no scale, and `gamma` leaves it as it is
    assert 0.47 < share(structure) <= 0.5


def test_uniform_floors_let_a_branch_go_whole():
    search, _ = searched(residual(12), epochs=2, target=0.4, min_channels="uniform")
    uniform = morph.uniform(search.graph, target=0.4)
    for name, group in search.structure().groups.items():
        assert group["width"] == 0 or group["width"] >= uniform.groups[name]["width"]


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"strength": 1e-3, "gate": "group_lasso"}, "a strength by itself has none. Give a target"),
        ({"target": 1e-6}, "with one channel a layer the network still costs .* Raise the budget"),
    ],
)
def test_uniform_floors_that_cannot_be_kept_are_refused(goal, said):
    with pytest.raises(morph.MorphError, match=rf"min_channels='uniform'.*{said}"):
        morph.StructureSearch(mlp((8, 8)), min_channels="uniform", **goal)
    with pytest.raises(morph.MorphError, match=r"min_channels is 'evenly'; expected .* or 'uniform'"):
        morph.StructureSearch(mlp((8, 8)), min_channels="evenly", target=0.5)


@pytest.mark.filterwarnings("ignore:All .* channels that the search decides on are closed")
def test_a_fixed_strength_keeps_floors_and_multiples_too():
    search, _ = searched(
        mlp((32,), inputs=8), cost="params", strength=0.1, gate="logistic_sigmoid", min_channels=9, multiple_of=4
    )
    assert search.structure().widths["d1"] in range(12, 33, 4)


@pytest.mark.filterwarnings("ignore:All .* channels that the search decides on are closed")
def test_a_fixed_strength_is_the_papers_and_more_of_it_shrinks_more():
    left = {}
    for strength in (0.0001, 0.1):
        search, _ = searched(mlp((32,), inputs=8), cost="params", strength=strength, gate="logistic_sigmoid")
        left[strength] = share(search.structure(), "params")
    assert left[0.1] < left[0.0001]


def test_group_lasso_charges_the_norms_of_the_kernels_that_make_a_channel():
    model = mlp((6,), inputs=4)
    search = morph.StructureSearch(model, cost="params", strength=0.01, gate="group_lasso")
    search.update(0.5)
    norms = np.linalg.norm(model.get_layer("d1").kernel.numpy(), axis=0).sum()
    marginal = 4 + 1 + 2  # its kernel and bias, its part of the head
    assert float(as_numpy(search.penalty())) == pytest.approx(0.01 * marginal * norms, rel=1e-4)


def test_fisher_watches_squared_gradients_and_leaves_the_loss_and_its_gate_alone():
    model = mlp((6,), inputs=4)
    search = morph.StructureSearch(model, cost="params", target=0.5, gate="fisher")
    search.compile(keras.optimizers.SGD(0.0), LOSS)
    x, y = two_moons(32, 4)
    search.fit(x, y, batch_size=32, epochs=1, verbose=0)
    hidden, kernel = as_numpy(model.get_layer("d1")(x)), as_numpy(model.get_layer("head").kernel)
    step, slopes = 1e-2, []
    for channel in range(6):
        pair = [float(LOSS(y, (hidden * (1 + sign * step * np.eye(6)[channel])) @ kernel)) for sign in (1, -1)]
        slopes.append((pair[0] - pair[1]) / (2 * step))
    means = search.optimizer.gate.means(search._gate.trainable[0])[:6]
    assert means == pytest.approx(0.02 * np.square(slopes), rel=0.05, abs=1e-9)
    assert float(search.penalty()) == 0.0


def test_the_penalty_of_a_fixed_strength_is_strength_times_marginal_cost_times_gate():
    model = network(conv(6, "b"))
    search = morph.StructureSearch(model, cost="params", strength=0.01, gate="gamma")
    search.update(0.5)
    gamma = np.abs(model.get_layer("b_bn").gamma.numpy()).sum()
    marginal = 9 * 12 + 4 + 5  # its kernel, its BatchNormalization, its part of the head
    assert float(as_numpy(search.penalty())) == pytest.approx(0.01 * marginal * gamma, rel=1e-5)


@pytest.mark.parametrize("gate", ["fisher", "logistic_sigmoid"])
def test_the_search_learns_to_keep_the_channels_that_matter(gate):
    """Two hidden layers of equal cost, of which one sees the data and the other only zeros."""
    inputs = keras.Input((8,))
    useful = layers.Dense(8, activation="relu", name="useful")(inputs)
    useless = layers.Dense(8, activation="relu", name="useless")(layers.Rescaling(0.0)(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Concatenate()([useful, useless])))
    search, _ = searched(model, epochs=20, optimizer=keras.optimizers.Adam(0.01), target=0.5, gate=gate)
    widths = search.structure().widths
    assert widths["useful"] > widths["useless"]


def test_logs_and_trajectory_tell_cost_target_and_channels():
    class Watch(keras.callbacks.Callback):
        seen: list[dict]

        def on_train_begin(self, logs=None):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(dict(logs or {}))

    watch = Watch()
    search, history = searched(residual(8), epochs=2, target=0.5, callbacks=[watch])
    assert all({"cost", "target", "alive"} <= set(row) for row in watch.seen)
    assert history.history["target"][-1] == pytest.approx(0.5)
    assert history.history["cost"][-1] <= 0.5
    trajectory = search.structure().trajectory
    assert [row["step"] for row in trajectory] == sorted(row["step"] for row in trajectory)
    assert trajectory[0]["target"] == 1.0
    assert trajectory[-1]["target"] == pytest.approx(0.5)


@pytest.mark.parametrize("gate", sorted(morph.GATES))
def test_the_cost_follows_the_schedule_all_along(gate):
    """Every backend's `fit` must see the prices and gates that are set between its steps, and show what it learned."""
    ratios = [row["cost"] / row["target"] for row in found(gate, "flops", 0.3).trajectory]
    assert all(0.7 < ratio < 1.35 for ratio in ratios)
    assert max(ratios[len(ratios) * 9 // 10 :]) <= 1


def test_the_masked_search_answers_as_the_rebuilt_network():
    model = residual(8)
    search, _ = searched(model, epochs=2, target=0.4)
    structure = search.structure()
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype("float32")
    student = morph.rebuild(model, structure, weights="inherit")
    expected = search.predict(x, verbose=0)
    assert np.abs(student.predict(x, verbose=0) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert morph.verify(model, structure, x) < 1e-5


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_any_optimizer_serves(optimizer):
    search, _ = searched(mlp((32,), inputs=8), epochs=2, optimizer=optimizer, target=0.5, gate="logistic_sigmoid")
    assert share(search.structure()) <= 0.5
    assert search.optimizer.learning_rate is search.optimizer.inner.learning_rate


def test_a_layer_without_normalization_stays_whole_under_gamma_and_is_named():
    model = network(lambda x: conv(8, "b")(x))
    search, _ = searched(model, epochs=1, target=0.9, gate="gamma")
    structure = search.structure()
    assert structure.widths["a"] == 12
    assert "'gamma' has nothing to learn" in structure.settings["frozen"]["a"]


def test_data_of_unknown_length_is_searched_too():
    keras.utils.set_random_seed(0)
    x, y = two_moons(256)

    def batches():
        for start in range(0, 256, 32):
            yield x[start : start + 32], y[start : start + 32]

    tf = pytest.importorskip("tensorflow", reason="the data is a tf.data.Dataset")
    data = tf.data.Dataset.from_generator(
        batches, output_signature=(tf.TensorSpec((None, 8)), tf.TensorSpec((None,), tf.int32))
    )
    search = morph.StructureSearch(mlp((32,), inputs=8), target=0.5, gate="logistic_sigmoid")
    search.compile("adam", LOSS)
    search.fit(data, epochs=6, verbose=0)
    assert 0.4 < share(search.structure()) <= 0.5


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({}, "Give a target .*received none of them"),
        ({"target": 0.5, "budget": 100.0}, "at most one of target .*received target=0.5 and budget=100.0"),
        ({"target": 0}, "target is 0; expected a positive number"),
        ({"target": -0.5}, "target is -0.5; expected a positive number"),
        ({"target": 1.5}, r"target is 1.5; expected a fraction of the seed's cost in \(0, 1\]"),
        ({"target": True}, "target is True"),
        ({"target": float("nan")}, "target is nan"),
        ({"target": "half"}, "target is 'half'"),
        ({"budget": 1e12}, "budget is 1e.12 .*but the seed costs only"),
        ({"target": 0.5, "cost": "joules"}, r"Unknown cost 'joules'. Expected one of .*'flops', 'params'"),
        (
            {"target": 0.5, "gate": "magic"},
            "Unknown gate 'magic'. Expected one of 'auto', 'fisher', 'gamma', '",
        ),
        ({"strength": 0.1, "gate": "fisher"}, "takes a target or a budget, no strength"),
        ({"target": 0.5, "gate": "gamma"}, "no group of model .* has one. Use gate='logistic_sigmoid'"),
        ({"target": 0.0001, "gate": "logistic_sigmoid"}, "No structure of model .*What weighs most .*at least 0.0"),
    ],
)
def test_mistakes_are_explained_before_any_training(goal, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.StructureSearch(mlp((32, 32), inputs=8), **goal)


def test_a_network_with_nothing_to_prune_is_refused():
    inputs = keras.Input((4,))
    with pytest.raises(morph.MorphError, match=r"No group of model .* can be pruned"):
        morph.StructureSearch(keras.Model(inputs, layers.Dense(3)(inputs)), target=0.5)


@pytest.mark.filterwarnings("ignore:The search diverged")
def test_a_search_that_diverges_says_so():
    with pytest.raises(morph.MorphError, match=r"diverged before step .*Lower the learning rate"):
        searched(residual(8), epochs=1, optimizer=keras.optimizers.SGD(1e30), target=0.5, gate="gamma")


def test_a_structure_before_any_training_is_refused():
    with pytest.raises(morph.MorphError, match="call fit first"):
        morph.StructureSearch(residual(), target=0.5).structure()


def test_the_smallest_structure_is_what_is_left_when_all_that_can_go_is_gone():
    graph = morph.ChannelGraph.from_model(residual(16, blocks=2))
    least = morph.describe(graph, {"stem": 1, "b1_in": 0, "b2_in": 0})
    smallest = graph.cost("flops", least)
    check_feasible(budget_of(graph, "flops", budget=smallest))
    with pytest.raises(morph.MorphError, match="No structure of model"):
        check_feasible(budget_of(graph, "flops", budget=np.nextafter(smallest, 0)))


def test_a_random_structure_is_not_what_a_search_finds():
    """The search's own structure loses less of the trained network's accuracy than a random one of equal shape."""
    model = mlp((64,), inputs=8)
    search, _ = searched(model, epochs=15, target=0.3, gate="logistic_sigmoid")
    best = search.structure()
    random = random_structure(search.graph, best.widths["d1"] / 64, seed=3)
    assert random.widths == best.widths
    x, y = two_moons(1024, seed=9)
    accuracy = {}
    for name, structure in (("found", best), ("random", random)):
        student = morph.rebuild(model, structure, weights="inherit")
        accuracy[name] = (student.predict(x, verbose=0).argmax(-1) == y).mean()
    assert accuracy["found"] > accuracy["random"]
