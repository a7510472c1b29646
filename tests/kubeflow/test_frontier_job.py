"""A job with a branch for each budget, executed as open-source Kubeflow would, and then again under another rule."""

import json
from pathlib import Path

import pytest
import yaml

from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.local import demo
from tests.kubeflow.launcher import Cluster, Run

# Sixteen steps, each a process that loads TensorFlow and TFX.
pytestmark = pytest.mark.slow

SETTINGS = {
    "beam": {"runner": "direct"},  # processes are another test's subject
    "hparams": {"widths": [8, 12], "learning_rate": 0.005},
    "cycles": 1,
    "budgets": [0.5],
    "search": {"epochs": 1, "batch_size": 64},
    "retrain": {"epochs": 2, "batch_size": 64},
    "evaluate": {"lower_bound": 0.0},
}


def compiled(directory: Path, name: str, choose: dict) -> Path:
    values = yaml.safe_load((directory / "config.yaml").read_text())
    del values["target"], values["expand_to"]
    kubeflow = {"image": "registry.example.com/morph-tfx:1", "module_dir": str(directory)}
    (directory / f"{name}.yaml").write_text(
        yaml.safe_dump({**values, **SETTINGS, "choose": choose, "kubeflow": kubeflow})
    )
    return compile_pipeline(load_config(directory / f"{name}.yaml"), directory / f"{name}-job.yaml", say=print)


def finished(cluster: Cluster, job: Path) -> Run:
    run = cluster.run(job)
    for task in run.tasks.values():
        assert task.state in ("succeeded", "cached"), f"{run}\n{task.log[-4000:]}"
    return run


def test_branches_end_in_one_report_and_a_push_of_what_the_rule_picks(tmp_path):
    directory, cluster = tmp_path / "volume", Cluster(tmp_path / "cluster")
    assert demo.prepare(directory).name == "config.yaml"
    run = finished(cluster, compiled(directory, "any", {"max_cost": 1.0, "max_behind_uniform": 1.0}))
    frontier = run.tasks["Frontier"].outputs
    found = json.loads((cluster.stored(frontier["frontier"].uri) / "frontier.json").read_text())
    assert [point["label"] for point in found["points"]] == ["learned 50 %", "uniform 50 %", "seed"]
    assert frontier["frontier_report"].title == "system.HTML"
    assert found["verdict"] in cluster.stored(frontier["frontier_report"].uri).read_text().replace("&#39;", "'")
    assert frontier["frontier_metrics"].metadata["fraction"] <= 0.5
    assert frontier["blessing"].metadata["current_model"] == run.tasks["Retrainer-50"].outputs["model"].uri
    [pushed] = (directory / "pushed").iterdir()

    strict = finished(cluster, compiled(directory, "strict", {"min_accuracy": 1.01}))
    assert strict.tasks["Frontier"].outputs["blessing"].metadata["blessed"] == 0
    assert list((directory / "pushed").iterdir()) == [pushed]
