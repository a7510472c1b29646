"""DeviceCalibrator measures this machine, and the searches count by what it wrote."""

import pathlib
import re

import pytest
from tfx.proto import trainer_pb2

import morph_core as morph
from morph_core.device import calibrate as calibrating
from morph_core.device.stopwatch import Stopwatch
from morph_tfx.components import (
    DeviceCalibration,
    DeviceCalibrator,
    MorphTrainer,
    StructureExporter,
    UniformWidths,
)
from morph_tfx.components.artifacts.structure_properties import counted_as
from morph_tfx.components.training import user_module
from tests.components.conftest import RAW_DIGITS, channel, fails_cleanly, make
from tests.core.calibrations import calibration as by_hand
from tests.core.calibrations import forget_warnings

QUICK = {"points": 2, "networks": 1, "repeats": 3}


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    """What the raw digits' network takes on this machine."""
    artifact = make(DeviceCalibration, tmp_path_factory.mktemp("calibration") / "1")
    component = DeviceCalibrator(module_file=RAW_DIGITS, device="edge-node", **QUICK)
    component.executor_spec.executor_class().Do({}, {"calibration": [artifact]}, component.exec_properties)
    return artifact


@pytest.fixture
def search(examples, schema, calibration):
    def make_component(**arguments):
        defaults = {
            "examples": channel(examples),
            "schema": channel(schema),
            "module_file": RAW_DIGITS,
            "calibration": channel(calibration),
            "cost": "latency",
            "gate": "fisher",
            "train_args": trainer_pb2.TrainArgs(num_steps=20),
            "custom_config": {"epochs": 2},
        }
        if not {"target", "budget", "strength"} & set(arguments):
            arguments["target"] = 0.95
        return MorphTrainer(**{**defaults, **arguments})

    return make_component


def a_calibration(tmp_path: pathlib.Path, machine: str = "") -> DeviceCalibration:
    artifact = make(DeviceCalibration, tmp_path / "by hand")
    path = pathlib.Path(artifact.uri, "calibration.json")
    path.parent.mkdir(parents=True)
    path.write_text(by_hand("phone", machine).to_json())
    return artifact


def test_the_artifact_is_a_calibration_of_this_machine(calibration):
    (file,) = pathlib.Path(calibration.uri).iterdir()
    assert file.name == "calibration.json"
    cost = morph.cost_of(f"latency:{file}")
    assert cost.name == "latency:edge-node"
    graph = morph.ChannelGraph.from_model(user_module.load({"module_file": RAW_DIGITS}).seed({}))
    assert graph.cost(cost) > 0
    assert calibration.get_string_custom_property("name") == "edge-node"
    assert calibration.get_string_custom_property("runtime") == "tf.function"
    assert calibration.get_int_custom_property("batch_size") == 1
    assert calibration.get_float_custom_property("networks_repeat") >= 0


def test_a_search_counts_by_the_calibration(search, run, tmp_path, monkeypatch):
    """By this one, milliseconds are FLOPs."""
    forget_warnings(monkeypatch)
    here = a_calibration(tmp_path, machine="a phone")
    component = search(calibration=channel(here), target=0.5)
    with pytest.warns(UserWarning, match="'phone' was measured on"):
        outputs = run(component)
    structure = StructureExporter(outputs["structure"]).read()
    assert structure.goal == {"cost": "latency:phone", "target": 0.5}
    latency, flops = structure.costs["latency:phone"], structure.costs["flops"]
    assert latency["structure"] <= 0.5 * latency["seed"]
    assert latency["seed"] == pytest.approx(flops["seed"] / 1e6)
    assert latency["structure"] == pytest.approx(flops["structure"] / 1e6)
    assert counted_as("latency", structure) == "latency:phone"
    assert counted_as("flops", structure) == "flops"


def test_cycles_and_widening_count_by_it_too(search, run, tmp_path):
    here = channel(a_calibration(tmp_path))
    first = run(search(calibration=here, target=0.5, expand_to=0.8), "first")
    again = search(
        calibration=here,
        structure=channel(first["structure"]),
        target={"latency": 0.4, "params": 0.9},
        expand_to=0.9,
    )
    wide = StructureExporter(first["structure"]).read().costs["latency:phone"]
    assert 0.5 * wide["seed"] < wide["structure"] <= 0.8 * wide["seed"]
    structure = StructureExporter(run(again, "again")["structure"]).read()
    assert structure.costs["latency:phone"]["structure"] <= 0.9 * structure.costs["latency:phone"]["seed"]


