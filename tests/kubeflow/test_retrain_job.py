"""The retrain pipeline as a compiled job: it finds what was pushed, when it runs, and pushes a better model beside it.

The model in production is one that knows nothing yet, exported and laid down as Pusher does it: no search is needed for
that. Of two spans of digits, the older one has no labels that could be learned. Where the newest model was trained on
the newest span, the job ends after the look.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

import morph_core as morph
from morph_tfx.components.artifacts import model_assets
from morph_tfx.components.training import serving, user_module
from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.config.starter import template
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.local import demo
from tests.kubeflow.launcher import Cluster, Run

pytestmark = pytest.mark.thorough

LEAST_ACCURACY = 0.8  # of the pushed model on the held-out digits; the model before knows nothing: 0.1
HPARAMS = {"widths": [8, 16], "learning_rate": 0.005}
CONFIG = {
    "name": "digits",
    "data": {
        "format": "tfrecord",
        "path": "data",
        "splits": {"train": "span-{SPAN}/train/*", "eval": "span-{SPAN}/eval/*"},
    },
    "module_file": "module.py",
    "label": "label",
    "hparams": HPARAMS,
    "target": 0.5,
    "search": {"epochs": 1},
    "retrain": {"epochs": 12, "batch_size": 64},
    "evaluate": {"lower_bound": 0.5},
}
SCHEMA = """
feature { name: "image" type: FLOAT shape { dim { size: 64 } } presence { min_fraction: 1 min_count: 1 } }
feature { name: "label" type: INT shape { dim { size: 1 } } presence { min_fraction: 1 min_count: 1 } }
"""


def write_span(directory: Path, span: int, labels_of) -> None:
    digits = demo.load_digits()
    for split in ("train", "eval"):
        labels = labels_of(digits[split].labels)
        file = directory / f"span-{span}" / split / "digits.tfrecord"
        file.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(file)) as writer:
            for example in demo.Digits(digits[split].images, labels).examples():
                writer.write(example)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Stands for the volume that every pod mounts: the data, the module file, and the place to push to."""
    directory = tmp_path_factory.mktemp("volume")
    (directory / "module.py").write_text(template("digits_module.py"))
    write_span(directory / "data", 9, np.zeros_like)
    write_span(directory / "data", 10, np.asarray)
    kubeflow = {"image": "registry.example.com/morph-tfx:1", "module_dir": str(directory)}
    (directory / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "kubeflow": kubeflow}))
    return directory


