"""A pipeline that measures this machine, searches by what it measured, and writes the network for devices."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console

import morph_core as morph
from morph_tfx.pipelines.config import PipelineConfig, load_config
from morph_tfx.pipelines.local import demo
from morph_tfx.pipelines.local.result import RunResult
from morph_tfx.pipelines.local.runner import run_pipeline
from morph_tfx.pipelines.local.summary import show_summary
from tests.core.extras import has_onnx

pytestmark = pytest.mark.thorough

SETTINGS = {
    "beam": {"runner": "direct"},
    "hparams": {"widths": [16, 24], "learning_rate": 0.003},
    "cost": "latency",
    "target": {"latency": 1.0, "flops": 0.6},
    "calibrate": {"device": "here", "points": 2, "networks": 1, "repeats": 5},
    "cycles": 1,
    "finish": "in_place",
    "search": {"epochs": 2, "batch_size": 64},
    "retrain": {"epochs": 4, "batch_size": 64},
    "evaluate": {"lower_bound": 0.5},
    "export": {
        "formats": ["litert", "litert-int8", *(["onnx"] if has_onnx() else [])],
        "keep_slower": True,
        "max_accuracy_loss": 0.1,
    },
}


def prepared(root: Path, **settings) -> PipelineConfig:
    file = demo.prepare(root)
    values = {**yaml.safe_load(file.read_text()), **SETTINGS, **settings}
    del values["expand_to"]
    file.write_text(yaml.safe_dump(values))
    return load_config(file)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> PipelineConfig:
    return prepared(tmp_path_factory.mktemp("devices"))


@pytest.fixture(scope="module")
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def result(config, printed) -> RunResult:
    with contextlib.redirect_stdout(printed):
        return run_pipeline(config)


@pytest.fixture(scope="module")
def exported(result) -> Path:
    return Path(result.step("Exporter").outputs["exported_model"][0].uri)


def test_the_structure_is_within_what_was_measured(result):
    structure = morph.Structure.load(result.structures[-1] / "structure.json")
    assert structure.goal == {"target": {"latency:here": 1.0, "flops": 0.6}}
    for name, share in (("latency:here", 1.0), ("flops", 0.6)):
        assert structure.costs[name]["structure"] <= share * structure.costs[name]["seed"]


def test_the_file_knows_the_held_out_digits_as_the_pushed_model_does(result, exported):
    holdout = demo.load_digits()["holdout"]
    interpreter = tf.lite.Interpreter(str(exported / "litert.tflite"))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    shape = runner.get_input_details()[name]["shape"]
    # What the demo's Transform does to an image.
    answers = [next(iter(runner(**{name: (image / 16).reshape(shape)}).values())) for image in holdout.images]
    accuracy = float((np.concatenate(answers).argmax(-1) == holdout.labels).mean())
    assert accuracy == pytest.approx(demo.pushed_accuracy(result.pushed_model, holdout), abs=0.01)


def test_the_run_tells_of_device_and_files(printed, exported):
    text = printed.getvalue()
    assert "DeviceCalibrator" in text and "Measured on " in text
    forms = json.loads((exported / "export.json").read_text())["forms"]
    for form in forms:
        assert f"{form['format']}: {'kept' if form['file'] else 'not kept'}" in text
    assert f"Files: {exported}" in text


def test_the_account_says_what_the_clock_said_of_the_result(result, config):
    console = Console(record=True, width=200)
    show_summary(result, config, console=console)
    said = re.search(
        r"^latency +Measured: [\d.e-]+ ms per example, .* the predicted ", console.export_text(), re.MULTILINE
    )
    assert said is not None


def test_a_second_run_measures_and_exports_nothing(config, result):
    assert run_pipeline(config, say=lambda line: None).cached
