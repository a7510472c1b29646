"""Compiled jobs: what names them, and what is none."""

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow.upload import Job
from tests.pipelines.kubeflow.client import write_job


def test_a_job_is_named_by_its_content(tmp_path):
    one = write_job(tmp_path)
    text = one.path.read_text()
    one.path.write_text("# another comment\n\n" + text)
    assert Job.load(one.path) == one
    assert write_job(tmp_path, image="image:2").version != one.version
    assert one.pipeline == "digits" and one.version.startswith("digits-")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("just text", "is no job for Kubeflow Pipelines v2"),
        ("schemaVersion: 2.1.0", "expected schemaVersion 2.1.0 and a pipelineInfo.name"),
        ("pipelineInfo: {name: a}\nschemaVersion: 2.0.0", "expected schemaVersion 2.1.0"),
    ],
)
def test_what_is_no_job_is_refused(tmp_path, text, said):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(MorphError, match=said):
        Job.load(tmp_path / "job.yaml")


def test_a_missing_job_is_named(tmp_path):
    with pytest.raises(MorphError, match=r"--job: .*nowhere.yaml cannot be read: No such file"):
        Job.load(tmp_path / "nowhere.yaml")
