"""While channels close, a search goes on with a network without them: cheaper steps, and otherwise the same search."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.search import narrowing
from morph_core.structure.budget import budget_of
from morph_core.structure.choices import choices_of
from morph_core.structure.snap import room
from tests.core.networks import thorough_but
from tests.core.search.test_checkpoint import Died, DieIn
from tests.core.search.test_finish import (
    BACKEND,
    LOSS,
    SLOTTED,
    StopAfter,
    X,
    Y,
    compiled,
    small,
    trained,
    within_budget,
)

callbacks = keras.callbacks
EARLY = sorted(set(morph.GATES) - {"logistic_sigmoid"})


@pytest.fixture(autouse=True)
def worth_it(monkeypatch):
    """Narrowing saves less than it costs in networks of this size."""
    monkeypatch.setattr(narrowing, "_STEPS_SAVED", 0.0)


class Watch(callbacks.Callback):
    """Keeps the networks of the search as they come, and runs something at the end of an epoch."""

    def __init__(self, at_end=lambda model, epoch: None):
        super().__init__()
        self.models: list[Any] = []
        self.at_end = at_end

    def on_epoch_begin(self, epoch, logs=None):
        if not any(self.model is model for model in self.models):
            self.models.append(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.at_end(self.model, epoch)


def units(model):
    """Widths of the two hidden layers."""
    network = model.seed if isinstance(model, morph.StructureSearch) else model
    return [layer.units for layer in network.layers if hasattr(layer, "units")][:-1]


def searched_for_a_while(optimizer="adam", **options):
    """A search in the middle of its schedule, and the one that goes on for it."""
    search = compiled(optimizer, search_fraction=1.0, graph=BACKEND != "tensorflow", **options)

    class HalfWay(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 4:
                self.model.stop_training = True

    trained(search, epochs=10, callbacks=[HalfWay()])
    found = narrowing.narrower(search, 5)
    assert isinstance(found, narrowing.Narrower)
    return search, found.search, found.units


# --- the law ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", EARLY)
def test_a_step_of_the_narrower_search_is_the_step_that_the_wider_one_would_have_taken(gate):
    search, heir, places = searched_for_a_while(SLOTTED["AdamW"](), gate=gate)
    assert sum(units(heir)) < sum(units(search))
    assert heir.predict(X, verbose=0) == pytest.approx(search.predict(X, verbose=0), abs=1e-5)
    for each in (search, heir):
        each.reset_metrics()
    for batch in range(2):
        rows = slice(32 * batch, 32 * batch + 32)
        losses = [each.train_on_batch(X[rows], Y[rows]) for each in (search, heir)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    decided = places >= 0
    assert decided.any()
    mine, theirs = heir._steering._scores()[decided], search._steering._scores()[places[decided]]
    if gate == "group_lasso":  # norms of kernels, which have lost the rows of closed channels
        of_group = heir.graph.group_of[decided]
        mine, theirs = (np.bincount(of_group, scores) / np.bincount(of_group) for scores in (mine, theirs))
    assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("gate", thorough_but(["fisher", "gamma"], quick=["fisher"]))
def test_the_narrower_search_sees_what_the_wider_one_sees(gate):
    """Shares of the first seed. Not for `group_lasso`: norms of kernels lose the rows of closed channels."""
    search, heir, places = searched_for_a_while(gate=gate, target={"flops": 0.5, "params": 0.6})
    controller = search.memory()["controller"]
    before = search.update(0.6, 100)
    marginal = search._gate.marginal
    search.remember({**search.memory(), "controller": controller})
    assert heir.update(0.6, 100) == pytest.approx(before, rel=1e-6)
    decided = places >= 0
    assert heir._gate.marginal[decided] == pytest.approx(marginal[places[decided]], rel=1e-6)


def test_there_is_room_to_change_ones_mind():
    search, heir, _ = searched_for_a_while()
    is_open = as_numpy(search._switches.kept)[search.graph.group_of >= 0] > 0.5
    counts = [int(is_open[search.graph.group_of == index].sum()) for index in range(2)]
    assert sum(counts) < sum(units(heir)) < sum(units(search))


def test_a_branch_that_has_to_stay_stays_when_the_search_is_taken_up_again():
    _, heir, _ = searched_for_a_while()
    heir._steering._staying[:] = True
    assert heir._steering._scores()[heir.graph.group_of == 0].max() > 1
    heir.remember(heir.memory())
    assert heir._steering._staying.all()


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", thorough_but(EARLY, quick=["fisher"]))
def test_a_run_becomes_narrower_step_by_step(gate, capsys):
    watch = Watch()
    search = compiled(gate=gate, target=0.25)
    history = trained(search, epochs=12, callbacks=[watch], verbose=2)
    structure = within_budget(search)
    widths = [units(model) for model in watch.models]
    assert len(widths) > 2
    assert watch.models[0] is search and watch.models[-1] is search.result()
    assert (np.diff(widths, axis=0) <= 0).all()
    assert widths[-1] == [structure.widths[name] for name in ("one", "two")]
    assert structure.fingerprint == search.graph.fingerprint
    assert structure.settings["steps"] == 18
    assert history.epoch == list(range(12))
    assert {len(rows) for rows in history.history.values()} == {12}
    # The costs that were logged are shares of the seed's, whatever network was trained.
    assert history.history["cost"][-1] == pytest.approx(
        structure.costs["flops"]["structure"] / structure.costs["flops"]["seed"]
    )
    assert [row["step"] for row in structure.trajectory] == sorted(row["step"] for row in structure.trajectory)
    said = capsys.readouterr().out
    assert said.count("the search goes on with a narrower network: ") == len(widths) - 2
    assert f"{search.seed.count_params():,} parameters are left" in said
    assert search.widths.keys() == {group.name for group in search.graph.groups if group.prunable}


def test_the_channels_of_the_structure_are_those_of_the_seed():
    """What the result computes lies in the first seed's channels: without training they are the same numbers."""
    search = compiled(keras.optimizers.SGD(0.0), target=0.25)
    trained(search, epochs=12)
    structure = within_budget(search)
    student = morph.rebuild(search.seed, structure, weights="inherit")
    # Statistics of BatchNormalization went on; weights did not change.
    for mine, theirs in zip(search.result().trainable_weights, student.trainable_weights, strict=True):
        assert as_numpy(mine) == pytest.approx(as_numpy(theirs), abs=1e-7)
    assert all(max(group["alive"]) >= group["width"] for group in list(structure.groups.values())[:2])


