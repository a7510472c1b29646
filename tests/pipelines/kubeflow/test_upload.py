"""Compiled jobs: what names them, and what is none."""

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow import upload
from morph_tfx.pipelines.kubeflow.upload import Job
from tests.pipelines.kubeflow.client import write_job


def test_a_job_is_named_by_its_content(tmp_path):
    one = write_job(tmp_path)
    text = one.path.read_text()
    one.path.write_text("# another comment\n\n" + text)
    assert Job.load(one.path) == one
    assert write_job(tmp_path, image="image:2").version != one.version
    assert one.pipeline == "digits" and one.version.startswith("digits-")


def bomb() -> str:
    """A few hundred bytes of YAML that stand for ten to the power of nine values."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join(lines)


def test_a_job_whose_parts_are_other_things_than_they_should_be_has_no_parameters(tmp_path):
    text = "pipelineInfo: {name: a}\nschemaVersion: 2.1.0\nroot: "
    for root in ("[]", "{inputDefinitions: 1}", "{dag: {tasks: [1]}}", "{dag: {tasks: {a: {inputs: 2}}}}"):
        (tmp_path / "job.yaml").write_text(text + root)
        job = Job.load(tmp_path / "job.yaml")
        assert (job.parameters, job.most_target) == ({}, 1.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("just text", "is no job for Kubeflow Pipelines v2"),
        ("schemaVersion: 2.1.0", "expected schemaVersion 2.1.0 and a pipelineInfo.name"),
        ("pipelineInfo: {name: a}\nschemaVersion: 2.0.0", "expected schemaVersion 2.1.0"),
        ("pipelineInfo: {name: [a]}\nschemaVersion: 2.1.0", "and a pipelineInfo.name"),
        ("a: 2024-13-45", "is not YAML"),
        ("pipelineInfo: {name: a}\nschemaVersion: 2.1.0\n1: 2", "is no job: keys in it are no text"),
        (bomb(), "stands for more than 1,000,000 values"),
        ("a: &a [*a]", "stands for more than 1,000,000 values"),
        ("[" * 5000, "stands for more than 1,000,000 values"),
        ("#" * (upload.MOST_BYTES + 1), "is larger than 16,777,216 bytes"),
    ],
)
def test_what_is_no_job_is_refused(tmp_path, text, said):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(MorphError, match=said):
        Job.load(tmp_path / "job.yaml")


def test_a_missing_job_is_named(tmp_path):
    with pytest.raises(MorphError, match=r"--job: .*nowhere.yaml cannot be read: No such file"):
        Job.load(tmp_path / "nowhere.yaml")
