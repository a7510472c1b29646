"""A run that dies goes on from its last whole epoch and ends as if it had lived; other runs it does not touch."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.search.checkpoint import fit_with_checkpoints
from tests.core.networks import thorough_but
from tests.core.search import killed_run
from tests.core.search.killed_run import EPOCHS, X, Y, searched

SCRIPT = pathlib.Path(killed_run.__file__)


class Died(Exception):
    pass


class DieIn(keras.callbacks.Callback):
    """Ends training after the first batch of this epoch; cheaper than a process."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.last:
            raise Died


def interrupted(place, epoch=4, **options):
    """Leaves checkpoints of a search that got into this epoch, counted from 0."""
    with pytest.raises(Died):
        searched(place, callbacks=[DieIn(epoch)], **options)


def names(place):
    return sorted(path.name for path in pathlib.Path(place).iterdir())


@pytest.mark.thorough
def test_a_search_killed_at_every_kind_of_point_ends_as_one_that_lived(tmp_path):
    place = tmp_path / "checkpoints"

    def start(*point):
        command = [sys.executable, str(SCRIPT), str(place), *map(str, point)]
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[3])}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == (-signal.SIGKILL if point else 0), done.stderr[-3000:]
        return done.stdout

    points = [
        (0, 1),  # before there is a checkpoint
        (2, 1),  # in the middle of an epoch
        ("--while-writing", 5),
        (EPOCHS - 1, 0),  # after the structure is decided
    ]
    for point in points:
        assert start(*point) == ""
    structure = morph.Structure.from_json(start())
    begun = [int(line) for line in (tmp_path / "epochs").read_text().split()]
    assert begun == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11, 11]
    assert names(place) == [f"epoch-{epoch:06}.npz" for epoch in (EPOCHS - 1, EPOCHS)]
    assert structure.costs["flops"]["structure"] <= 0.4 * structure.costs["flops"]["seed"]
    lived, _ = searched(None)
    assert structure == lived.structure()


@pytest.mark.parametrize("gate", thorough_but(sorted(set(morph.GATES) - {"gamma"}), quick=["fisher"]))
def test_an_interrupted_search_is_continued_to_the_last_bit(gate, tmp_path):
    expected, whole = searched(None, gate=gate)
    interrupted(tmp_path, gate=gate)
    search, history = searched(tmp_path, seed=7, gate=gate)
    assert search.structure() == expected.structure()
    assert history.history == whole.history
    assert history.epoch == list(range(EPOCHS))
    for mine, theirs in zip(search.variables, expected.variables, strict=True):
        assert (as_numpy(mine) == as_numpy(theirs)).all()


def test_the_units_of_gamma_are_those_of_the_first_start(tmp_path):
    """They come from the weights at the start, which a second start no longer has."""

    def start(checkpoint, *callbacks):
        gamma = {"moving_mean_initializer": "zeros", "gamma_initializer": keras.initializers.RandomUniform(0.5, 1.5)}
        inputs = keras.Input((8,))
        y = layers.ReLU()(layers.BatchNormalization(**gamma)(layers.Dense(16, use_bias=False, name="d")(inputs)))
        search = morph.StructureSearch(keras.Model(inputs, layers.Dense(2)(y)), target=0.5, gate="gamma")
        search.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        search.fit(X, Y, epochs=6, verbose=0, shuffle=False, callbacks=list(callbacks), checkpoint=checkpoint)
        return search.structure()

    keras.utils.set_random_seed(0)
    expected = start(None)
    keras.utils.set_random_seed(0)
    with pytest.raises(Died):
        start(tmp_path, DieIn(3))
    keras.utils.set_random_seed(1)
    assert start(tmp_path) == expected


def test_a_search_that_is_over_is_taken_up_again_without_training(tmp_path, capsys):
    search, history = searched(tmp_path)
    again, remembered = searched(tmp_path, seed=3, callbacks=[DieIn(0), DieIn(EPOCHS - 1)])
    assert again.structure() == search.structure()
    assert remembered.history == history.history
    assert (again.predict(X, verbose=0) == search.predict(X, verbose=0)).all()
    again.fit(X, Y, batch_size=32, epochs=EPOCHS, shuffle=False, checkpoint=tmp_path)
    assert f"continuing after epoch {EPOCHS} of {EPOCHS}" in capsys.readouterr().out


