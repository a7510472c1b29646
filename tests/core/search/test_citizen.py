"""A search is trained as any Keras model is: by every optimizer, compile option, kind of data, callback and loop."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from tests.core.networks import two_moons

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = two_moons(96)
BACKEND = keras.backend.backend()
GATES = sorted(morph.GATES)
# The gates that have variables and an optimizer of their own, and one that has none.
KINDS = ["fisher", "gamma", "logistic_sigmoid"]
callbacks = keras.callbacks
optimizers = keras.optimizers


def small() -> keras.Model:
    """Two normalised hidden layers."""
    start = x = keras.Input((8,), name="x")
    for name in ("one", "two"):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(12, use_bias=False, name=name)(x)))
    return keras.Model(start, layers.Dense(2, name="head", dtype="float32")(x))


def compiled(gate="gamma", optimizer="adam", loss=LOSS, model=None, graph=False, **options):
    """A compiled search; without `graph` it runs eagerly: tracing takes longer than such searches."""
    keras.utils.set_random_seed(0)
    search = morph.StructureSearch(small() if model is None else model, target=0.5, gate=gate)
    if not graph and BACKEND == "tensorflow":
        options = {"run_eagerly": True} | options
    search.compile(optimizer, loss, **options)
    return search


def ends_within_budget(search, *data, **options):
    """Trains the search, asserts what every search must end with, and returns the history."""
    options = {"epochs": 2, "batch_size": 32, "verbose": 0} | options
    history = search.fit(*(data or (X, Y)), **options)
    structure = search.structure()
    assert 0.4 < structure.costs["flops"]["structure"] / structure.costs["flops"]["seed"] <= 0.5
    assert np.isfinite(history.history["loss"]).all()
    assert {"cost", "target", "alive"} <= set(history.history)
    return history


@pytest.fixture
def policy():
    """policy(name) sets Keras' dtype policy for the test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


# --- optimizers -------------------------------------------------------------------------------------------------------

EVERY = [
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "Nadam",
    "RMSprop",
    "SGD",
]


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_trains_weights_beside_the_gates(name):
    search = compiled("logistic_sigmoid", getattr(optimizers, name)())
    before = as_numpy(search.seed.get_layer("one").kernel).copy()
    ends_within_budget(search)
    assert np.abs(as_numpy(search.seed.get_layer("one").kernel) - before).max() > 0


@pytest.mark.parametrize("gate", ["fisher", "logistic_sigmoid"])
@pytest.mark.parametrize(
    "settings",
    [
        {"weight_decay": 0.01},
        {"global_clipnorm": 1.0},
        {"clipvalue": 0.5},
        {"use_ema": True, "ema_overwrite_frequency": 2},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 1024.0},
        {"learning_rate": optimizers.schedules.CosineDecay(0.01, 6)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_an_optimizers_settings_hold_for_the_weights(settings, gate):
    search = compiled(gate, optimizers.Adam(**settings), graph="gradient_accumulation_steps" in settings)
    ends_within_budget(search)
    assert int(as_numpy(search.optimizer.gate.iterations)) == 6


def squared_gradients(optimizer):
    """What the fisher gate has seen after one step on all data at once."""
    search = compiled("fisher", optimizer, graph=True)
    search.fit(X, Y, batch_size=96, epochs=1, verbose=0, shuffle=False)
    return search._gate.optimizer.means(search._gate.trainable[0])


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.SGD(0.0, loss_scale_factor=64.0),
        lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.0), initial_scale=64.0),
    ],
    ids=["loss_scale_factor", "LossScaleOptimizer"],
)
def test_scaling_the_loss_leaves_the_gates_gradients_as_they_are(optimizer):
    assert squared_gradients(optimizer()) == pytest.approx(squared_gradients(optimizers.SGD(0.0)), rel=1e-3, abs=1e-12)


def test_averaged_weights_end_in_the_network_and_not_in_the_gates():
    search = compiled("logistic_sigmoid", optimizers.Adam(0.1, use_ema=True, ema_momentum=0.9))
    ends_within_budget(search, callbacks=[callbacks.SwapEMAWeights()], validation_data=(X, Y))
    averages = search.optimizer.inner._model_variables_moving_average
    network = [variable for variable in search.trainable_variables if "gate" not in variable.name]
    for variable, average in zip(network, averages, strict=True):
        assert as_numpy(variable) == pytest.approx(as_numpy(average), rel=1e-6)


def test_a_search_can_be_compiled_again_with_its_own_optimizer():
    search = compiled("fisher", optimizers.LossScaleOptimizer(optimizers.Adam()))
    search.compile(search.optimizer, LOSS)
    assert type(search.optimizer.inner_optimizer.inner).__name__ == "Adam"
    ends_within_budget(search)


