"""The whole morph pipeline as a compiled job, executed as open-source Kubeflow would: digits in, a pushed model out.

One run is made for all tests: two cycles, fewer epochs and a smaller seed than the demo. Every step is a process of its
own, started by its container command.
"""

import json
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

import morph_core as morph
from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.local import demo
from tests.kubeflow.launcher import Cluster, Run, Stored

pytestmark = pytest.mark.thorough

LEAST_ACCURACY = 0.8  # of the pushed model on the held-out digits; chance is 0.1
SETTINGS = {
    "beam": {"runner": "direct"},  # processes are another test's subject
    "hparams": {"widths": [16, 24], "learning_rate": 0.003},
    "search": {"epochs": 4, "batch_size": 64},
    "retrain": {"epochs": 6, "batch_size": 64},
    "evaluate": {"lower_bound": 0.7},
    "expand_to": 0.5,
}
STEPS = {
    "ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform", "MorphTrainer-1",
    "MorphTrainer-2", "Retrainer", "Evaluator", "Pusher",
}  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Stands for the volume that every pod mounts: the data, the module file, and the place to push to."""
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def job(directory) -> Path:
    file = demo.prepare(directory)
    kubeflow = {"image": "registry.example.com/morph-tfx:1", "module_dir": str(directory)}
    settings = {**yaml.safe_load(file.read_text()), **SETTINGS, "kubeflow": kubeflow}
    file.write_text(yaml.safe_dump(settings))
    return compile_pipeline(load_config(file), directory / "job.yaml")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def run(cluster, job) -> Run:
    run = cluster.run(job)
    assert run.in_state("succeeded") == STEPS, str(run)
    return run


@pytest.fixture(scope="module")
def pushed(run, directory) -> str:
    [model] = (directory / "pushed").iterdir()
    return str(model)


def text(cluster: Cluster, artifact: Stored) -> str:
    return cluster.stored(artifact.uri).read_text()


def test_every_step_ran_as_a_container_would(run):
    assert set(run.tasks) == STEPS
    assert all(
        task.command[:3] == ["python", "-m", "morph_tfx.pipelines.kubeflow.entrypoint"] for task in run.tasks.values()
    )


def test_the_pushed_model_answers_held_out_digits(pushed):
    assert demo.pushed_accuracy(pushed, demo.load_digits()["holdout"]) > LEAST_ACCURACY


def test_the_pushed_model_has_the_widths_of_the_last_structure(pushed, run, cluster, directory):
    stored = cluster.stored(run.tasks["MorphTrainer-2"].outputs["structure"].uri)
    structure = morph.Structure.load(stored / "structure.json")
    seed = demo.module_of(str(directory / "module.py")).build_model(SETTINGS["hparams"])
    expected = sorted(tuple(weight.shape) for weight in morph.rebuild(seed, structure).weights)
    served = sorted(tuple(variable.shape) for variable in tf.saved_model.load(pushed).variables)
    assert [shape for shape in served if len(shape) >= 2] == [shape for shape in expected if len(shape) >= 2]
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]


def test_what_steps_report_has_remote_addresses_only(cluster, run):
    reported = json.dumps([[artifact.uri, artifact.metadata] for artifact in cluster.artifacts])
    assert str(cluster.directory) not in reported
    assert all(artifact.uri.startswith("minio://mlpipeline/v2/artifacts/digits/") for artifact in cluster.artifacts)
    model = run.tasks["Retrainer"].outputs["model"]
    assert model.metadata["structure_uri"] == run.tasks["MorphTrainer-2"].outputs["structure"].uri
    assert run.tasks["Evaluator"].outputs["blessing"].metadata["current_model"] == model.uri


def test_example_gen_knows_its_span_and_files(run):
    examples = run.tasks["ImportExampleGen"].outputs["examples"]
    assert examples.metadata["custom:span"] == 0
    assert "split:train,num_files:1" in examples.metadata["input_fingerprint"]


@pytest.mark.parametrize("cycle", [1, 2])
def test_each_cycle_shows_its_report_and_its_costs(run, cluster, cycle):
    outputs = run.tasks[f"MorphTrainer-{cycle}"].outputs
    assert outputs["structure_report"].title == "system.HTML"
    report = text(cluster, outputs["structure_report"])
    assert report == (cluster.stored(outputs["structure"].uri) / "report.html").read_text()
    assert "<svg" in report
    assert outputs["structure_metrics"].title == "system.Metrics"
    figures = outputs["structure_metrics"].metadata
    assert figures["flops_structure"] / figures["flops_seed"] == pytest.approx(figures["flops_fraction"])
    assert figures["flops_fraction"] <= 0.5


def test_the_final_model_shows_its_accuracy_and_costs(run):
    trained = run.tasks["Retrainer"].outputs["model_metrics"]
    evaluated = run.tasks["Evaluator"].outputs["evaluation_metrics"]
    assert trained.title == evaluated.title == "system.Metrics"
    assert trained.metadata["flops_fraction"] <= 0.5
    assert evaluated.metadata["example_count"] == 360
    # Both saw the eval split; training computes in the model, Evaluator through the SavedModel.
    assert evaluated.metadata["sparse_categorical_accuracy"] == pytest.approx(
        trained.metadata["val_accuracy"], abs=1e-3
    )


@pytest.mark.parametrize("step", ["MorphTrainer-1", "MorphTrainer-2", "Retrainer"])
def test_tensorboard_logs_are_where_the_step_says(run, cluster, step):
    logs = cluster.stored(run.tasks[step].outputs["model_run"].uri)
    assert list(logs.rglob("events.out.tfevents*"))


def test_what_a_step_printed_is_kept_as_its_log(run, cluster):
    assert "flops:" in text(cluster, run.tasks["MorphTrainer-1"].outputs["executor-logs"])
