"""The pipeline without a Retrainer as a compiled job: the search trains its network to the end, and that is pushed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.local import demo
from tests.kubeflow.launcher import Cluster, Run

pytestmark = pytest.mark.slow

LEAST_ACCURACY = 0.8  # of the pushed model on the held-out digits; chance is 0.1
SETTINGS = {
    "beam": {"runner": "direct"},
    "hparams": {"widths": [16, 24], "learning_rate": 0.003},
    "target": 0.5,
    "cycles": 1,
    "finish": "in_place",
    "search": {"epochs": 4, "batch_size": 64},
    "retrain": {"epochs": 8, "batch_size": 64},
    "evaluate": {"lower_bound": 0.7},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Stands for the volume that every pod mounts: the data, the module file, and the place to push to."""
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def run(cluster, directory) -> Run:
    file = demo.prepare(directory)
    kubeflow = {"image": "registry.example.com/morph-tfx:1", "module_dir": str(directory)}
    settings = {**yaml.safe_load(file.read_text()), **SETTINGS, "kubeflow": kubeflow}
    del settings["expand_to"]
    file.write_text(yaml.safe_dump(settings))
    run = cluster.run(compile_pipeline(load_config(file), directory / "job.yaml"))
    assert "Retrainer" not in run.tasks
    assert run.in_state("succeeded") == set(run.tasks), str(run)
    return run


def test_the_pushed_model_is_that_of_the_search_and_answers_held_out_digits(run, cluster, directory):
    [pushed] = (directory / "pushed").iterdir()
    assert demo.pushed_accuracy(str(pushed), demo.load_digits()["holdout"]) > LEAST_ACCURACY
    outputs = run.tasks["MorphTrainer-1"].outputs
    found = json.loads((cluster.stored(outputs["structure"].uri) / "structure.json").read_text())
    variables = tf.saved_model.load(str(pushed)).variables
    assert sum(int(np.prod(variable.shape)) for variable in variables) == found["costs"]["params"]["structure"]
    assert found["costs"]["flops"]["structure"] <= 0.5 * found["costs"]["flops"]["seed"]
    assert run.tasks["Evaluator"].outputs["blessing"].metadata["current_model"] == outputs["model"].uri


def test_the_search_shows_its_report_and_figures_of_structure_and_model(run, cluster):
    outputs = run.tasks["MorphTrainer-1"].outputs
    assert "html" in cluster.stored(outputs["structure_report"].uri).read_text()[:200].lower()
    assert 0 < outputs["model_metrics"].metadata["flops_fraction"] <= 0.5
    assert 0 < outputs["model_metrics"].metadata["val_accuracy"] <= 1
    assert outputs["model"].metadata["structure_uri"] == outputs["structure"].uri