# --- compile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"jit_compile": True},
            marks=pytest.mark.skipif(BACKEND == "torch", reason="PyTorch compiles with a C++ compiler, for a minute"),
        ),
        pytest.param(
            {"steps_per_execution": 2},
            marks=pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch"),
        ),
        {"auto_scale_loss": False, "weighted_metrics": ["accuracy"], "loss_weights": [0.5]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_compile_options_reach_the_search(options, gate):
    search = compiled(gate, graph=True, **options)
    ends_within_budget(search)
    assert search.structure().settings["steps"] == 6


@pytest.mark.parametrize("kind", ["dict", "list", "losses by name"])
def test_several_outputs_each_have_their_loss(kind):
    start = keras.Input((8,), name="x")
    hidden = layers.Dense(16, activation="relu", name="hidden")(start)
    left = layers.Dense(2, name="left")(hidden)
    right = layers.Dense(1, name="right")(layers.Dense(8, activation="relu", name="deep")(hidden))
    by_name = {"left": LOSS, "right": "mse"}
    outputs, loss, y = {
        "dict": ({"left": left, "right": right}, by_name, {"left": Y, "right": X[:, :1]}),
        "list": ([left, right], [LOSS, "mse"], [Y, X[:, :1]]),
        "losses by name": ([left, right], by_name, {"left": Y, "right": X[:, :1]}),
    }[kind]
    weights = [1.0, 0.1] if kind == "list" else {"left": 1.0, "right": 0.1}
    search = compiled("fisher", loss=loss, model=keras.Model(start, outputs), loss_weights=weights)
    history = ends_within_budget(search, X, y).history
    total = history["left_loss"][-1] + 0.1 * history["right_loss"][-1]
    assert history["loss"][-1] == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "gate"), [*(("mixed_float16", gate) for gate in GATES), ("mixed_bfloat16", "logistic_sigmoid")]
)
def test_gates_are_float32_in_a_network_of_mixed_precision(name, gate, policy):
    policy(name)
    search = compiled(gate, optimizers.Adam(0.01), graph=gate == "fisher", metrics=["accuracy"])
    ends_within_budget(search, epochs=3)
    assert {variable.dtype for variable in search.trainable_variables} == {"float32"}
    assert search.seed.get_layer("one").compute_dtype == name.removeprefix("mixed_")
    assert isinstance(search.optimizer, optimizers.LossScaleOptimizer) == (name == "mixed_float16")
    student = morph.rebuild(search.seed, search.structure(), weights="inherit")
    expected = search.predict(X, verbose=0)
    assert student.predict(X, verbose=0) == pytest.approx(expected, abs=0.02 * float(np.abs(expected).max()))


def test_numbers_that_half_precision_cannot_hold_reach_the_network_whole(policy):
    policy("mixed_float16")
    start = keras.Input((4,))
    y = layers.Dense(8, activation="relu")(layers.Rescaling(1e-6, dtype="float32")(start))
    search = compiled("fisher", model=keras.Model(start, layers.Dense(2)(y)))
    assert np.isfinite(as_numpy(search(np.full((2, 4), 1e6, dtype="float32")))).all()


@pytest.mark.parametrize("training", [True, False])
def test_layers_know_whether_they_are_trained(training):
    """Keras records Dropout's default, training=False, in a functional model, and overrules it when it runs."""
    start = keras.Input((8,))
    y = layers.Dropout(0.5, seed=1)(layers.BatchNormalization()(layers.Dense(12, name="one")(start)))
    model = keras.Model(start, layers.Dense(2)(y))
    dropout = model.layers[3]
    before = as_numpy(dropout.seed_generator.state).copy()
    expected = as_numpy(model(X, training=training))
    dropout.seed_generator.state.assign(before)
    found = as_numpy(morph.StructureSearch(model, target=0.5, gate="gamma")(X, training=training))
    assert found == pytest.approx(expected, abs=1e-5)
    assert (np.abs(found - as_numpy(model(X, training=False))).max() > 0.1) == training


# --- fit --------------------------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[32 * index : 32 * index + 32], Y[32 * index : 32 * index + 32]


def endless():
    while True:
        yield X[:32], Y[:32]


