"""One fit trains two networks as if they were one: the search, cut to its structure, goes on where it was."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.structure.rebuild import inherit
from tests.core.networks import two_moons

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = two_moons(96)
BACKEND = keras.backend.backend()
GATES = sorted(morph.GATES)
callbacks = keras.callbacks
optimizers = keras.optimizers


def small(dropout: float = 0.0) -> keras.Model:
    """Two normalised hidden layers, and a head that nobody named."""
    start = x = keras.Input((8,), name="x")
    for name in ("one", "two"):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(12, use_bias=False, name=name)(x)))
        x = layers.Dropout(dropout)(x) if dropout else x
    return keras.Model(start, layers.Dense(2, dtype="float32")(x))


def compiled(optimizer="adam", model=None, graph=False, loss=LOSS, metrics=None, **options):
    """A compiled search of half the epochs; without `graph` it runs eagerly: tracing takes longer than the steps."""
    keras.utils.set_random_seed(0)
    options = {"target": 0.5, "search_fraction": 0.5} | options
    search = morph.StructureSearch(small() if model is None else model, **options)
    search.compile(optimizer, loss, metrics=metrics, run_eagerly=BACKEND == "tensorflow" and not graph)
    return search


def trained(search, *data, **options):
    options = {"epochs": 4, "batch_size": 32, "verbose": 0, "shuffle": False} | options
    return search.fit(*(data or (X, Y)), **options)


def within_budget(search):
    structure = search.structure()
    shares = [structure.costs[cost]["structure"] / structure.costs[cost]["seed"] for cost in structure.limits]
    assert all(share <= limit for share, limit in zip(shares, structure.limits.values(), strict=True))
    assert search.result().count_params() < search.seed.count_params()
    return structure


@pytest.fixture
def policy():
    """policy(name) sets Keras' dtype policy for the test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


# --- the law of the cut -----------------------------------------------------------------------------------------------

SLOTTED = {
    "SGD with momentum": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "Adam": lambda: optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "RMSprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Nadam": lambda: optimizers.Nadam(0.01),
    "Lion": lambda: optimizers.Lion(0.01),
    "Ftrl": lambda: optimizers.Ftrl(0.05),
    "a schedule": lambda: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 3, 0.5), momentum=0.9),
    "loss scaling": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01), initial_scale=64.0, dynamic_growth_steps=5
    ),
    "averages": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=7),
    "accumulated gradients": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=4),
}


