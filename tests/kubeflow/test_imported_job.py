"""What a job names on a volume is read by its steps: those two of a compiled retraining, behind the launcher."""

from pathlib import Path

import pytest
import yaml

import morph_core as morph
from morph_tfx.components.training import user_module
from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.config.starter import template
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from tests.components import saved_models
from tests.kubeflow.launcher import Cluster

pytestmark = pytest.mark.thorough

STEPS = ("Structure", "BaselineModel")


@pytest.fixture
def volume(tmp_path) -> Path:
    """Holds a structure and a model as Pusher leaves one."""
    volume = tmp_path / "volume"
    (volume / "best").mkdir(parents=True)
    (volume / "module.py").write_text(template("digits_module.py"))
    seed = user_module.load({"module_file": str(volume / "module.py")}).seed({"widths": [8, 16]})
    graph = morph.ChannelGraph.from_model(seed)
    group = next(group for group in graph.groups if group.prunable)
    (volume / "best" / "structure.json").write_text(morph.describe(graph, {group.name: 4}).to_json())
    saved_models.save(volume / "serving" / "1700000000", "1700000000")
    return volume


def job_of(volume: Path, directory: Path) -> Path:
    """The job with its first two steps only: the rest would train."""
    config = {
        "name": "digits",
        "data": {"format": "tfrecord", "path": "data", "splits": {"train": "train/*", "eval": "eval/*"}},
        "module_file": str(volume / "module.py"),
        "label": "label",
        "target": 0.5,
        "search": {"epochs": 1},
        "retrain": {"epochs": 1},
        "evaluate": {"lower_bound": 0.5},
        "retrain_pipeline": {"structure": "best/structure.json"},
        "kubeflow": {
            "image": "image:1",
            "structure": str(volume / "best" / "structure.json"),
            "baseline_model": str(volume / "serving" / "1700000000"),
        },
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    job = compile_pipeline(load_config(directory / "config.yaml"), directory / "job.yaml", pipeline="retrain")
    spec = next(yaml.safe_load_all(job.read_text()))
    tasks = spec["root"]["dag"]["tasks"]
    spec["root"]["dag"]["tasks"] = {name: tasks[name] for name in STEPS}
    job.write_text(yaml.safe_dump(spec))
    return job


@pytest.mark.parametrize("release", ["2.14.3", "2.17.0"])
def test_structure_and_baseline_on_a_volume_become_artifacts(volume, tmp_path, release):
    cluster = Cluster(tmp_path / "cluster", release=release)
    job = job_of(volume, tmp_path)
    run = cluster.run(job)
    assert run.in_state("succeeded") == set(STEPS), str(run)
    model = cluster.stored(run.tasks["BaselineModel"].outputs["result"].uri)
    assert (model / "Format-Serving" / "version").read_text() == "1700000000"
    structure = run.tasks["Structure"].outputs["result"]
    found = morph.Structure.load(cluster.stored(structure.uri) / "structure.json")
    assert found == morph.Structure.load(volume / "best" / "structure.json")
    shown = cluster.stored(run.tasks["Structure"].outputs["result_report"].uri)
    assert "<svg" in shown.read_text()


def test_a_step_that_does_not_find_it_fails_with_one_message_in_its_log(volume, tmp_path):
    job = job_of(volume, tmp_path)
    (volume / "best" / "structure.json").unlink()
    run = Cluster(tmp_path / "cluster", fresh=True).run(job)
    assert run.tasks["Structure"].state == "failed"
    log = run.tasks["Structure"].log
    assert "There is no structure at" in log and "kubeflow.steps" in log
    assert "Traceback" not in log
    assert run.tasks["Structure"].outputs["executor-logs"].uri.endswith("executor-logs-0")