def test_until_the_structure_is_decided_nothing_else_changes(monkeypatch):
    """Scores that never change: the same channels close, and what is computed is the same."""
    gate: Any = morph.GATES["fisher"]
    taken = gate.take_over

    def take_over(self, before, places):
        taken(self, before, places)
        self.ranked = np.where(places < 0, 0.0, before.ranked[places])

    monkeypatch.setattr(gate, "scores", lambda self: self.ranked)
    monkeypatch.setattr(gate, "take_over", take_over)
    rows = []
    for narrow in (False, True):
        search: Any = compiled(SLOTTED["SGD with momentum"](), target=0.25)
        search._gate.ranked = np.random.default_rng(0).permutation(len(search.graph.group_of)).astype(float)
        watch = Watch()
        rows.append(trained(search, epochs=8, narrow=narrow, callbacks=[watch]).history)
        assert (len(watch.models) > 2) == narrow
    for name in ("loss", "cost", "alive"):
        assert rows[0][name][:3] == pytest.approx(rows[1][name][:3], rel=1e-4)


def blocks(count=4):
    """Residual blocks, between layers that are worth more."""
    start = keras.Input((8,), name="x")
    x = layers.Dense(24, activation="relu", name="one")(start)
    for block in range(count):
        y = layers.Dense(12, activation="relu", name=f"inner{block}")(x)
        x = layers.Add()([x, layers.Dense(24, name=f"back{block}")(y)])
    x = layers.Dense(24, activation="relu", name="two")(x)
    return keras.Model(start, layers.Dense(2)(x))


INNER = {f"inner{block}" for block in range(4)}
# Layers inside of blocks stay whole or go, and those around them stay, so that blocks have to go one by one.
ONE_BY_ONE = {"target": 0.35, "multiple_of": dict.fromkeys(INNER, 12), "min_channels": {"one": 20, "two": 12}}


def test_a_branch_that_dies_is_gone_before_the_cut():
    search = compiled(model=blocks(), **ONE_BY_ONE)
    watch = Watch()
    trained(search, epochs=16, callbacks=[watch])
    structure = within_budget(search)
    dead = {name for name, group in structure.groups.items() if not group["width"]}
    names = [{layer.name for layer in model.seed.layers} for model in watch.models[:-1]]
    assert dead & INNER and dead <= names[0]
    assert dead - names[-1]
    assert all(search.widths[name] == 0 for name in dead)
    assert set(structure.removed["layers"]) >= dead


