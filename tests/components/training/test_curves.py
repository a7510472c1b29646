"""TensorBoard's start, and the curves of widths that a search leaves for it."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import morph_core as morph
from morph_tfx.components.training.curves import WIDTHS, WidthCurves

STEPS = 8


def written(log_dir) -> dict[str, list[tuple[int, float]]]:
    """The points of every curve, by its name: steps and values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((log_dir / WIDTHS).glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    return found


@pytest.fixture
def fit(tmp_path):
    """fit(epochs, **arguments) searches with the curves' callback, and returns the search."""

    def run(epochs: int, every: int = 4, **arguments) -> morph.StructureSearch:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(16, activation="relu", name="second")(
            keras.layers.Dense(32, activation="relu", name="first")(inputs)
        )
        model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        search = morph.StructureSearch(model, target=0.4, gate="fisher", **arguments)
        search.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x = np.random.default_rng(0).normal(size=(STEPS * 16, 8)).astype("float32")
        curves = WidthCurves(str(tmp_path), every, STEPS)
        search.fit(x, (x[:, 0] > 0).astype(int), batch_size=16, epochs=epochs, verbose=0, callbacks=[curves])
        return search

    return run


def test_each_layer_has_a_curve_that_ends_at_its_width(fit, tmp_path):
    search = fit(4)
    curves = written(tmp_path)
    assert set(curves) == {"width/first", "width/second"}
    for name, seed in (("first", 32), ("second", 16)):
        steps, widths = zip(*curves[f"width/{name}"], strict=True)
        assert list(steps) == list(range(4, 4 * STEPS + 1, 4))
        assert widths[0] > widths[-1] == search.structure().widths[name] < seed


def test_points_are_as_far_apart_as_was_asked_for_and_one_is_at_the_end_of_each_epoch(fit, tmp_path):
    fit(2, every=5)
    assert [step for step, _ in written(tmp_path)["width/first"]] == [5, 8, 13, 16]


def test_a_network_that_is_cut_has_no_curve_from_there_on(fit, tmp_path):
    fit(4, search_fraction=0.5)
    assert max(step for step, _ in written(tmp_path)["width/first"]) == 2 * STEPS


def test_a_training_without_a_search_writes_none(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[WidthCurves(str(tmp_path), 1, 1)])
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_starts_in_this_environment(tmp_path):
    """Every run prints its command. That of TensorFlow 2.16 needs pkg_resources, which new setuptools are without."""
    start = "from tensorboard import default, program; program.TensorBoard(default.get_plugins()).configure(argv=ARGV)"
    code = start.replace("ARGV", repr(["tensorboard", "--logdir", str(tmp_path), "--port", "0"]))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + "\nThe environment is older than uv.lock: run make setup."
