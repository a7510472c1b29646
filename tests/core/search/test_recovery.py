"""A search that diverges goes back to the last good epoch, more slowly, a few times; that all is closed is said."""

import itertools
import math
import warnings

import keras
import numpy as np
import pytest

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.search.recovery import MOST_ROLLBACKS, Slowed
from tests.core.networks import mlp, residual, two_moons

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BATCH, BATCHES = 32, 16


class Spoils(keras.callbacks.Callback):
    """Puts numbers that are none into a kernel, before certain batches, counted from 0 over the whole run.

    Of the last layer they make the loss one as well. Of the first they need not: ReLU makes 0 of them.
    """

    def __init__(self, *before: int, value: float = math.nan, layer: int = -1):
        super().__init__()
        self._before, self._value, self._layer, self._count = set(before), value, layer, itertools.count()

    def on_train_batch_begin(self, batch, logs=None):
        if next(self._count) in self._before:
            weight = [weight for weight in self.model.seed.weights if "kernel" in weight.path][self._layer]
            weight.assign(np.full(weight.shape, self._value))


def searched(*callbacks, optimizer=None, epochs=4, model=None, checkpoint=None, **goal):
    keras.utils.set_random_seed(0)
    model = model or mlp((32, 32), inputs=8)
    search = morph.StructureSearch(model, **(goal or {"target": 0.5}))
    search.compile(optimizer or keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
    x, y = two_moons(BATCH * BATCHES, int(np.prod(model.input_shape[1:])))
    x = x.reshape(-1, *model.input_shape[1:])
    history = search.fit(
        x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=list(callbacks), checkpoint=checkpoint
    )
    return search, history


@pytest.mark.parametrize(
    ("gate", "value", "layer"),
    [
        ("fisher", math.nan, -1),
        ("fisher", math.nan, 0),
        ("fisher", 1e18, 0),  # the loss explodes
        pytest.param("logistic_sigmoid", math.nan, -1, marks=pytest.mark.thorough),
        # BatchNormalization makes up for it, with a variance that is infinite.
        pytest.param("gamma", 1e25, 0, marks=pytest.mark.thorough),
    ],
)
def test_it_goes_on_from_the_last_good_epoch_and_still_meets_its_budget(gate, value, layer):
    said = r"goes back to its last good state, with the learning rate times 0\.25 \(1 of at most 3 times\)"
    model, spoils = residual(8) if gate == "gamma" else None, Spoils(BATCHES + 5, value=value, layer=layer)
    with pytest.warns(UserWarning, match=said):
        search, history = searched(spoils, model=model, target=0.5, gate=gate)
    assert np.isfinite(history.history["loss"]).all(), "the epoch's mean begins anew after the rollback"
    structure = search.structure()
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    assert all(np.isfinite(as_numpy(weight)).all() for weight in search.seed.weights)
    assert float(as_numpy(search.optimizer.learning_rate)) == pytest.approx(0.0025)
    [incident] = structure.settings["incidents"]
    assert incident.startswith("The search diverged before step ") and search.incidents == (incident,)
    steps = [row["step"] for row in structure.trajectory]
    assert steps == sorted(steps)


def test_what_is_put_back_is_what_was_there():
    """All variables, and what the search knows beside them: as a search that was stopped at that epoch has it."""
    states = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            states.append([as_numpy(variable).copy() for variable in self.model.variables])

    class After(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.incidents and len(states) < 3:
                states.append([as_numpy(variable).copy() for variable in self.model.variables])

    with pytest.warns(UserWarning, match="goes back"):
        searched(Spoils(2 * BATCHES), Watch(), After(), optimizer=keras.optimizers.SGD(0.01), gate="fisher", target=0.5)
    after_second, rolled_back = states[1], states[2]
    same = [np.array_equal(one, other) for one, other in zip(after_second, rolled_back, strict=True)]
    # Prices and the like are set anew, by where the schedule is now.
    assert sum(same) >= len(mlp((32, 32), inputs=8).weights)


def test_a_schedule_of_the_learning_rate_is_slowed_too():
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10_000, 0.5)
    with pytest.warns(UserWarning, match="goes back"):
        search, _ = searched(Spoils(BATCHES + 3, 2 * BATCHES + 3), optimizer=keras.optimizers.SGD(rate))
    inner = search.optimizer.inner if hasattr(search.optimizer, "inner") else search.optimizer
    assert isinstance(inner._learning_rate, Slowed)
    assert float(inner.learning_rate) == pytest.approx(0.01 / 16, rel=0.02)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(inner))
    assert float(again._learning_rate(0)) == pytest.approx(0.01 / 16)