def test_a_branch_that_has_to_go_leaves_enough_to_fill_the_budget():
    """One block with most of the work: without it, what was closed before is needed again."""
    watch = Watch()
    search = compiled(model=blocks(count=1), target=0.25, multiple_of={"inner0": 12}, min_channels={"one": 12})
    trained(search, epochs=12, callbacks=[watch])
    structure = within_budget(search)
    assert structure.groups["inner0"]["width"] == 0
    assert structure.settings["budget"]["left"] < 0.05


def test_what_is_left_of_a_budget_is_said_to_be_so_because_of_what_was_dropped():
    graph = morph.ChannelGraph.from_model(small())
    choices = choices_of(graph)
    budget = budget_of(graph, "flops", target=0.5)
    told = room(budget, np.array([8, 3, 2]), choices)
    assert told["left"] > 0.2
    assert "more channel of 'two' would fit: what was dropped when the network was narrowed" in told["granularity"]


@pytest.mark.parametrize(
    ("options", "fitted"),
    [
        ({"gate": "logistic_sigmoid"}, {}),
        ({"gate": "gamma", "target": None, "strength": 1e-3}, {}),
        ({"distill": True}, {}),
        ({}, {"narrow": False}),
        ({}, {"steps_per_epoch": 3}),
    ],
    ids=["a gate that closes in the end", "a strength", "its own teacher", "asked not to", "an endless stream"],
)
def test_where_it_cannot_be_narrower_it_is_not(options, fitted):
    watch = Watch()
    search = compiled(**options)
    trained(search, epochs=8, callbacks=[watch], **fitted)
    assert watch.models == [search, search.result()]


def test_a_stream_is_begun_anew_where_somebody_says_that_it_may_be():
    watch = Watch()
    search = compiled(target=0.25)
    trained(search, epochs=8, callbacks=[watch], steps_per_epoch=3, narrow=True)
    assert len(watch.models) > 2


def test_what_is_not_worth_it_is_left(monkeypatch):
    monkeypatch.undo()
    watch = Watch()
    search = compiled(target=0.25)
    trained(search, epochs=8, callbacks=[watch])
    assert watch.models == [search, search.result()]


def test_a_cost_of_ones_own_is_not_asked_for_layers_that_are_gone():
    def work(calls):
        by_name = {call.name: call.axes["out"] * call.axes["in"] for call in calls if call.kind == "Dense"}
        return sum(by_name.values())

    watch = Watch()
    search = compiled(model=blocks(), cost=work, **ONE_BY_ONE)
    with pytest.warns(UserWarning, match="a cost that is a function may ask for the layers that would go"):
        trained(search, epochs=16, callbacks=[watch])
    assert len(search.incidents) == 1
    names = [{layer.name for layer in model.seed.layers} for model in watch.models[:-1]]
    assert all(each >= INNER for each in names)
    assert any(not search.structure().groups[name]["width"] for name in INNER)


# --- callbacks, and what they ask for ---------------------------------------------------------------------------------


def test_to_callbacks_it_is_one_fit_of_several_networks(tmp_path):
    told, asked = [], []

    class Notes(callbacks.Callback):
        def on_train_begin(self, logs=None):
            told.append("begin")

        def on_train_end(self, logs=None):
            told.append("end")

    def ask(model, epoch):
        asked.append(search.structure())
        if isinstance(model, morph.StructureSearch):
            # In the middle of a run, each search is one of the network that it trains.
            assert model.result().count_params() == search.result().count_params()
            assert morph.verify(model.seed, model.structure(), X[:4]) < 1e-5

    whole = callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    search = compiled(target=0.25)
    trained(search, epochs=8, callbacks=[Notes(), Watch(ask), whole])
    assert told == ["begin", "end"]
    assert {structure.fingerprint for structure in asked} == {search.graph.fingerprint}
    assert asked[-1].groups == search.structure().groups
    for path in sorted(tmp_path.iterdir()):
        loaded = keras.saving.load_model(path)
        assert np.isfinite(loaded.predict(X, verbose=0)).all()
        if isinstance(loaded, morph.StructureSearch):
            assert loaded.memory()["shares_of"] == search.memory()["shares_of"]
            assert loaded.update(0.5).keys() == {"cost", "target", "alive"}


def test_stopped_by_a_callback_it_is_cut_as_it_was_then():
    search = compiled(target=0.25)
    assert trained(search, epochs=12, callbacks=[StopAfter(3)]).epoch == [0, 1, 2, 3]
    assert search.result().count_params() < small().count_params()
    within_budget(search)


