"""MorphTrainer on real artifacts: what it finds and writes, and what every mistake ends in."""

import json
import pathlib
import re

import keras_tuner
import pytest
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts

import morph_core as morph
from morph_tfx.components import MorphStructure, MorphTrainer, StructureExporter
from tests.components.conftest import DIGITS, RAW_DIGITS, channel, fails_cleanly, inputs_of, make, narrowed, write_split
from tests.core.calibrations import WIDTHS_OF_4, calibration, forget_warnings


def written(run_dir):
    """Every file below a directory."""
    return sorted(path.name for path in pathlib.Path(run_dir).rglob("*") if path.is_file())


@pytest.fixture
def search(transformed):
    """search(**arguments) makes a MorphTrainer on the transformed digits: 60 steps to half the FLOPs by default."""

    def make_component(**arguments):
        transformed_examples, transform_graph = transformed
        defaults = {
            "examples": channel(transformed_examples),
            "transform_graph": channel(transform_graph),
            "module_file": DIGITS,
            "train_args": trainer_pb2.TrainArgs(num_steps=60),
            "eval_args": trainer_pb2.EvalArgs(num_steps=2),
            "custom_config": {"epochs": 2},
        }
        if not {"target", "budget", "strength"} & set(arguments):
            arguments["target"] = 0.5
        return MorphTrainer(**{**defaults, **arguments})

    return make_component


@pytest.fixture
def raw_search(examples, schema, search):
    """The same on raw examples, with the schema alone."""

    def make_component(**arguments):
        defaults = {
            "examples": channel(examples),
            "transform_graph": None,
            "schema": channel(schema),
            "module_file": RAW_DIGITS,
            "gate": "logistic_sigmoid",
        }
        return search(**{**defaults, **arguments})

    return make_component


def test_the_search_ends_within_the_target_and_writes_structure_report_and_logs(search, run, capsys):
    component = search(custom_config={"epochs": 2, "cycle": "1/2"})
    outputs = run(component)
    structure = StructureExporter(outputs["structure"]).read()
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    assert structure.goal == {"cost": "flops", "target": 0.5}
    assert structure.trajectory[-1]["step"] == 60
    assert outputs["structure"].get_float_custom_property("flops_fraction") <= 0.5
    assert written(outputs["structure"].uri) == ["report.html", "structure.json", "trajectory.svg", "widths.svg"]
    # Of training, validation and widths.
    assert sum(name.startswith("events.out.tfevents") for name in written(outputs["model_run"].uri)) == 3
    shown = capsys.readouterr().out
    assert "[cycle 1/2, search] starts: 60 steps in 2 epochs" in shown
    assert "[cycle 1/2, search] step 60/60  flops" in shown
    assert "of the seed (target 50.0% now)" in shown
    assert re.search(
        r"flops: 93,480 -> [\d,]+ \([\d.]+% of the seed; FLOPs per example, a multiply-add being 2\)", shown
    )


def test_a_second_cycle_starts_from_the_first_ones_structure_and_counts_in_the_original_seed(search, run, tmp_path):
    first = narrowed(DIGITS, tmp_path, **{"conv2d-1": 12, "conv2d-2": 12})
    outputs = run(search(structure=channel(first), target=0.3, expand_to=0.7, gate="logistic_sigmoid"))
    before, after = StructureExporter(first).read(), StructureExporter(outputs["structure"]).read()
    assert after.fingerprint == before.fingerprint
    assert after.costs["flops"]["seed"] == before.costs["flops"]["seed"]
    assert 0.6 < after.costs["flops"]["structure"] / after.costs["flops"]["seed"] <= 0.7
    assert after.goal == {"cost": "flops", "target": 0.3}
    assert after.trajectory[-1]["cost"] <= 0.3
    assert outputs["structure"].get_float_custom_property("expand_to") == pytest.approx(0.7)


def calibration_file(path, machine=""):
    path.write_text(calibration(path.stem, machine, waste=WIDTHS_OF_4).to_json())
    return f"latency:{path}"


def test_a_budget_in_measured_milliseconds_is_kept_widened_and_measured(search, run, tmp_path, capsys):
    cost = calibration_file(tmp_path / "rig.json")
    outputs = run(search(cost=cost, target=0.6, expand_to=0.8, multiple_of="auto"))
    structure = StructureExporter(outputs["structure"]).read()
    pair = structure.costs["latency:rig"]
    assert 0.5 < pair["structure"] / pair["seed"] <= 0.8
    assert {group["width"] % 4 for group in structure.groups.values()} == {0}
    noted = structure.settings["measured_latency"]
    assert noted["predicted_ms"] == pair["structure"]
    assert noted["measured_ms"] > 0 and noted["seed_ms"] > 0
    assert "Measured: " in (pathlib.Path(outputs["structure"].uri) / "report.html").read_text()
    assert "Measured: " in capsys.readouterr().out