def test_the_traced_step_uses_the_slower_schedule():
    """The rate of a schedule is a part of the graph: without a new one the steps would stay as large."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10_000, 0.5)
    moved: dict[bool, list[float]] = {False: [], True: []}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self._before = as_numpy(self.model.seed.trainable_weights[-1]).copy()

        def on_train_batch_end(self, batch, logs=None):
            after = as_numpy(self.model.seed.trainable_weights[-1])
            moved[bool(self.model.incidents)].append(float(np.abs(after - self._before).mean()))

    with pytest.warns(UserWarning, match="goes back"):
        # Adam moves by its rate, whatever the gradient.
        searched(Watch(), Spoils(2 * BATCHES + 3), optimizer=keras.optimizers.Adam(rate), target=0.5)
    assert np.median(moved[True][2:]) < 0.5 * np.median(moved[False])


def test_what_diverges_again_and_again_is_given_up_with_advice():
    spoiled = Spoils(*range(BATCHES, 4 * BATCHES))
    message = r"diverged before step .* Lower the learning rate.*rolled back 3 times.* diverged again"
    with pytest.warns(UserWarning, match="goes back") as told, pytest.raises(morph.MorphError, match=message):
        searched(spoiled)
    lines = [str(warning.message) for warning in told if "goes back" in str(warning.message)]
    assert [f"({number} of at most {MOST_ROLLBACKS} times)" in line for number, line in enumerate(lines, 1)] == [
        True
    ] * 3


def test_where_no_step_is_left_the_search_has_diverged():
    with pytest.raises(morph.MorphError, match="diverged before step"):
        searched(Spoils(4 * BATCHES - 1))


def test_a_search_that_goes_well_keeps_its_learning_rate_and_tells_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        search, _ = searched()
    assert float(as_numpy(search.optimizer.learning_rate)) == pytest.approx(0.01)
    assert search.incidents == () and "incidents" not in search.structure().settings


def test_a_continued_search_knows_how_often_it_was_rolled_back(tmp_path):
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10_000, 0.5)

    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="goes back"), pytest.raises(KeyboardInterrupt):
        searched(Spoils(BATCHES + 3), Killed(), optimizer=keras.optimizers.SGD(rate), checkpoint=tmp_path)
    search, _ = searched(optimizer=keras.optimizers.SGD(rate), checkpoint=tmp_path)
    assert len(search.incidents) == 1 and search.memory()["rollbacks"] == 1
    inner = search.optimizer.inner if hasattr(search.optimizer, "inner") else search.optimizer
    assert float(inner.learning_rate) == pytest.approx(0.01 / 4, rel=0.02)


@pytest.mark.parametrize(("strength", "closed"), [(1.0, True), (1e-12, False)])
def test_a_strength_that_closes_everything_is_recognised(strength, closed):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        search, _ = searched(epochs=10, strength=strength, gate="logistic_sigmoid")
    lines = [str(warning.message) for warning in told if "outweighs the loss" in str(warning.message)]
    assert len(lines) == int(closed)
    if closed:
        assert lines[0].startswith("All ") and "Lower strength, or give a target" in lines[0]
        assert search.structure().settings["incidents"] == lines