def passing():
    yield from (Batches()[index] for index in range(3))


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ((X, Y), {"sample_weight": np.linspace(0, 1, 96)}),
        ((X, Y), {"class_weight": {0: 1.0, 1: 3.0}}),
        ((X, Y), {"validation_split": 0.25, "validation_freq": 2}),
        ((X, Y), {"validation_data": (X, Y), "validation_steps": 2, "validation_batch_size": 16}),
        ((X, Y), {"initial_epoch": 1, "epochs": 3}),
        ((X, Y, 32, 2, 0, [keras.callbacks.LambdaCallback()]), {}),
        ((Batches(),), {"batch_size": None}),
        ((endless,), {"steps_per_epoch": 3, "batch_size": None}),
    ],
    ids=[
        "sample_weight",
        "class_weight",
        "split",
        "validation",
        "initial_epoch",
        "positional",
        "PyDataset",
        "endless",
    ],
)
def test_fit_takes_what_fit_takes(data, options):
    if callable(data[0]):
        data = (data[0](),)
    if len(data) > 2:
        search = compiled("fisher")
        search.fit(*data, **options)
        assert search.structure().settings["steps"] == 6
        return
    history = ends_within_budget(compiled("fisher"), *data, **options).history
    assert ("val_loss" in history) == any(name.startswith("validation") for name in options)


def test_data_that_do_not_tell_their_length_need_more_than_one_epoch():
    with pytest.warns(
        UserWarning, match=r"cannot follow a schedule.*steps_per_epoch=... or more epochs|steps_per_epoch"
    ):
        ends_within_budget(compiled("fisher"), passing(), epochs=1, batch_size=None)


def test_tf_data_is_taken_finite_and_endless():
    tf = pytest.importorskip("tensorflow", reason="the data is a tf.data.Dataset")
    data = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(96))).batch(32)
    ends_within_budget(compiled(), data, batch_size=None)
    ends_within_budget(compiled(), data.repeat(), batch_size=None, steps_per_epoch=4)


# --- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("epochs", [8, 3], ids=["before the freeze", "after the freeze"])
def test_a_search_that_is_stopped_early_still_ends_within_its_budget(gate, best, epochs):
    search = compiled(gate)
    stop = callbacks.EarlyStopping("loss", patience=2, min_delta=10.0, restore_best_weights=best)
    history = search.fit(X, Y, epochs=epochs, verbose=0, callbacks=[stop])
    assert len(history.epoch) == 3
    structure = search.structure()
    assert 0.4 < structure.costs["flops"]["structure"] / structure.costs["flops"]["seed"] <= 0.5
    assert morph.verify(search.seed, structure, X[:4]) < 1e-5


def test_learning_rates_are_set_on_the_users_optimizer_and_followed():
    search = compiled("logistic_sigmoid", optimizers.SGD(0.1))
    gates = float(as_numpy(search.optimizer.gate.learning_rate))
    seen = ends_within_budget(
        search,
        epochs=3,
        callbacks=[
            callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
            callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=10.0, min_lr=0),
        ],
    ).history["learning_rate"]
    assert seen[0] == pytest.approx(0.05)
    assert float(as_numpy(search.optimizer.inner.learning_rate)) < 0.01
    assert float(as_numpy(search.optimizer.gate.learning_rate)) >= gates


def test_callbacks_read_what_the_search_sees(tmp_path):
    rows = []
    ends_within_budget(
        compiled(),
        callbacks=callbacks.CallbackList(
            [
                callbacks.CSVLogger(tmp_path / "log.csv"),
                callbacks.LambdaCallback(on_epoch_end=lambda _, logs: rows.append(logs)),
            ],
        ),
    )
    written = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert written[:5] == ["epoch", "alive", "cost", "loss", "target"]
    assert rows[-1]["cost"] <= 0.5


def test_tensorboard_gets_scalars_and_histograms(tmp_path):
    pytest.importorskip("tensorflow", reason="Keras writes TensorBoard's files with TensorFlow")
    ends_within_budget(compiled(), callbacks=[callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=1)])
    assert list(tmp_path.glob("train/events.*"))