@pytest.fixture(scope="module")
def structure(directory) -> morph.Structure:
    """Of the model in production, which is pushed here."""
    module = user_module.load({"module_file": str(directory / "module.py")})
    seed = module.seed(HPARAMS)
    graph = morph.ChannelGraph.from_model(seed)
    group = next(group for group in graph.groups if group.prunable)
    structure = morph.describe(graph, {group.name: group.size // 2}, goal={"cost": "flops", "target": 0.5})
    model, schema = morph.rebuild(seed, structure), text_format.Parse(SCHEMA, schema_pb2.Schema())
    pushed = directory / "pushed" / "1700000000"
    serving.export(model, serving.signatures(model, schema, module), str(pushed))
    model_assets.write(str(pushed), structure, schema)
    return structure


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def run(cluster, directory, structure) -> Run:
    job = compile_pipeline(load_config(directory / "config.yaml"), directory / "job.yaml", pipeline="retrain")
    run = cluster.run(job)
    for task in run.tasks.values():
        assert task.state == "succeeded", f"{run}\n{task.log[-4000:]}"
    return run


@pytest.fixture(scope="module")
def pushed(run, directory) -> Path:
    return max((directory / "pushed").iterdir(), key=lambda version: int(version.name))


def test_the_newest_span_is_retrained_with_the_structure_and_schema_that_were_pushed(run, cluster, structure):
    assert run.tasks["ImportExampleGen"].outputs["examples"].metadata["custom:span"] == 10
    found = run.tasks["PushedStructure"].outputs
    assert morph.Structure.load(cluster.stored(found["structure"].uri) / "structure.json") == structure
    assert [path.name for path in cluster.stored(found["schema"].uri).iterdir()] == ["schema.pbtxt"]
    assert run.tasks["Retrainer"].outputs["model"].metadata["structure_uri"] == found["structure"].uri


def test_the_better_model_is_pushed_beside_the_one_before_and_carries_the_structure_on(run, pushed, structure):
    assert run.tasks["Evaluator"].outputs["blessing"].metadata["blessed"] == 1
    assert run.tasks["Evaluator"].outputs["blessing"].metadata["baseline_model"] == (
        run.tasks["PushedStructure"].outputs["model"].uri
    )
    assert pushed.name != "1700000000"
    assert demo.pushed_accuracy(str(pushed), demo.load_digits()["holdout"]) > LEAST_ACCURACY
    assert morph.Structure.load(pushed / "assets.extra" / "structure.json") == structure
    assert "image" in (pushed / "assets.extra" / "schema.pbtxt").read_text()


def test_the_pushed_model_says_which_span_and_files_it_was_trained_on(run, pushed):
    read = run.tasks["ImportExampleGen"].outputs["examples"].metadata
    carried = json.loads((pushed / model_assets.TRAINED_ON_FILE).read_text())
    assert carried["span"] == 10
    assert carried["input_fingerprint"] == read["input_fingerprint"]


def test_a_night_without_a_new_span_ends_after_the_look_and_pushes_nothing(run, pushed, cluster, directory):
    versions = set((directory / "pushed").iterdir())
    repeated = cluster.run(directory / "job.yaml")
    assert repeated.succeeded, str(repeated)
    assert repeated.in_state("succeeded") == {"PushedStructure"}
    assert repeated.in_state("skipped") == {"ImportExampleGen"}
    assert repeated.in_state("omitted") == set(run.tasks) - {"PushedStructure", "ImportExampleGen"}
    assert repeated.tasks["PushedStructure"].outputs["structure_metrics"].metadata["has_news"] == 0
    said = f"There is nothing to train. The model in {pushed} was trained on span 10, and nothing else has changed."
    assert said in repeated.tasks["PushedStructure"].log
    assert set((directory / "pushed").iterdir()) == versions


@pytest.mark.slow  # a second training
def test_the_night_after_one_that_was_left_out_trains_on_its_new_span(run, pushed, cluster, directory):
    assert cluster.run(directory / "job.yaml").in_state("succeeded") == {"PushedStructure"}
    before = set((directory / "pushed").iterdir())
    write_span(directory / "data", 12, np.asarray)
    trained = cluster.run(directory / "job.yaml")
    assert trained.in_state("succeeded") == set(run.tasks), str(trained)
    assert trained.tasks["ImportExampleGen"].outputs["examples"].metadata["custom:span"] == 12
    # Whether it beats the model of the span before is Evaluator's to say. The next test begins where this one did.
    for version in set((directory / "pushed").iterdir()) - before:
        assert json.loads((version / model_assets.TRAINED_ON_FILE).read_text())["span"] == 12
        shutil.rmtree(version)
    shutil.rmtree(directory / "data" / "span-12")


def test_another_setting_of_the_run_a_new_span_and_a_rollback_are_news(run, pushed, cluster, directory):
    spec = yaml.safe_load((directory / "job.yaml").read_text())
    spec["root"]["dag"]["tasks"] = {"PushedStructure": spec["root"]["dag"]["tasks"]["PushedStructure"]}
    job = directory / "look.yaml"
    job.write_text(json.dumps(spec))

    def news(**told) -> tuple[int, str]:
        task = cluster.run(job, told).tasks["PushedStructure"]
        assert task.state == "succeeded", task.log[-4000:]
        metadata = task.outputs["structure"].metadata
        return metadata["has_news"], metadata["news"]

    assert news(learning_rate=0.01)[1].startswith("The settings of the training, its module files, or")
    write_span(directory / "data", 11, np.asarray)
    assert news() == (1, f"There is span 11; the model in {pushed} was trained on span 10.")
    assert news(span="10")[0] == 0
    pushed.rename(directory / "taken-back")
    assert news(span="10") == (
        1, f"The model in {directory / 'pushed' / '1700000000'} does not say what it was trained on."
    )  # fmt: skip
