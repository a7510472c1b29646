"""`morph-tfx export` and `morph-tfx calibrate`: what they say, what they write, what they refuse."""

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from morph_tfx.pipelines.commands.cli import cli
from tests.core.calibrations import calibration, forget_warnings
from tests.core.extras import needs_onnx, without_onnx


def invoke(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model, and examples of it."""
    place = tmp_path_factory.mktemp("model")
    inputs = keras.Input((64,), name="pixels")
    hidden = layers.Dense(32, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(5, name="head")(hidden))
    model.save(place / "model.keras")
    images = np.random.default_rng(0).normal(size=(8, 64)).astype("float32")
    np.savez(place / "examples.npz", x=images, y=np.asarray(model(images)).argmax(-1))
    return place


def test_a_model_is_written_for_litert(folder, tmp_path):
    result = invoke(
        "export", folder / "model.keras", "--examples", folder / "examples.npz",
        "--output", tmp_path / "model.tflite", "--keep-slower",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Compared on 8 examples: outputs differ by " in result.output
    assert "Accuracy: 100.0%, of the model 100.0%." in result.output
    assert f"Size: {(tmp_path / 'model.tflite').stat().st_size:,} bytes." in result.output


@needs_onnx
def test_the_name_of_the_file_says_that_it_is_for_onnx(folder, tmp_path):
    path = tmp_path / "model.onnx"
    examples = folder / "examples.npz"
    result = invoke("export", folder / "model.keras", "--examples", examples, "--output", path, "--keep-slower")
    assert result.exit_code == 0, result.output
    assert "Accuracy: 100.0%, of the model 100.0%." in result.output
    assert result.output.endswith(f"Wrote {path}\n") and path.is_file()


@without_onnx
def test_a_format_that_is_not_installed_names_its_extra(folder, tmp_path):
    path = tmp_path / "model.onnx"
    result = invoke("export", folder / "model.keras", "--examples", folder / "examples.npz", "--output", path)
    assert result.exit_code == 2
    assert "is not installed. Install what is missing with: pip install 'morph-tfx[onnx]'" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_off_is_not_written(folder, tmp_path):
    result = invoke(
        "export", folder / "model.keras", "--examples", folder / "examples.npz",
        "--output", tmp_path / "model.tflite", "--format", "litert-int8", "--tolerance", 1e-9,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "model.tflite was not written: its outputs differ from the model's by" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as examples"),
        ({"x": np.array([{"an": "object"}])}, "cannot be read as examples"),
        ({"a": np.zeros((2, 64)), "b": np.zeros((2, 64))}, "has the arrays a, b, but no input pixels"),
    ],
)
def test_examples_that_cannot_be_read_are_refused(folder, tmp_path, content, message):
    if content is not None:
        np.savez(tmp_path / "examples.npz", **content)
    result = invoke(
        "export", folder / "model.keras", "--examples", tmp_path / "examples.npz", "--output", tmp_path / "m.tflite"
    )
    assert result.exit_code == 2
    assert result.output.startswith("morph-tfx: ") and message in result.output


def test_a_model_is_measured_and_its_file_is_a_cost(folder, tmp_path):
    path = tmp_path / "here.json"
    small = ("--points", 2, "--networks", 2, "--repeats", 5)
    result = invoke("calibrate", folder / "model.keras", "--output", path, *small)
    assert result.exit_code == 0, result.output
    assert "tf.function, float32, batch 1" in result.output
    assert "Measured twice, operations differ by " in result.output
    assert [file.name for file in tmp_path.iterdir()] == ["here.json"]
    counted = invoke("cost", folder / "model.keras", "--cost", f"latency:{path}", "--json")
    assert counted.exit_code == 0, counted.output
    data = json.loads(counted.stdout)
    assert data["costs"]["latency:here"]["seed"] > 0


def test_a_calibration_from_elsewhere_is_told_of_beside_the_costs(folder, tmp_path, monkeypatch):
    forget_warnings(monkeypatch)
    (tmp_path / "phone.json").write_text(calibration("phone", "a phone").to_json())
    result = invoke("cost", folder / "model.keras", "--cost", f"latency:{tmp_path / 'phone.json'}")
    assert result.exit_code == 0, result.output
    assert "Calibration 'phone' was measured on a phone, this is " in " ".join(result.output.split())


def test_a_place_that_cannot_be_written_ends_in_one_message(folder, tmp_path):
    result = invoke("calibrate", folder / "model.keras", "--output", tmp_path / "none" / "here.json")
    assert result.exit_code == 2
    assert "cannot be written (No such file or directory)" in result.output