@pytest.mark.parametrize("kind", SLOTTED)
def test_a_step_after_the_cut_is_the_step_that_the_search_would_have_taken(kind):
    search = compiled(SLOTTED[kind](), graph="accumulated" in kind, search_fraction=1.0)
    trained(search, epochs=2)
    structure = within_budget(search)
    student = search.result()
    assert student.predict(X, verbose=0) == pytest.approx(search.predict(X, verbose=0), abs=1e-5)
    search.reset_metrics()
    for batch in range(2):
        rows = slice(32 * batch, 32 * batch + 32)
        losses = [model.train_on_batch(X[rows], Y[rows]) for model in (search, student)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    _, parts = inherit(search.seed, structure)
    assert len(parts) == len(student.weights)
    for part, variable in zip(parts, student.weights, strict=True):
        assert as_numpy(variable) == pytest.approx(part.cut(as_numpy(part.whole)), abs=2e-5)
    assert int(as_numpy(student.optimizer.iterations)) == int(as_numpy(search.optimizer.iterations))


@pytest.mark.parametrize("gate", GATES)
def test_the_network_goes_on_from_what_the_search_was_when_it_was_cut(gate):
    """The seed stays as the search has left it, the result has been trained from there on."""
    begun = []

    class Watch(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            model: Any = self.model
            begun.append((model, as_numpy(model(X, training=False))))

    search = compiled(gate=gate)
    trained(search, callbacks=[Watch()])
    within_budget(search)
    models, answers = zip(*begun, strict=True)
    assert models == (search, search, search.result(), search.result())
    assert answers[2] == pytest.approx(search.predict(X, verbose=0), abs=1e-5)
    assert np.abs(answers[3] - answers[2]).max() > 1e-3
    assert int(as_numpy(search.result().optimizer.iterations)) == 12


def test_the_rest_is_the_same_as_training_the_cut_network_by_hand():
    whole = compiled(SLOTTED["AdamW"]())
    history = trained(whole, epochs=4).history
    by_hand = compiled(SLOTTED["AdamW"](), search_fraction=1.0)
    first = trained(by_hand, epochs=2).history
    student = by_hand.result()
    rest = student.fit(X, Y, epochs=2, batch_size=32, verbose=0, shuffle=False).history
    assert history["loss"] == pytest.approx(first["loss"] + rest["loss"], rel=1e-5)
    assert history["cost"] == pytest.approx([*first["cost"], *[first["cost"][-1]] * 2])
    for mine, theirs in zip(whole.result().weights, student.weights, strict=True):
        assert as_numpy(mine) == pytest.approx(as_numpy(theirs), abs=1e-5)


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_to_callbacks_it_is_one_fit():
    told = []

    class Notes(callbacks.Callback):
        def on_train_begin(self, logs=None):
            told.append("begin")

        def on_epoch_end(self, epoch, logs=None):
            params = self.params or {}
            told.append((epoch, params["epochs"], params["steps"], self.model.optimizer is not None))

        def on_train_end(self, logs=None):
            told.append("end")

    search = compiled(optimizers.SGD(1.0), metrics=["accuracy"])
    rate = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = trained(search, validation_data=(X, Y), callbacks=[Notes(), rate])
    assert told == ["begin", *[(epoch, 4, 3, True) for epoch in range(4)], "end"]
    assert history.epoch == [0, 1, 2, 3]
    assert {len(rows) for rows in history.history.values()} == {4}
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "cost", "target", "alive"} <= set(history.history)
    assert history.history["learning_rate"] == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert search.history is search.result().history is history


def test_the_best_of_the_search_is_none_of_the_result(tmp_path):
    """The search loses nothing until its first channel is closed, so that its first epochs look best."""

    class Worse(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert logs
            logs["loss"] = {0: 0.1, 1: 0.2, 2: 3.0, 3: 1.0, 4: 2.0, 5: 2.5}[epoch]

    search = compiled()
    stop = callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True)
    plateau = callbacks.ReduceLROnPlateau("loss", patience=2, factor=0.1)
    path = str(tmp_path / "{epoch}.weights.h5")
    best = callbacks.ModelCheckpoint(path, monitor="loss", save_best_only=True, save_weights_only=True)
    history = trained(search, epochs=6, callbacks=[Worse(), stop, plateau, best])
    assert history.epoch == [0, 1, 2, 3, 4, 5]
    assert (stop.best, stop.best_epoch) == (1.0, 3)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["1.weights.h5", "4.weights.h5"]


class StopAfter(callbacks.Callback):
    """Stops training at the end of this epoch, counted from 0."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.last:
            self.model.stop_training = True


@pytest.mark.parametrize(("last", "epochs"), [(0, 1), (1, 2), (2, 3)])
def test_a_run_that_is_stopped_early_has_a_result_within_its_budget(last, epochs):
    search = compiled()
    ends = []
    ending = callbacks.LambdaCallback(on_train_end=lambda logs: ends.append(1))
    assert trained(search, callbacks=[StopAfter(last), ending]).epoch == list(range(epochs))
    assert ends == [1]
    structure = within_budget(search)
    assert search.result().fit(X, Y, epochs=1, verbose=0).epoch == [0]
    if last < 2:
        answers = search.result().predict(X, verbose=0)
        assert answers.shape == (96, 2)
        assert morph.verify(search.seed, structure, X[:4]) < 1e-5


@pytest.mark.parametrize("settings", [{}, {"ema_overwrite_frequency": 4}], ids=str)
def test_averages_of_weights_are_taken_over_at_the_end_and_not_at_the_cut(settings):
    """By hand, the same as a run in one piece; Keras puts averages into the network when a fit ends."""
    optimizer = optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5, **settings)
    search = compiled(optimizer)
    before = []

    class Watch(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            before.append(self.model.predict(X, verbose=0))

        def on_epoch_end(self, epoch, logs=None):
            before.append(self.model.predict(X, verbose=0))

    trained(search, callbacks=[Watch()])
    assert before[3] == pytest.approx(before[4], abs=1e-5)
    student = search.result()
    for variable, average in zip(
        student.trainable_variables, student.optimizer._model_variables_moving_average, strict=True
    ):
        assert as_numpy(variable) == pytest.approx(as_numpy(average), abs=1e-6)


def test_swapped_averages_are_swapped_back_after_the_cut():
    search = compiled(optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9))
    trained(search, callbacks=[callbacks.SwapEMAWeights(swap_on_epoch=True)], validation_data=(X, Y))
    within_budget(search)
    assert np.isfinite(search.result().predict(X, verbose=0)).all()


def test_tensorboard_is_told_of_both_parts(tmp_path):
    pytest.importorskip("tensorflow", reason="Keras writes TensorBoard's files with TensorFlow")
    trained(compiled(), callbacks=[callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=1)])
    assert list(tmp_path.glob("train/events.*"))


# --- kinds of networks and searches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"gate": "logistic_sigmoid", "target": {"flops": 0.5, "params": 0.6}},
        {"gate": "fisher", "multiple_of": 4},
        {"gate": "gamma", "target": None, "strength": 1e-3},
        {"gate": "fisher", "search_fraction": 0.25},
    ],
    ids=["several budgets", "multiples", "strength", "a quarter"],
)
def test_every_kind_of_search_is_cut(options):
    search = compiled(**options)
    history = trained(search)
    structure = search.structure()
    assert len(history.epoch) == 4
    assert structure.settings["steps"] == (3 if options.get("search_fraction") else 6)
    assert [layer.units for layer in search.result().layers if hasattr(layer, "units")] == [
        structure.widths[name] for name in ("one", "two")
    ] + [2]
    if "multiple_of" in options:
        assert all(structure.widths[name] in (4, 8, 12) for name in ("one", "two"))


def test_outputs_keep_the_names_by_which_losses_were_given(tmp_path):
    """Of outputs that nobody named, and of one that lies in a nested model."""
    start = keras.Input((8,), name="x")
    hidden = layers.Dense(16, activation="relu", name="hidden")(start)
    left = layers.Dense(2)
    inner = keras.Input((16,))
    right = keras.Model(inner, layers.Dense(1)(layers.Dense(6, activation="relu")(inner)), name="right")
    shared = layers.Dense(16, activation="relu", name="shared")
    hidden = shared(shared(hidden))
    model = keras.Model(start, [left(hidden), right(hidden)])
    search = compiled(model=model, loss={left.name: LOSS, "right": "mse"}, metrics={left.name: ["accuracy"]})
    data = {left.name: Y, "right": X[:, :1]}
    history = trained(search, X, [data[name] for name in model.output_names], sample_weight=None).history
    assert {f"{left.name}_loss", "right_loss", f"{left.name}_accuracy"} <= set(history)
    assert {len(rows) for rows in history.values()} == {4}
    student = search.result()
    assert list(student.output_names) == list(model.output_names)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    for mine, theirs in zip(loaded.predict(X, verbose=0), student.predict(X, verbose=0), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    loaded.fit(X, [Y, X[:, :1]], verbose=0)


def test_the_result_is_an_ordinary_trained_model(tmp_path):
    search = compiled(optimizers.Adam(0.01), metrics=["accuracy"], graph=True)
    history = trained(search, sample_weight=np.linspace(0, 1, 96)).history
    student = search.result()
    assert type(student) is type(small())
    assert type(student.optimizer) is type(optimizers.Adam())
    assert len(student.variables) == len(keras.models.clone_model(student).variables)
    assert student.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] > 0.4
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert loaded.predict(X, verbose=0) == pytest.approx(student.predict(X, verbose=0), abs=1e-6)
    assert int(as_numpy(loaded.optimizer.iterations)) == 12
    assert len(history["accuracy"]) == 4
    assert len(search.variables) < len(search.seed.variables) + 10


def test_a_sequential_network_is_cut_and_trained_to_the_end():
    seed = keras.Sequential([keras.Input((8,)), layers.Dense(12, activation="relu", name="one"), layers.Dense(2)])
    search = compiled(model=seed, metrics=["accuracy"])
    history = trained(search).history
    structure = within_budget(search)
    assert search.result().get_layer("one").units == structure.widths["one"]
    assert len(history["accuracy"]) == 4
    assert int(as_numpy(search.result().optimizer.iterations)) == 12


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_goes_on(name, policy):
    policy(name)
    search = compiled(optimizers.Adam(0.01), graph=True)
    trained(search)
    student = search.result()
    within_budget(search)
    assert student.get_layer("one").compute_dtype == name.removeprefix("mixed_")
    if name == "mixed_float16":
        assert isinstance(student.optimizer, optimizers.LossScaleOptimizer)
        assert type(student.optimizer.inner_optimizer) is type(optimizers.Adam())
        # Where gradients did not overflow, every step has counted, in both parts.
        scale, steps = student.optimizer.dynamic_scale, student.optimizer.step_counter
        assert int(as_numpy(steps)) + round(np.log2(2.0**15 / float(as_numpy(scale)))) == 12
        assert student.predict(X, verbose=0).dtype == np.float32


def test_a_loop_of_ones_own_is_cut_when_it_asks():
    search = compiled(search_fraction=1.0)
    for step in range(1, 7):
        search.train_on_batch(X[:32], Y[:32])
        search.update(step / 6, step)
    within_budget(search)
    student = search.result()
    assert student.predict(X, verbose=0) == pytest.approx(search.predict(X, verbose=0), abs=1e-5)
    assert int(as_numpy(student.optimizer.iterations)) == 6


# --- refused before training ------------------------------------------------------------------------------------------


class Preconditioned(optimizers.SGD):
    """Keeps a matrix as large as the first weight is high."""

    def build(self, variables):
        super().build(variables)
        self.preconditioner = self.add_variable((variables[1].shape[0],) * 2, name="preconditioner")


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ("adafactor", r"'adafactor(_[0-9]+)?' \(Adafactor\) keeps '_r' of shape \(8,\) for weight '.*kernel' of shape"),
        (Preconditioned(0.1), r"\(Preconditioned\) keeps 'preconditioner' of shape \(\d+, \d+\), .*no single weight"),
    ],
)
def test_an_optimizer_that_cannot_be_cut_is_refused_before_training(optimizer, message):
    search = compiled(optimizer)
    before = as_numpy(search.seed.get_layer("one").kernel).copy()
    with pytest.raises(morph.MorphError, match=message):
        trained(search)
    assert (as_numpy(search.seed.get_layer("one").kernel) == before).all()


@pytest.mark.parametrize(
    ("fraction", "options", "message"),
    [
        (0.1, {"epochs": 4}, "search_fraction=0.1 of epochs=4 leaves no whole epoch for the search"),
        (0.9, {"epochs": 4}, "search_fraction=0.9 of epochs=4 leaves no whole epoch for the network that it finds"),
        (
            0.5,
            {"epochs": 1},
            "no whole epoch for the search. Train for more epochs, or give another",
        ),
        (0.5, {"epochs": 4, "initial_epoch": 2}, "initial_epoch=2 leaves no epoch for the search, .* first 2 of"),
    ],
)
def test_a_fraction_that_leaves_no_epoch_is_refused_before_training(fraction, options, message):
    search = compiled(search_fraction=fraction)
    before = as_numpy(search.seed.get_layer("one").kernel).copy()
    with pytest.raises(morph.MorphError, match=message):
        trained(search, **options)
    assert (as_numpy(search.seed.get_layer("one").kernel) == before).all()


@pytest.mark.parametrize("fraction", [0, 1.5, -0.5, True, "half", None, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(morph.MorphError, match=r"search_fraction is .*expected the part of the epochs"):
        compiled(search_fraction=fraction)


def test_a_search_that_is_over_is_not_begun_again():
    search = compiled()
    trained(search, epochs=2)
    with pytest.raises(morph.MorphError, match=r"is cut.*search\.result\(\)\.fit"):
        trained(search, epochs=2)


def test_a_result_before_any_training_is_refused():
    with pytest.raises(morph.MorphError, match="call fit first"):
        compiled().result()
