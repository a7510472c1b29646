"""A small TFX pipeline with what the morph pipeline lacks: a condition, an importer, parameters given and handed on."""

import importlib
from pathlib import Path

import pytest
import yaml
from tfx import v1 as tfx

from morph_tfx.pipelines.kubeflow import job as kubeflow_job
from tests.kubeflow.launcher import Cluster

pytestmark = pytest.mark.thorough

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)  # as in the image
        own = importlib.import_module("small_components")
    score = tfx.dsl.experimental.RuntimeParameter(name="score", ptype=float, default=0.9)
    trainer = own.train(score=score)
    model = trainer.outputs["model"]
    baseline = tfx.dsl.Importer(
        source_uri=tfx.dsl.experimental.RuntimeParameter(name="baseline", ptype=str),
        artifact_type=tfx.types.standard_artifacts.Model,
    ).with_id("Baseline")
    judged = own.judge(model=model, baseline=baseline.outputs["result"])
    with tfx.dsl.Cond(judged.outputs["blessing"].future()[0].custom_property("blessed") == 1):
        announced = own.announce(model=model, words=trainer.outputs["words"].future()[0].value)
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="small",
        pipeline_root="gs://bucket/root",
        components=[trainer, baseline, judged, announced],
        enable_cache=True,
    )
    spec = kubeflow_job.compiled(pipeline, "image:1")
    spec["defaultPipelineRoot"] = "gs://bucket/root"
    kubeflow_job.adapt(spec)
    file = tmp_path_factory.mktemp("job") / "job.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


def test_conditions_importers_and_parameters_work_and_are_cached(job, tmp_path):
    cluster = Cluster(tmp_path / "cluster", environment={"PYTHONPATH": str(HERE)}, fresh=True)
    weights = cluster.stored("s3://elsewhere/model/weights")
    weights.parent.mkdir(parents=True)
    weights.write_text("old weights")
    baseline = {"baseline": "s3://elsewhere/model"}

    good = cluster.run(job, baseline)
    assert good.in_state("succeeded") == {"train", "Baseline", "judge", "announce"}, str(good)
    announcement = cluster.stored(good.tasks["announce"].outputs["copy"].uri) / "announcement"
    assert announcement.read_text() == "a score of 0.9: weights"
    assert good.tasks["train"].outputs["model_metrics"].metadata["score"] == 0.9

    bad = cluster.run(job, {**baseline, "score": 0.1})
    assert bad.in_state("succeeded") == {"train", "Baseline", "judge"}, str(bad)
    assert bad.in_state("skipped") == {"announce"}

    again = cluster.run(job, baseline)
    assert again.in_state("cached") == {"train", "judge", "announce"}, str(again)
