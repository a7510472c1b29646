"""The sections on devices: what they default to, and what cannot be."""

import pytest

from tests.pipelines.config.sample import config_of, expect_refusal


def test_nothing_is_measured_or_exported_unless_asked_for():
    assert (config_of().calibrate, config_of().export) == (None, None)


def test_the_shortest_sections_have_the_defaults_of_the_library():
    config = config_of("cost: latency", "calibrate: {}", "export: {}")
    assert config.calibrate is not None and config.export is not None
    assert config.calibrate.model_dump() == {
        "device": "device",
        "runtime": "tf.function",
        "dtype": "float32",
        "batch_size": 1,
        "points": 6,
        "networks": 8,
        "repeats": 30,
    }
    assert config.export.model_dump() == {
        "formats": ("litert",),
        "batch_size": 1,
        "tolerances": {},
        "max_accuracy_loss": None,
        "keep_slower": False,
    }


@pytest.mark.parametrize(
    "changes",
    [
        ["cost: latency"],
        ["target: {latency: 0.5, params: 0.8}"],
        ["cost: latency", "target:", "budget: {latency_ms: 3}"],
    ],
)
def test_latency_may_stand_wherever_a_cost_may(changes):
    assert config_of("calibrate: {runtime: xla}", *changes).calibrate is not None


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (["cost: latency"], ["there is no 'calibrate'", "calibrate: {runtime: tf.function}"]),
        (["target: {latency: 0.5}"], ["there is no 'calibrate'"]),
        (["calibrate: {}"], ["calibrate: nothing is counted by what would be measured, since cost is flops"]),
        (["cost: latency", "calibrate: {runtime: onnx}"], ["calibrate: Unknown runtime 'onnx'", "litert"]),
        (["cost: latency", "calibrate: {runtime: litert, dtype: float16}"], ["cannot run in 'float16'"]),
        (["cost: latency", "calibrate: {points: 1}"], ["calibrate: calibrate: points is 1; expected"]),
        (["cost: latency", "calibrate: {device: a/b}"], ["calibrate.device", "letters, digits"]),
        (["cost: latency", "calibrate: {device: cpu}"], ["'cpu' is the name of a device whose datasheet is known"]),
        (["cost: latency", "calibrate: {batch: 1}"], ["calibrate.batch"]),
        (["cost: latency", "calibrate: {}", "target: {latency: 1.5}"], ["target"]),
        (["export: {formats: [tflite]}"], ["export: Unknown format 'tflite'", "litert-int8"]),
        (["export: {formats: []}"], ["export: formats is []; expected a list"]),
        (["export: {tolerances: {onnx: 0.1}}"], ["export: tolerances names 'onnx'"]),
        (["export: {max_accuracy_loss: 2}"], ["export: max_accuracy_loss is 2"]),
        (["export: {batch_size: 0}"], ["export: export: batch_size is 0"]),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(changes, parts):
    expect_refusal(changes, parts)
