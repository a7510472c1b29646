"""One fit trains two networks as if they were one: the search, cut to its structure, goes on where it was."""

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
            begun.append((self.model, as_numpy(self.model(X, training=False))))

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
            told.append((epoch, self.params["epochs"], self.params["steps"], self.model.optimizer is not None))

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