def test_a_search_that_diverges_after_it_has_become_narrower_goes_back_to_then():
    class Spoil(callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.done = False

        def on_epoch_begin(self, epoch, logs=None):
            model: Any = self.model
            if not self.done and isinstance(model, morph.StructureSearch) and model is not search:
                self.done = True
                kernel = model.seed.get_layer("one").kernel
                kernel.assign(np.full(kernel.shape, np.nan))

    search = compiled(target=0.25)
    with pytest.warns(UserWarning, match="goes back to its last good state"):
        trained(search, epochs=12, callbacks=[Spoil()])
    assert len(search.incidents) == 1
    assert np.isfinite(search.result().predict(X, verbose=0)).all()
    within_budget(search)


# --- killed and continued ---------------------------------------------------------------------------------------------


def run(place, *more, seed=0, **options):
    search = compiled(SLOTTED["SGD with momentum"](), target=0.25, **options)
    keras.utils.set_random_seed(seed)
    return search, trained(search, epochs=10, checkpoint=place, callbacks=list(more))


@pytest.mark.parametrize("gate", thorough_but(EARLY, quick=["fisher"]))
def test_a_run_that_dies_in_any_epoch_ends_as_one_that_lived(gate, tmp_path):
    expected, whole = run(tmp_path / "lived", gate=gate)
    series = {path.name.split("-")[0] for path in (tmp_path / "lived").iterdir()}
    assert series > {"epoch", "narrower1", "result"}
    place = tmp_path / "died"
    for epoch in range(10):
        with pytest.raises(Died):
            run(place, DieIn(epoch), gate=gate, seed=epoch)
    search, history = run(place, gate=gate)
    assert search.structure() == expected.structure()
    assert history.epoch == list(range(10))
    assert history.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-6)
    for mine, theirs in zip(search.result().variables, expected.result().variables, strict=True):
        assert as_numpy(mine) == pytest.approx(as_numpy(theirs), rel=1e-6, abs=1e-8)
    again, history = run(place, gate=gate)
    assert again.structure() == expected.structure()
    assert history.epoch == list(range(10))


def test_a_damaged_checkpoint_of_a_narrower_network_is_left_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(narrowing, "_AT_MOST", 0.5)
    expected, _ = run(None)
    with pytest.raises(Died):
        run(tmp_path, DieIn(5))
    newest = tmp_path / "narrower1-000005.npz"
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(UserWarning, match=rf"{newest.name} .* is damaged"):
        search, _ = run(tmp_path)
    assert search.structure().groups == expected.structure().groups


def test_where_its_only_checkpoint_is_damaged_it_is_named(tmp_path):
    expected, _ = run(None)
    with pytest.raises(Died):
        run(tmp_path, DieIn(4))
    (only,) = tmp_path.glob("narrower2-*")
    only.write_bytes(only.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(morph.MorphError, match=f"read .{only.name}"):
        run(tmp_path)
    only.unlink()
    search, _ = run(tmp_path)
    assert search.structure().groups == expected.structure().groups


# --- kinds of networks ------------------------------------------------------------------------------------------------


def test_the_loss_scale_goes_on():
    optimizer = SLOTTED["loss scaling"]()
    search = compiled(optimizer, target=0.25)
    trained(search, epochs=8)
    within_budget(search)
    scaled = search.result().optimizer
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    assert int(as_numpy(scaled.inner_optimizer.iterations)) == 24
    # It doubles every five steps: 24 steps from 64.
    assert float(as_numpy(scaled.dynamic_scale)) == 64.0 * 2**4


def test_outputs_keep_the_names_by_which_losses_were_given():
    start = keras.Input((8,), name="x")
    hidden = layers.Dense(24, activation="relu")(start)
    left = layers.Dense(2)
    right = layers.Dense(1)
    model = keras.Model(start, [left(hidden), right(hidden)])
    search = compiled(
        model=model, loss={left.name: LOSS, right.name: "mse"}, metrics={left.name: ["accuracy"]}, target=0.25
    )
    watch = Watch()
    history = trained(search, X, [Y, X[:, :1]], epochs=8, callbacks=[watch]).history
    assert len(watch.models) > 2
    assert {f"{left.name}_loss", f"{right.name}_loss", f"{left.name}_accuracy"} <= set(history)
    assert list(search.result().output_names) == list(model.output_names)
