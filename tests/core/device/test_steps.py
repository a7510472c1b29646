"""Devices that take channels by the handful: what a calibration sees of it, and `multiple_of="auto"`."""

import dataclasses
import math
import warnings

import keras
import numpy as np
import pytest

import morph_core as morph
from morph_core.cost.costs import flops
from morph_core.device.steps import steps_of
from morph_core.device.timing import Timing
from tests.core.calibrations import timed_by
from tests.core.networks import mlp, residual, two_moons

RUNTIME = {"tensorflow": "tf.function", "jax": "xla"}.get(keras.backend.backend())
needs_runtime = pytest.mark.skipif(RUNTIME is None, reason="no runtime can be measured on this backend")


@pytest.fixture
def calibrated(monkeypatch, tmp_path):
    """Calibrates on a device that needs as long for any number of channels as for the next multiple of `pads_to`."""

    def calibrate(model, pads_to, noise=0.0):
        rng = np.random.default_rng(0)

        def compiled(run, one):
            widths = np.where(run.graph.prunable, np.ceil(one.widths / pads_to) * pads_to, one.widths)
            calls = run.graph.call_widths(widths.astype(float))
            chosen = calls if one.call is None else [calls[one.call]]
            milliseconds = sum(1e-4 * float(flops(call)) + 0.01 for call in chosen if call.makes)
            return lambda: milliseconds * run._copies(one)

        monkeypatch.setattr(Timing, "_compiled", compiled)
        timed_by(monkeypatch, lambda: rng.uniform(1 - noise, 1 + noise))
        return morph.calibrate(model, tmp_path / "made.json", runtime=RUNTIME, points=3, networks=2)

    return calibrate


def widths_of(structure):
    """The greatest number that all learned widths are multiples of."""
    return math.gcd(*(group["width"] for group in structure.groups.values()))


@needs_runtime
@pytest.mark.parametrize("pads_to", [1, 8, 16, 32])
def test_the_number_that_a_device_pads_to_is_found(calibrated, pads_to):
    calibration = calibrated(mlp((128, 96)), pads_to)
    assert calibration.multiple_of == pads_to


@needs_runtime
@pytest.mark.parametrize("pads_to", [2, 4])
def test_steps_that_waste_next_to_nothing_are_none(calibrated, pads_to):
    """A layer of 65 channels that takes as long as one of 66 or 68 wastes 2 or 5 %."""
    calibration = calibrated(mlp((128, 96)), pads_to)
    assert 0 < calibration.waste["1"] < 0.06
    assert calibration.multiple_of == 1


@needs_runtime
def test_what_repeats_badly_is_no_step(calibrated):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        calibration = calibrated(mlp((128, 96)), 1, noise=0.3)
    assert calibration.repeatability["entries"] > 0.1
    assert calibration.multiple_of == 1


@needs_runtime
def test_networks_of_narrow_layers_have_no_steps(calibrated):
    model = residual(16)
    assert steps_of(morph.ChannelGraph.from_model(model)) == []
    calibration = calibrated(model, 8)
    assert calibration.waste == {} and calibration.multiple_of == 1


def test_the_dearest_calls_are_timed_just_above_whole_numbers_of_vectors():
    graph = morph.ChannelGraph.from_model(mlp((128, 96, 40), inputs=8))
    steps = steps_of(graph)
    assert (graph.trace.calls[steps[0].call].name, graph.groups[steps[0].group].name) == ("d2", "d1")
    assert steps[0].widths == (64, 65, 66, 68, 72, 80, 96, 97, 98, 100, 104, 112, 128)
    assert {graph.groups[one.group].name for one in steps} == {"d1", "d2"}


@needs_runtime
def test_auto_keeps_a_search_on_the_multiples_of_the_device(calibrated, tmp_path):
    x, y = two_moons(256)
    model = mlp((128, 96), inputs=8)
    calibrated(model, 16)
    cost = f"latency:{tmp_path / 'made.json'}"
    search = morph.StructureSearch(model, cost=cost, target=0.6, multiple_of="auto")
    search.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search.fit(x, y, batch_size=64, epochs=3, verbose=0)
    structure = search.structure()
    assert structure.settings["multiple_of"] == 16
    assert "'auto'" in structure.settings["multiple_of_reason"]
    assert widths_of(structure) % 16 == 0
    graph = search.graph
    for found in (
        morph.uniform(graph, cost, target=0.6, multiple_of="auto"),
        morph.expand(structure, graph, cost, target=0.9, multiple_of="auto"),
    ):
        assert found.settings["multiple_of"] == 16
        assert widths_of(found) % 16 == 0


def test_auto_needs_a_latency_that_was_measured():
    graph = morph.ChannelGraph.from_model(mlp())
    message = r"multiple_of='auto' takes the number from a calibration, and {} has none.*morph-tfx calibrate, or give"
    with pytest.raises(morph.MorphError, match=message.format("flops")):
        morph.StructureSearch(mlp(), target=0.5, multiple_of="auto")
    with pytest.raises(morph.MorphError, match="uniform: " + message.format("latency:v100")):
        morph.uniform(graph, "latency:v100", target=0.5, multiple_of="auto")
    with pytest.raises(morph.MorphError, match="expand: " + message.format("flops")):
        morph.expand(morph.describe(graph, {"d1": 10}), graph, target=0.5, multiple_of="auto")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a runtime of TensorFlow")
def test_what_was_promised_is_measured_on_the_machine_of_the_calibration(tmp_path):
    model = mlp((256, 256), inputs=256)
    graph = morph.ChannelGraph.from_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a busy machine
        calibration = morph.calibrate(model, tmp_path / "here.json", batch_size=8, points=2, networks=2, repeats=3)
    structure = morph.uniform(graph, "params", target=0.1)
    found = morph.measure(model, structure, calibration)
    assert found.predicted == graph.cost(morph.latency(calibration), structure)
    assert found.seed > 0 and found.structure > 0 and found.repeatability >= 0
    assert found.on.startswith("tf.function, float32, batch 8, ")
    elsewhere = dataclasses.replace(
        calibration, measured_on={**calibration.measured_on, "machine": "another, 64 cores"}
    )
    with pytest.raises(
        morph.MorphError, match=r"measured on another, 64 cores, .* A measurement here would say nothing"
    ):
        morph.measure(model, structure, elsewhere)
