"""Two budgets of one network, side by side with uniform widths and the seed, to one report and one push."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from rich.console import Console
from tfx.orchestration import metadata

from morph_tfx.pipelines.config import PipelineConfig, load_config
from morph_tfx.pipelines.graph.frontier_pipeline import arms
from morph_tfx.pipelines.graph.pushed import latest_pushed
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.local import demo
from morph_tfx.pipelines.local.result import RunResult
from morph_tfx.pipelines.local.runner import run_pipeline
from morph_tfx.pipelines.local.summary import show_summary

pytestmark = pytest.mark.thorough

SETTINGS = {
    "beam": {"runner": "direct"},  # processes are another test's subject
    "hparams": {"widths": [8, 12], "learning_rate": 0.005},
    "budgets": [0.3, 0.6],
    # After so short trainings either kind may be ahead; the rule about it is tested in tests/components.
    "choose": {"max_cost": 0.65, "max_behind_uniform": 1.0},
    "cycles": 1,
    "search": {"epochs": 3, "batch_size": 64},
    "retrain": {"epochs": 4, "batch_size": 64},
    "evaluate": {"lower_bound": 0.2},
}


def changed(config_file: Path, name: str, **settings: object) -> PipelineConfig:
    values = yaml.safe_load(config_file.read_text())
    for key in ("target", "expand_to"):
        values.pop(key)
    other = config_file.with_name(name)
    other.write_text(yaml.safe_dump({**values, **SETTINGS, **settings}))
    return load_config(other)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    return demo.prepare(tmp_path_factory.mktemp("frontier"))


@pytest.fixture(scope="module")
def config(config_file) -> PipelineConfig:
    return changed(config_file, "frontier.yaml")


@pytest.fixture(scope="module")
def account() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(config, account) -> RunResult:
    return run_pipeline(config, say=account.append)


@pytest.fixture(scope="module")
def found(result) -> dict:
    return json.loads((result.frontier / "frontier.json").read_text())


def test_every_network_is_measured_and_costs_what_it_may(found):
    points = {point["label"]: point for point in found["points"]}
    assert list(points) == ["learned 30 %", "learned 60 %", "uniform 30 %", "uniform 60 %", "seed"]
    assert points["seed"]["fraction"] == 1
    for kind in ("learned", "uniform"):
        assert 0.15 < points[f"{kind} 30 %"]["fraction"] <= 0.3
        assert 0.45 < points[f"{kind} 60 %"]["fraction"] <= 0.6
    assert all(0 <= point["accuracy"] <= 1 for point in points.values())
    assert points["seed"]["accuracy"] > 0.2  # chance is 0.1; these are short trainings of a small network


def test_the_pushed_model_is_the_chosen_one(result, found):
    [chosen] = [point for point in found["points"] if point["chosen"]]
    learned = [point for point in found["points"] if point["kind"] == "learned" and point["passed"]]
    assert chosen["accuracy"] == max(point["accuracy"] for point in learned)
    assert result.pushed_model is not None
    percent = chosen["label"].split()[1]
    source = result.step(f"Retrainer-{percent}").outputs["model"][0].uri

    def shapes(model):
        return sorted(tuple(variable.shape) for variable in tf.saved_model.load(model).variables)

    assert shapes(result.pushed_model) == shapes(f"{source}/Format-Serving")
    serve = tf.saved_model.load(result.pushed_model).signatures["serving_default"]
    outputs = serve(examples=tf.constant(demo.load_digits()["holdout"].examples()[:3]))["outputs"]
    assert outputs.shape == (3, 10)


def test_a_retraining_finds_the_structure_of_the_chosen_network(config, result, found):
    """The pushed model is a copy that another step made, so its lineage alone does not lead there."""
    [chosen] = [point for point in found["points"] if point["chosen"]]
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
        pushed = latest_pushed(handle.store, [config.name], print)
    assert pushed is not None
    searched = result.step(f"MorphTrainer-{chosen['label'].split()[1]}-1")
    assert pushed["structure"][0].uri == searched.outputs["structure"][0].uri


def test_data_steps_are_shared_and_branches_are_told_apart(result, account):
    ids = [step.node_id for step in result.steps]
    assert len(ids) == len(set(ids)) == 5 + 3 * 5 + 2
    assert sum(step.startswith("Transform") for step in ids) == 1
    text = "\n".join(account)
    assert "MorphTrainer-30-1 (cycle 1 of 1: shrink to 30% of the seed's flops)" in text
    assert "Retrainer-uniform-60 (uniform 60 %)" in text


def test_the_report_and_the_summary_say_which_and_why(result, config, found):
    page = (result.frontier / "report.html").read_text()
    assert found["verdict"].replace("'", "&#39;") in page
    console = Console(record=True, width=160)
    show_summary(result, config, console=console)
    text = console.export_text()
    assert found["verdict"] in text and str(result.pushed_model) in text
    assert all(point["label"] in text for point in found["points"])


def test_another_rule_reuses_the_training_and_what_none_meets_pushes_nothing(config_file, config, result):
    before = sorted(path.name for path in Path(config.push_to).iterdir())
    strict = changed(config_file, "strict.yaml", choose={"min_accuracy": 1.01})
    held_back = run_pipeline(strict, say=lambda line: None)
    assert held_back.pushed_model is None
    assert sorted(path.name for path in Path(config.push_to).iterdir()) == before
    assert {step.node_id for step in held_back.steps if step.state == "ran"} == {"Frontier", "Pusher"}
    found = json.loads((held_back.frontier / "frontier.json").read_text())
    assert found["verdict"].startswith("Nothing was chosen: no learned network has ")


def test_the_branches_of_a_kubeflow_job_depend_on_the_data_steps_alone(config_file, tmp_path):
    on_cluster = changed(
        config_file,
        "cluster.yaml",
        budgets=[0.25, 0.5, 0.75],
        choose={"min_accuracy": 0.9},
        cycles=2,
        kubeflow={"image": "registry.example.com/morph-tfx:1"},
    )
    lines: list[str] = []
    job = compile_pipeline(on_cluster, tmp_path / "job.yaml", say=lines.append)
    assert any("compared with each other, and with no earlier model" in line for line in lines)
    [spec, *_] = yaml.safe_load_all(job.read_text())
    tasks = spec["root"]["dag"]["tasks"]
    arm_names = {arm.name for arm in arms(on_cluster)}
    assert arm_names == {"25", "50", "75", "uniform-25", "uniform-50", "uniform-75", "seed"}
    assert len(tasks) == 5 + 3 * 4 + 4 * 3 + 2

    def branch(task: str) -> str:
        _, _, rest = task.partition("-")
        return rest.rpartition("-")[0] if task.startswith("MorphTrainer") else rest

    for name, task in tasks.items():
        for other in task.get("dependentTasks", []):
            assert name in ("Frontier", "Pusher") or branch(other) in ("", branch(name)), (name, other)
    assert set(tasks["Frontier"]["dependentTasks"]) >= {f"Evaluator-{name}" for name in arm_names}
    assert tasks["Pusher"]["dependentTasks"] == ["Frontier"]
    inputs = tasks["Frontier"]["inputs"]["artifacts"]
    assert len(inputs) == 3 * len(arm_names)