def test_a_file_that_a_cost_names_is_searched_by(search, run, tmp_path):
    """Without a component: the path stands in the cost."""
    path = pathlib.Path(a_calibration(tmp_path).uri, "calibration.json")
    component = search(calibration=None, cost=f"latency:{path}", target=0.5, expand_to=0.9)
    structure = StructureExporter(run(component)["structure"]).read()
    assert structure.costs["latency:phone"]["structure"] <= 0.9 * structure.costs["latency:phone"]["seed"]


def test_uniform_widths_count_by_it(run, tmp_path):
    here = channel(a_calibration(tmp_path))
    component = UniformWidths(target=0.5, cost="latency", module_file=RAW_DIGITS, calibration=here)
    cost = StructureExporter(run(component)["structure"]).read().costs["latency:phone"]
    assert 0.3 * cost["seed"] < cost["structure"] <= 0.5 * cost["seed"]


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_latency_without_a_calibration_is_refused(search):
    for options in ({}, {"cost": "flops", "target": {"latency": 0.5}}):
        with pytest.raises(morph.MorphError, match='MorphTrainer: cost="latency" without a device needs calibration'):
            search(calibration=None, **options)
    with pytest.raises(morph.MorphError, match='UniformWidths: cost="latency" without a device needs calibration'):
        UniformWidths(target=0.5, cost="latency", module_file=RAW_DIGITS)


def test_a_calibration_that_nothing_is_counted_by_is_refused(search, calibration):
    with pytest.raises(morph.MorphError, match="has a calibration, but its cost is 'flops', which does not look at it"):
        search(cost="flops")


def test_a_calibration_that_is_gone_ends_before_training(search, run, tmp_path, nothing_trains):
    gone = make(DeviceCalibration, tmp_path / "gone")
    message = r"no calibration at .*gone/calibration\.json\. .* run DeviceCalibrator again"
    fails_cleanly(run, search(calibration=channel(gone)), message, tmp_path)


def test_what_cannot_be_measured_leaves_nothing(run, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise morph.MorphError("Runtime 'xla' cannot run dense (Dense) in float32: no. Choose another runtime.")

    monkeypatch.setattr(morph, "calibrate", refuse)
    component = DeviceCalibrator(module_file=RAW_DIGITS, **QUICK)
    fails_cleanly(run, component, "Runtime 'xla' cannot run dense", tmp_path)


def test_a_calibration_that_ended_early_goes_on_where_it_was(run, tmp_path, monkeypatch, capsys):
    milliseconds, timed = Stopwatch.milliseconds_of_groups, []

    def counting(stopwatch, groups, notice):
        timed.append(groups)
        if len(timed) == ends_at:
            raise KeyboardInterrupt
        return milliseconds(stopwatch, groups, notice)

    def count(name, **changes):
        timed.clear()
        run(DeviceCalibrator(module_file=RAW_DIGITS, custom_config={"checkpoint_dir": str(folder)}, **changes), name)
        return len(timed)

    monkeypatch.setattr(Stopwatch, "milliseconds_of_groups", counting)
    folder, ends_at = tmp_path / "volume", 2
    with pytest.raises(KeyboardInterrupt):
        count("ended", **QUICK)
    assert len(list(folder.rglob("*.part"))) == 1
    ends_at = 0
    rest = count("again", **QUICK)
    assert "Going on with what was measured before" in capsys.readouterr().out
    assert list(folder.iterdir()) == []
    assert rest < count("from the start", **{**QUICK, "device": "another"})


def test_a_noisy_machine_is_told_of(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrating, "REPEATABLE", -1.0)
    run(DeviceCalibrator(module_file=RAW_DIGITS, **QUICK))
    assert re.search("'device' repeats itself only within", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module_file": None}, "DeviceCalibrator needs exactly one of module_file and module_path"),
        ({"runtime": "onnx"}, "Unknown runtime 'onnx'. Expected one of tf.function, xla, litert"),
        ({"runtime": "litert", "dtype": "float16"}, "Runtime 'litert' cannot run in 'float16'"),
        ({"points": 1}, "points is 1; expected a whole number from 2"),
        ({"device": "../up"}, "device is '../up'; expected a name of letters"),
        ({"device": "T4"}, "'T4' is the name of a device whose datasheet is known, .* another name, such as 'my-T4'"),
        ({"custom_config": {"hparam": {}}}, "Did you mean 'hparams'"),
    ],
)
def test_what_can_be_seen_without_a_device_is_refused_when_the_pipeline_is_built(arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        DeviceCalibrator(**{"module_file": "my_model.py", **arguments})