def test_a_search_that_stopped_early_stays_stopped(tmp_path):
    def stop():
        return keras.callbacks.EarlyStopping("loss", patience=1, min_delta=10.0, restore_best_weights=True)

    search, history = searched(tmp_path, callbacks=[stop()])
    again, remembered = searched(tmp_path, seed=3, callbacks=[stop()])
    assert remembered.epoch == history.epoch == [0, 1]
    assert again.structure() == search.structure()
    assert (again.predict(X, verbose=0) == search.predict(X, verbose=0)).all()


@pytest.mark.parametrize("kind", thorough_but(["truncated", "changed", "empty", "pickled"], quick=["changed"]))
def test_a_damaged_checkpoint_gives_way_to_the_one_before(kind, tmp_path):
    interrupted(tmp_path)
    newest = tmp_path / names(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    with np.load(newest) as entries:
        kernel = entries[max(entries.files, key=lambda name: entries[name].ndim)]
    content[content.index(kernel.tobytes()) + 1] ^= 1
    if kind == "pickled":
        np.savez(newest, meta=np.array([{"format": 1}], dtype=object), allow_pickle=True)
    else:
        newest.write_bytes({"truncated": content[:middle], "changed": content, "empty": b""}[kind])
    with pytest.warns(UserWarning, match=r"epoch-000004\.npz in .* is damaged .* left aside"):
        search, history = searched(tmp_path, seed=7)
    assert history.epoch == list(range(EPOCHS))
    lived, _ = searched(None)
    assert search.structure() == lived.structure()


@pytest.fixture(scope="module")
def one_run():
    """A run in one piece that was never interrupted, cut after 3 of its 12 epochs."""
    return searched(None, search_fraction=0.25)


@pytest.mark.parametrize(
    ("epoch", "left"),
    [
        (2, ["epoch-000001", "epoch-000002"]),
        (3, ["epoch-000002", "epoch-000003"]),  # the search is over, the network has no epoch of its own
        (5, ["epoch-000002", "epoch-000003", "result-000004", "result-000005"]),
    ],
)
def test_a_run_in_one_piece_is_continued_in_either_part_to_the_last_bit(epoch, left, one_run, tmp_path, capsys):
    expected, whole = one_run
    interrupted(tmp_path, epoch, search_fraction=0.25)
    assert names(tmp_path) == [f"{name}.npz" for name in left]
    search, history = searched(tmp_path, seed=7, search_fraction=0.25)
    assert search.structure() == expected.structure()
    assert history.history == whole.history
    assert history.epoch == list(range(EPOCHS))
    for kind in ("variables", "optimizer"):
        mine, theirs = (getattr(it.result(), kind) for it in (search, expected))
        for one, other in zip(getattr(mine, "variables", mine), getattr(theirs, "variables", theirs), strict=True):
            assert (as_numpy(one) == as_numpy(other)).all()
    # And when it is over, it is only taken up again.
    again, remembered = searched(tmp_path, seed=3, callbacks=[DieIn(3), DieIn(11)], search_fraction=0.25)
    assert remembered.history == history.history
    assert (again.result().predict(X, verbose=0) == search.result().predict(X, verbose=0)).all()
    with pytest.raises(morph.MorphError, match=r"another run: search_fraction is 0\.5 here and 0\.25 there"):
        searched(tmp_path, search_fraction=0.5)


def test_a_run_that_stopped_before_its_cut_stays_stopped(tmp_path):
    def stop():
        return keras.callbacks.EarlyStopping("loss", patience=1, min_delta=10.0, restore_best_weights=True)

    search, history = searched(tmp_path, callbacks=[stop()], search_fraction=0.5)
    again, remembered = searched(tmp_path, seed=3, callbacks=[stop()], search_fraction=0.5)
    assert remembered.epoch == history.epoch == [0, 1]
    assert again.structure() == search.structure()
    assert (again.result().predict(X, verbose=0) == search.result().predict(X, verbose=0)).all()


@pytest.mark.filterwarnings("ignore:The checkpoint")
def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path):
    interrupted(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"PK")
    with pytest.raises(morph.MorphError, match=r"None of the checkpoints .* can be read .*Empty that place"):
        searched(tmp_path)
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 13}, r"belongs to another run: network is \"sha256:.*give this run a place of its own"),
        ({"target": 0.3}, r"another run: goal is .*0\.3.* here and .*0\.4.* there"),
        ({"gate": "fisher"}, r"another run: gate is \"fisher\" here and \"logistic_sigmoid\" there"),
        ({"epochs": EPOCHS + 1}, r"another run: epochs is 13 here and 12 there"),
        ({"optimizer": "sgd"}, r"does not fit this model and its optimizer: variable optimizer_\d+ has shape"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change, message, tmp_path):
    interrupted(tmp_path, epoch=1)
    asked = {"width": 12, "target": 0.4, "gate": "logistic_sigmoid", "epochs": EPOCHS, "optimizer": "adam"} | change
    start = x = keras.Input((8,))
    for name in ("one", "two"):
        x = layers.Dropout(0.2)(layers.Dense(asked["width"], activation="relu", name=name)(x))
    model = keras.Model(start, layers.Dense(2, name="head")(x))
    search = morph.StructureSearch(model, target=asked["target"], gate=asked["gate"])
    search.compile(asked["optimizer"], "sparse_categorical_crossentropy")
    before = [as_numpy(variable).copy() for variable in search.variables]
    with pytest.raises(morph.MorphError, match=message):
        search.fit(X, Y, epochs=asked["epochs"], verbose=0, checkpoint=tmp_path)
    assert all((as_numpy(variable) == old).all() for variable, old in zip(search.variables, before, strict=True))