@pytest.mark.thorough
def test_a_later_cycle_keeps_to_measured_milliseconds_of_the_original_seed(search, run, tmp_path):
    cost = calibration_file(tmp_path / "rig.json")
    first = narrowed(DIGITS, tmp_path, **{"conv2d-1": 12, "conv2d-2": 12})
    outputs = run(search(cost=cost, target=0.3, structure=channel(first), gate="logistic_sigmoid"))
    pair = StructureExporter(outputs["structure"]).read().costs["latency:rig"]
    assert pair["structure"] <= 0.3 * pair["seed"]


@pytest.mark.thorough
def test_what_another_machine_has_measured_is_searched_by_and_not_measured_here(
    search, run, tmp_path, capsys, monkeypatch
):
    forget_warnings(monkeypatch)
    cost = calibration_file(tmp_path / "rig.json", "another, 64 cores")
    with pytest.warns(UserWarning, match="'rig' was measured on another, 64 cores"):
        component = search(target={cost: 0.6, "params": 0.9})
    structure = StructureExporter(run(component)["structure"]).read()
    assert structure.costs["latency:rig"]["structure"] <= 0.6 * structure.costs["latency:rig"]["seed"]
    assert "measured_latency" not in structure.settings
    assert "The latency of the result was not measured: Calibration 'rig'" in capsys.readouterr().out


@pytest.mark.thorough
def test_several_targets_multiples_and_floors_reach_the_search_and_the_expansion(raw_search, run, capsys):
    targets = {"flops": 0.6, "params": 0.4}
    component = raw_search(
        target=targets, multiple_of=4, min_channels={"hidden": 8}, expand_to=0.8, strength=1e3, gate="fisher"
    )
    assert json.loads(component.exec_properties["target_by_cost"]) == targets
    assert component.exec_properties["multiple_of"] == "4"
    outputs = run(component)
    structure = StructureExporter(outputs["structure"]).read()
    assert structure.goal == {"target": targets}
    assert structure.widths["hidden"] % 4 == 0
    assert structure.widths["hidden"] >= 8
    assert all(structure.costs[cost]["structure"] <= 0.8 * structure.costs[cost]["seed"] for cost in targets)
    assert structure.trajectory[-1]["cost_params"] <= 0.4
    assert outputs["structure"].get_float_custom_property("target_params") == pytest.approx(0.4)
    assert re.search(r"flops [\d.]+%, params [\d.]+% of the seed", capsys.readouterr().out)


@pytest.mark.thorough
def test_raw_examples_need_the_schema_alone(raw_search, run):
    outputs = run(raw_search(cost="params", target=0.4))
    structure = StructureExporter(outputs["structure"]).read()
    assert 0 < structure.widths["hidden"] < 24
    assert structure.costs["params"]["structure"] <= 0.4 * structure.costs["params"]["seed"]


@pytest.mark.thorough
def test_an_absolute_budget_and_a_fixed_strength_reach_the_search(raw_search, run):
    budgeted = StructureExporter(run(raw_search(budget=2000.0), "budget")["structure"]).read()
    assert budgeted.costs["flops"]["structure"] <= 2000
    assert budgeted.goal == {"cost": "flops", "budget": 2000.0}
    fixed = StructureExporter(run(raw_search(strength=1e-6), "strength")["structure"]).read()
    assert fixed.goal == {"cost": "flops", "strength": 1e-6}


@pytest.mark.thorough
def test_tuned_hyperparameters_reach_build_model_over_those_of_the_config(raw_search, run, tmp_path):
    tuned = keras_tuner.HyperParameters()
    tuned.Fixed("width", 40)
    artifact = make(standard_artifacts.HyperParameters, tmp_path / "hyperparameters")
    pathlib.Path(artifact.uri).mkdir()
    pathlib.Path(artifact.uri, "best_hyperparameters.txt").write_text(json.dumps(tuned.get_config()))
    config = {"epochs": 1, "hparams": {"width": 30}}
    configured = run(raw_search(custom_config=config), "configured")
    assert StructureExporter(configured["structure"]).read().groups["hidden"]["seed_width"] == 30
    component = raw_search(custom_config=config, hyperparameters=channel(artifact))
    assert StructureExporter(run(component, "tuned")["structure"]).read().groups["hidden"]["seed_width"] == 40


