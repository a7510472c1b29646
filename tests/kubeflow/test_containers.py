"""The digits job with every step in a container of its own, in an unpacked image; needs root, crun and the image.

    MORPH_TFX_IMAGE_ROOT=/path/to/root MORPH_TFX_IMAGE_PATH=/opt/morph-tfx/.venv/bin:/usr/bin:/bin \\
        .venv/bin/python -m pytest tests/kubeflow/test_containers.py -m slow

An image is unpacked with `docker export` or `podman export`; any root with the package and its extras serves.
"""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from morph_tfx.pipelines import demo
from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.kubeflow_runner import compile_pipeline
from tests.kubeflow.containers import ContainerCluster, Image
from tests.kubeflow.test_digits_job import LEAST_ACCURACY, SETTINGS, STEPS

ROOT, PATH = os.environ.get("MORPH_TFX_IMAGE_ROOT"), os.environ.get("MORPH_TFX_IMAGE_PATH", "/usr/bin:/bin")


@pytest.mark.slow
@pytest.mark.skipif(ROOT is None, reason="MORPH_TFX_IMAGE_ROOT names no unpacked image")
@pytest.mark.skipif(shutil.which("crun") is None or os.getuid() != 0, reason="containers need crun and root")
def test_every_step_runs_in_the_image_as_a_user_without_rights(tmp_path):
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):  # pytest's directories are for their owner only
        directory.chmod(0o755)
    volume = tmp_path / "volume"
    file = demo.prepare(volume)
    (volume / "pushed").mkdir(mode=0o777)
    (volume / "pushed").chmod(0o777)
    kubeflow = {"image": "registry.example.com/morph-tfx:1", "module_dir": str(volume)}
    settings = {**yaml.safe_load(file.read_text()), **SETTINGS, "kubeflow": kubeflow}
    file.write_text(yaml.safe_dump(settings))
    job = compile_pipeline(load_config(file), volume / "job.yaml")
    cluster = ContainerCluster(tmp_path / "cluster", Image(Path(str(ROOT)), PATH), (volume,))
    run = cluster.run(job)
    assert run.in_state("succeeded") == STEPS, str(run)
    assert "/minio/mlpipeline" not in str([artifact.metadata for artifact in cluster.artifacts])
    [model] = (volume / "pushed").iterdir()
    assert demo.pushed_accuracy(str(model), demo.load_digits()["holdout"]) > LEAST_ACCURACY