def test_what_a_dead_process_left_half_written_goes_and_other_files_stay(tmp_path):
    (tmp_path / "epoch-000003.npz.0a1b2c3d.unfinished").write_text("half")
    (tmp_path / "notes.txt").write_text("mine")
    searched(tmp_path)
    assert names(tmp_path) == [f"epoch-{EPOCHS - 1:06}.npz", f"epoch-{EPOCHS:06}.npz", "notes.txt"]


def test_a_diverged_epoch_is_not_a_place_to_continue_from(tmp_path):
    def ruin(epoch, logs):
        if epoch >= 2:
            logs["loss"] = float("nan")

    searched(tmp_path, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=ruin)])
    assert names(tmp_path) == ["epoch-000001.npz", "epoch-000002.npz"]


def test_data_of_unknown_length_keep_their_schedule(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="the data is a tf.data.Dataset")

    def start(checkpoint, *callbacks):
        keras.utils.set_random_seed(0)
        search = morph.StructureSearch(killed_run.small(), target=0.4, gate="logistic_sigmoid")
        search.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32).filter(lambda *_: True)
        search.fit(data, epochs=6, verbose=0, callbacks=list(callbacks), checkpoint=checkpoint)
        return search.structure()

    expected = start(None)
    with pytest.raises(Died):
        start(tmp_path, DieIn(3))
    assert start(tmp_path) == expected


@pytest.mark.parametrize(
    "settings", thorough_but([{}, {"use_ema": True}, {"gradient_accumulation_steps": 2}], quick=[{}])
)
def test_an_ordinary_model_is_continued_as_well(settings, tmp_path):
    def start(checkpoint, seed, *callbacks):
        keras.utils.set_random_seed(seed)
        model = killed_run.small()
        model.compile(
            keras.optimizers.Adam(0.01, **settings), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        plateau = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate)
        arguments = {"x": X, "y": Y, "epochs": 5, "shuffle": False, "verbose": 0, "validation_data": (X, Y)}
        arguments["callbacks"] = [plateau, *callbacks]
        if checkpoint is None:
            return model, model.fit(**arguments)
        return model, fit_with_checkpoints(model, arguments, checkpoint, {"structure": "sha256:1"})

    expected, whole = start(None, 0)
    with pytest.raises(Died):
        start(tmp_path, 0, DieIn(3))
    model, history = start(tmp_path, 1)
    assert history.history == whole.history
    assert (model.predict(X, verbose=0) == expected.predict(X, verbose=0)).all()


def test_types_that_numpy_does_not_know_are_kept(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = killed_run.small()
        twin = killed_run.small()
    finally:
        keras.config.set_dtype_policy(before)
    for it in (model, twin):
        it.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        fit_with_checkpoints(it, {"x": X, "y": Y, "epochs": 1, "verbose": 0}, tmp_path, {})
    for mine, theirs in zip(model.variables, twin.variables, strict=True):
        assert (as_numpy(mine).astype("float32") == as_numpy(theirs).astype("float32")).all()


def test_a_checkpoint_is_arrays_and_json(tmp_path):
    searched(tmp_path)
    with np.load(tmp_path / names(tmp_path)[-1], allow_pickle=False) as entries:
        meta = json.loads(entries["meta"].tobytes())
        assert all(entries[name].dtype.kind in "biuf" for name in entries.files)
    assert meta["epoch"] == EPOCHS
    assert meta["identity"]["goal"] == {"cost": "flops", "target": 0.4}