@pytest.mark.thorough
def test_without_steps_an_epoch_is_one_pass_over_the_split_that_was_named(raw_search, run, capsys):
    component = raw_search(
        train_args=trainer_pb2.TrainArgs(splits=["eval"]),
        eval_args=trainer_pb2.EvalArgs(splits=["train"], num_steps=1),
        custom_config={"epochs": 3, "batch_size": 100},
    )
    run(component)
    assert "[search] starts: 9 steps in 3 epochs" in capsys.readouterr().out  # 297 digits in batches of 100


def test_the_module_file_reaches_the_executor_packed_into_a_wheel(raw_search, tmp_path):
    component = raw_search()
    component._resolve_pip_dependencies(str(tmp_path))
    assert component.exec_properties["module_file"] is None
    name, wheel = component.exec_properties["module_path"].split("@")
    assert name == "raw_digits"
    assert pathlib.Path(wheel).parent == tmp_path / "_wheels"


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 1.5}, r"target=1.5 is outside \(0, 1\]"),
        ({"target": 0}, r"target=0; expected a number in \(0, 1\]"),
        ({"target": float("nan")}, r"target=nan; expected a number"),
        ({"target": "half"}, r"target='half'; expected a number"),
        ({"target": True}, r"target=True; expected a number"),
        ({"budget": -1.0}, r"budget=-1.0; expected a number above 0"),
        ({"target": 0.5, "budget": 10.0}, r"needs one of target .* received target=0.5, budget=10.0"),
        ({"target": None}, r"needs one of target .* received none of them"),
        ({"target": {"flops": 0.5, "params": 1.5}}, r"is outside \(0, 1\]"),
        ({"target": {"flops": 0.5, "params": 0}}, r"target\['params'\] is 0; expected a positive number"),
        ({"target": {"flop": 0.5}}, r"Unknown cost 'flop'. Did you mean 'flops'\?"),
        ({"budget": {"latency_ms": 3.0}}, r"names 'latency_ms', but not the device. Add cost='latency:DEVICE'"),
        ({"target": {"flops": 0.5, "params": 0.6}, "expand_to": 0.55}, r"expand_to=0.55 is below target"),
        ({"multiple_of": 0}, r"multiple_of is 0; expected a whole number of channels"),
        ({"min_channels": {"hidden": -1}}, r"min_channels\['hidden'\] is -1; expected a whole number"),
        ({"min_channels": "evenly"}, r"min_channels is 'evenly'; expected .*'uniform'"),
        (
            {"target": None, "strength": 1e-3, "min_channels": "uniform"},
            r"a strength by itself has none. Give a target",
        ),
        ({"cost": "flop"}, r"Unknown cost 'flop'. Did you mean 'flops'\? Expected one of 'flops', 'params'"),
        ({"gate": "beta"}, r"Unknown gate 'beta'. Expected one of 'auto', .*'gamma'"),
        ({"expand_to": 0.3}, r"expand_to=0.3 is below target=0.5"),
        ({"module_file": None}, r"exactly one of module_file .* and module_path"),
        ({"module_path": "somewhere"}, r"exactly one of module_file .* and module_path"),
        ({"transform_graph": None}, r"needs transform_graph=.* or schema="),
        ({"custom_config": {"epoch": 3}}, r"unknown key 'epoch'. Did you mean 'epochs'\?"),
        ({"custom_config": {"epochs": 0}}, r"custom_config\['epochs'\] is 0; expected a whole number of at least 1"),
        ({"custom_config": {"hparams": 7}}, r"custom_config\['hparams'\] is 7; expected a dict"),
    ],
)
def test_a_wrong_argument_ends_in_the_constructor(search, arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        search(**arguments)


def test_runtime_parameters_are_checked_when_they_have_a_value(search, run, tmp_path, nothing_trains):
    component = search(
        target=RuntimeParameter(name="target", ptype=float),
        module_file=RuntimeParameter(name="module", ptype=str),
        custom_config=RuntimeParameter(name="config", ptype=str),
    )
    component.exec_properties.update(target=7.0, module_file=DIGITS, custom_config="{}")
    fails_cleanly(run, component, r"target=7.0 is outside \(0, 1\]", tmp_path)
    component.exec_properties.update(target=0.5, custom_config='{"batchsize": 3}')
    executor = component.executor_spec.executor_class()
    outputs = {key: [make(c.type, tmp_path / key)] for key, c in component.outputs.items()}
    with pytest.raises(morph.MorphError, match=r"unknown key 'batchsize'"):
        executor.Do(inputs_of(component), outputs, component.exec_properties)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("def build_model", "def make_model"), r"has no function build_model; expected build_model\(hparams\)"),
        (("def input_fn", "def input_function"), r"has no function input_fn; .* Did you mean input_function\?"),
        (("    model.compile(", "    (lambda *arguments, **more: None)("), r"not compiled"),
        (("num_epochs=1", "num_epochs=None"), r"training dataset that never ends|evaluation dataset that never ends"),
        (("keras.Input((64,)", "keras.Input((63,)"), r"features of input_fn .* do not fit the model.*\(32, 64\)"),
        (("return dataset.map(", "return dataset.skip(10**6).map("), r"yields no batch for the training split"),
    ],
)
def test_a_module_that_cannot_be_trained_ends_before_training(
    raw_search, run, module_file, tmp_path, nothing_trains, replacement, message
):
    component = raw_search(module_file=module_file("raw_digits", replacement), train_args=None, eval_args=None)
    fails_cleanly(run, component, message, tmp_path)