@pytest.mark.parametrize("gate", KINDS)
def test_weights_carry_the_whole_state_of_a_search(gate, tmp_path):
    """Saved in the middle by ModelCheckpoint and loaded into a new search, whose own weights and units are others."""
    path = str(tmp_path / "{epoch}.weights.h5")
    search = compiled(gate, optimizers.Adam(0.01), metrics=["accuracy"])
    ends_within_budget(
        search, epochs=4, shuffle=False, callbacks=[callbacks.ModelCheckpoint(path, save_weights_only=True)]
    )
    keras.utils.set_random_seed(99)
    other = morph.StructureSearch(small(), target=0.5, gate=gate)
    other.compile(optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path.format(epoch=2))
    assert other.structure().settings["steps"] == 6
    other.fit(X, Y, epochs=4, initial_epoch=2, batch_size=32, shuffle=False, verbose=0)
    assert other.structure().widths == search.structure().widths
    if gate != "logistic_sigmoid":  # Keras' weights files leave out where random numbers were
        assert other.predict(X, verbose=0) == pytest.approx(search.predict(X, verbose=0), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("gate", KINDS)
def test_a_whole_search_is_saved_and_loaded(gate, tmp_path):
    path = tmp_path / "search.keras"
    search = compiled(gate, optimizers.Adam(0.01), metrics=["accuracy"])
    ends_within_budget(search, callbacks=[callbacks.ModelCheckpoint(str(path))])
    loaded = keras.saving.load_model(path)
    assert loaded.structure() == search.structure()
    assert loaded.predict(X, verbose=0) == pytest.approx(search.predict(X, verbose=0), abs=1e-6)
    assert float(as_numpy(loaded.optimizer.learning_rate)) == pytest.approx(0.01)
    loaded.fit(X, Y, verbose=0)


def test_a_search_by_a_cost_of_ones_own_is_saved_by_its_weights_only(tmp_path):
    search = morph.StructureSearch(
        small(), cost=lambda calls: 1.0 * sum(call.axes.get("out", 0) for call in calls), budget=20
    )
    with pytest.raises(morph.MorphError, match=r"cannot be saved as a whole.*save_weights_only=True.*checkpoint="):
        search.save(tmp_path / "search.keras")


# --- loops of one's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES)
def test_a_loop_of_train_on_batch(gate):
    search = compiled(gate)
    for step in range(1, 13):
        search.train_on_batch(X[:32], Y[:32])
        if step % 2 == 0:
            seen = search.update(step / 12, step)
    assert seen["cost"] <= 0.5
    assert search.structure().costs["flops"]["structure"] <= 0.5 * search.structure().costs["flops"]["seed"]


def gradients_of(search, x, y):
    """Gradients of the task's loss and the penalty, the way each backend's own loops take them."""
    weights = search.trainable_variables
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = LOSS(y, search(x, training=True)) + search.penalty()
        return tape.gradient(loss, [weight.value for weight in weights])
    if BACKEND == "torch":
        search.zero_grad()
        (LOSS(y, search(x, training=True)) + search.penalty()).backward()
        return [weight.value.grad for weight in weights]
    import jax  # pyright: ignore[reportMissingImports]

    def of(values):
        with keras.StatelessScope(list(zip(weights, values, strict=True))):
            return LOSS(y, search(x, training=True)) + search.penalty()

    return jax.grad(of)([weight.value for weight in weights])


@pytest.mark.parametrize("gate", GATES)
def test_a_loop_of_gradients(gate):
    search = compiled(gate)
    for step in range(1, 13):
        gradients = gradients_of(search, X[:32], Y[:32])
        if BACKEND == "torch":
            import torch  # pyright: ignore[reportMissingImports]

            with torch.no_grad():
                search.optimizer.apply(gradients, search.trainable_variables)
        else:
            search.optimizer.apply(gradients, search.trainable_variables)
        if step % 2 == 0:
            seen = search.update(step / 12, step)
    assert seen["cost"] <= 0.5
    assert search.structure().costs["flops"]["structure"] <= 0.5 * search.structure().costs["flops"]["seed"]


@pytest.mark.parametrize("gate", ["fisher", "logistic_sigmoid"])
def test_gates_that_a_loop_forgets_to_train_are_noticed(gate):
    search = compiled(gate)
    with pytest.raises(morph.MorphError, match=r"not trained in a single step.*search\.optimizer"):
        search.update(1.0, 10)


# --- several devices --------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_two_devices_see_the_gradients_and_prices_of_one():
    """In a process of its own, since TensorFlow divides its CPU before it is first used."""
    if BACKEND != "tensorflow":
        pytest.skip("tf.distribute is TensorFlow's")
    script = pathlib.Path(__file__).parent / "two_devices.py"
    environment = {**os.environ, "PYTHONPATH": str(script.parents[3])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for gate in GATES:
        assert found["two"][gate]["replicas"] == 2
        assert 0.4 < found["two"][gate]["share"] <= 0.5
    one, two = found["one"], found["two"]["fisher"]
    assert one["replicas"] == 1
    assert max(one["means"]) > 0
    assert two["means"] == pytest.approx(one["means"], rel=1e-3)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    # By the penalty alone a channel's kernel moves by its price: once, and not once for each replica.
    assert found["moved"] == pytest.approx([1.0] * 12, rel=1e-3)
    # A run that is cut in the middle goes on over both devices, and as on one.
    for name, steps in (("cut", 8), ("taught", 8), ("narrowed", 16)):
        two, one = found[name]
        assert (two["replicas"], one["replicas"]) == (2, 1)
        assert two["widths"] == one["widths"] != [12, 12, 2]
        assert two["iterations"] == one["iterations"] == steps
        assert (two["networks"] == one["networks"] > 2) == (name == "narrowed")
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    assert found["taught"][0]["losses"][-1] != pytest.approx(found["cut"][0]["losses"][-1], rel=1e-3)
