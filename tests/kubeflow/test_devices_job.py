"""The job that measures a device, searches by it and writes files for others, as Kubeflow would run it."""

import json

import pytest

from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from tests.e2e.test_devices_pipeline import prepared
from tests.kubeflow.launcher import Cluster, Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def run(cluster, tmp_path_factory) -> Run:
    directory = tmp_path_factory.mktemp("volume")
    kubeflow = {"image": "registry.example.com/morph-tfx:1", "module_dir": str(directory)}
    run = cluster.run(compile_pipeline(prepared(directory, kubeflow=kubeflow), directory / "job.yaml"))
    assert run.in_state("succeeded") == set(run.tasks), str(run)
    return run


def test_the_search_counts_by_what_another_step_measured(run, cluster):
    calibration = run.tasks["DeviceCalibrator"].outputs
    stored = json.loads((cluster.stored(calibration["calibration"].uri) / "calibration.json").read_text())
    assert stored["name"] == "here"
    assert calibration["calibration_metrics"].metadata["batch_size"] == 1
    structure = run.tasks["MorphTrainer-1"].outputs["structure"]
    found = json.loads((cluster.stored(structure.uri) / "structure.json").read_text())
    assert found["costs"]["latency:here"]["structure"] <= found["costs"]["latency:here"]["seed"]


def test_the_files_are_an_artifact_with_figures_to_look_at(run, cluster):
    outputs = run.tasks["Exporter"].outputs
    files = {path.name for path in cluster.stored(outputs["exported_model"].uri).iterdir()}
    assert {"export.json", "litert.tflite"} <= files
    assert outputs["exported_model"].metadata["model_uri"].startswith("minio://")
    assert outputs["exported_model_metrics"].metadata["litert_bytes"] > 0