def test_a_subclassed_model_ends_before_training_with_advice(raw_search, run, tmp_path, module_file, nothing_trains):
    subclassed = module_file(
        "raw_digits",
        ("def build_model", "class Own(keras.Model):\n    def call(self, x):\n        return x\n\n\ndef build_model"),
        ("    model.compile(", "    model = Own()\n    model.compile("),
    )
    fails_cleanly(run, raw_search(module_file=subclassed), r"(?i)subclass", tmp_path)


@pytest.mark.parametrize(("role", "split"), [("train_args", "train"), ("eval_args", "eval")])
def test_an_empty_split_is_named_with_its_place_before_training(
    raw_search, run, digits, tmp_path, nothing_trains, role, split
):
    images, labels = digits
    artifact = make(standard_artifacts.Examples, tmp_path / "gaps", '["train", "eval"]')
    for name in ("train", "eval"):
        count = 0 if name == split else 10
        write_split(artifact, name, images[:count], labels[:count])
    message = rf"Split '{split}' of the examples holds no example \(1 files in .*gaps/Split-{split}.*{role}\.splits"
    fails_cleanly(run, raw_search(examples=channel(artifact)), message, tmp_path)


def test_a_split_that_is_not_there_is_named_with_those_that_are(raw_search, run, tmp_path, nothing_trains):
    component = raw_search(train_args=trainer_pb2.TrainArgs(splits=["training"]))
    fails_cleanly(run, component, r"have no split 'training'; they have train, eval\. Name one of them", tmp_path)


def test_a_structure_of_another_network_ends_before_training(raw_search, run, tmp_path, nothing_trains):
    foreign = narrowed(DIGITS, tmp_path)
    component = raw_search(structure=channel(foreign))
    fails_cleanly(run, component, r"narrowed/structure.json belongs to another network", tmp_path)


def test_broken_json_ends_before_training(search, run, tmp_path, nothing_trains):
    broken = make(MorphStructure, tmp_path / "broken")
    pathlib.Path(broken.uri).mkdir()
    pathlib.Path(broken.uri, "structure.json").write_text('{"fingerprint": ')
    fails_cleanly(run, search(structure=channel(broken)), r"broken/structure.json is not valid JSON", tmp_path)


def test_a_target_that_the_start_already_meets_ends_before_training(raw_search, run, tmp_path, nothing_trains):
    start = narrowed(RAW_DIGITS, tmp_path, hidden=6)
    message = r"target=0.5 allows .* flops, but the structure to start from needs only .* \(25.0% of the seed's"
    fails_cleanly(run, raw_search(structure=channel(start), target=0.5), message, tmp_path)


def test_hyperparameters_that_are_no_tuners_are_named(raw_search, run, tmp_path, nothing_trains):
    artifact = make(standard_artifacts.HyperParameters, tmp_path / "hyperparameters")
    pathlib.Path(artifact.uri).mkdir()
    pathlib.Path(artifact.uri, "best_hyperparameters.txt").write_text('{"width": 40}')
    message = r"hyperparameters in .*best_hyperparameters.txt cannot be read \(KeyError"
    fails_cleanly(run, raw_search(hyperparameters=channel(artifact)), message, tmp_path)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.filterwarnings("ignore:The search diverged")
def test_a_training_that_diverges_writes_nothing(raw_search, run, tmp_path, module_file):
    diverging = module_file("raw_digits", ('"adam"', "keras.optimizers.SGD(float('nan'))"))
    fails_cleanly(run, raw_search(module_file=diverging), r"search diverged before step .* learning rate", tmp_path)


def test_a_structure_that_does_not_rebuild_the_searched_network_is_not_written(raw_search, run, tmp_path, monkeypatch):
    monkeypatch.setattr(morph, "verify", lambda *_: 0.3)
    fails_cleanly(run, raw_search(), r"answers differently .*by 3\.0e-01 .*register_rule", tmp_path)
