"""The retrain pipeline: its wiring for both kinds of runners, and the job it compiles to, compared with a golden.

After a change that is meant, write the golden anew and read the difference:

    MORPH_TFX_UPDATE_GOLDENS=1 .venv/bin/python -m pytest tests/pipelines/graph/test_retrain_pipeline.py
"""

import os
from pathlib import Path

import keras
import pytest
import tfx
import yaml
from click.testing import CliRunner
from tfx.utils import json_utils

import morph_core as morph
from morph_core import MorphError
from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.graph.module_files import without_wheels
from morph_tfx.pipelines.graph.retrain_pipeline import retrain_pipeline
from morph_tfx.pipelines.kubeflow.runner import compile_pipeline
from morph_tfx.pipelines.local.runner import with_staged_structure

TEXT = """
name: digits
data: {format: tfrecord, path: gs://bucket/digits, splits: {train: "day-{SPAN}/train/*", eval: "day-{SPAN}/eval/*"}}
module_file: module.py
label: label
hparams: {widths: [8, 16]}
target: 0.35
cycles: 2
search: {epochs: 20, batch_size: 64}
retrain: {epochs: 30, batch_size: 16}
evaluate: {lower_bound: 0.9, max_drop: 0.02}
push_to: gs://bucket/serving
kubeflow: {image: "registry.example.com/morph-tfx:1", steps: {MorphTrainer-2: {memory: 16Gi}, Retrainer: {memory: 8Gi}}}
"""
IMPORTED = "retrain_pipeline: {structure: gs://bucket/best/structure.json}\n"
BASELINE = TEXT.replace("kubeflow: {", "kubeflow: {baseline_model: gs://bucket/serving/1, ")


def config_of(text: str, base="/base"):
    return parse_config(text, "config.yaml", base)


def pipeline_of(text: str = TEXT, **arguments):
    with without_wheels():
        return retrain_pipeline(config_of(text), **arguments)


def nodes_of(text: str = TEXT, **arguments):
    return {node.id: node for node in pipeline_of(text, **arguments).components}


def source_of(channel) -> tuple[str, str]:
    return channel.producer_component_id, channel.output_key


def compiled(directory: Path, text: str = TEXT, lines: list[str] | None = None) -> Path:
    say = (lines if lines is not None else []).append
    return compile_pipeline(config_of(text, directory), directory / "job.yaml", say=say, pipeline="retrain")


@pytest.fixture(scope="module")
def local():
    return nodes_of()


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def tasks(job) -> dict:
    return next(yaml.safe_load_all(job.read_text()))["root"]["dag"]["tasks"]


def producer(tasks: dict, task: str, name: str) -> tuple[str, str]:
    source = tasks[task]["inputs"]["artifacts"][name]["taskOutputArtifact"]
    return source["producerTask"], source["outputArtifactKey"]


def test_a_retraining_of_a_pushed_structure_starts_from_fresh_weights():
    """The weights that a search kept are beside its structure, and not with the model that was pushed."""
    warm = TEXT.replace("epochs: 20,", "epochs: 20, keep_weights: true,").replace("30,", "30, warm_start: true,")
    assert config_of(warm).retrain.warm_start
    assert "warm_start" not in nodes_of(warm)["Retrainer"].exec_properties["custom_config"]


def test_it_searches_for_nothing_and_looks_the_structure_up(local):
    order = list(local)
    assert set(order) == {
        "PushedStructure",
        "ImportExampleGen",
        "StatisticsGen",
        "ExampleValidator",
        "Transform",
        "Retrainer",
        "LatestBlessedModel",
        "Evaluator",
        "Pusher",
    }
    for node in local.values():
        assert all(order.index(upstream.id) < order.index(node.id) for upstream in node.upstream_nodes)


def test_structure_and_schema_are_those_of_the_latest_pushed_model(local):
    assert source_of(local["Retrainer"].inputs["structure"]) == ("PushedStructure", "structure")
    assert source_of(local["ExampleValidator"].inputs["schema"]) == ("PushedStructure", "schema")
    assert source_of(local["Transform"].inputs["schema"]) == ("PushedStructure", "schema")


def test_it_trains_as_the_last_step_of_the_morph_pipeline_does(local):
    config = json_utils.loads(local["Retrainer"].exec_properties["custom_config"])
    assert config == {"epochs": 30, "batch_size": 16, "hparams": {"widths": [8, 16]}}
    assert local["Retrainer"].exec_properties["module_file"] == "/base/module.py"


def test_both_pipelines_share_metadata_and_place_to_push_to_under_different_names(local):
    pipeline = pipeline_of()
    assert pipeline.pipeline_info.pipeline_name == "digits-retrain"
    assert pipeline.metadata_connection_config.sqlite.filename_uri == "/base/metadata.sqlite"
    assert "gs://bucket/serving" in local["Pusher"].exec_properties["push_destination"]


def test_an_imported_structure_is_retrained_with_the_schema_of_the_new_examples():
    nodes = nodes_of(TEXT + IMPORTED)
    assert "PushedStructure" not in nodes
    assert nodes["Structure"].exec_properties["artifact_uri"] == "gs://bucket/best"
    assert source_of(nodes["Retrainer"].inputs["structure"]) == ("Structure", "result")
    assert source_of(nodes["Transform"].inputs["schema"]) == ("SchemaGen", "schema")
    assert source_of(nodes["Evaluator"].inputs["baseline_model"]) == ("LatestBlessedModel", "model")


def test_a_changed_structure_is_another_one_to_the_cache_and_a_broken_one_is_refused_first(tmp_path):
    path = tmp_path / "structure.json"
    text = (TEXT + "retrain_pipeline: {structure: structure.json}\n").replace("gs://bucket/", "")
    copies = []
    for width in (3, 4, 4):
        inputs = keras.Input((5,))
        model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(8, name="hidden")(inputs)))
        structure = morph.describe(morph.ChannelGraph.from_model(model), {"hidden": width})
        structure.save(path)
        copy = Path(with_staged_structure(config_of(text, tmp_path)).retrain_pipeline.structure)
        assert (copy.name, morph.Structure.load(copy)) == ("structure.json", structure)
        copies.append(copy.parent)
    assert copies[0] != copies[1] == copies[2]
    path.write_text("{")
    with pytest.raises(MorphError, match=r"structure.json is not valid JSON"):
        with_staged_structure(config_of(text, tmp_path))


def test_the_command_compiles_the_same_job(job, tmp_path):
    (tmp_path / "config.yaml").write_text(TEXT)
    arguments = [
        "compile",
        "--config",
        tmp_path / "config.yaml",
        "--pipeline",
        "retrain",
        "--output",
        tmp_path / "j.yaml",
    ]
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "j.yaml").read_text() == job.read_text()


def test_the_job_equals_its_golden(job):
    golden = Path(__file__).parents[1] / "goldens" / f"digits-retrain-tfx-{tfx.__version__}.yaml"
    if os.environ.get("MORPH_TFX_UPDATE_GOLDENS"):
        golden.write_text(job.read_text())
    if not golden.exists():
        pytest.skip(f"There is no golden for TFX {tfx.__version__}; this file's docstring says how to write one.")
    assert job.read_text() == golden.read_text()


def test_a_job_reads_structure_schema_and_baseline_where_models_are_pushed_to(job, tasks):
    assert set(tasks) == {
        "PushedStructure",
        "ImportExampleGen",
        "StatisticsGen",
        "ExampleValidator",
        "Transform",
        "Retrainer",
        "Evaluator",
        "Pusher",
    }
    push_to = tasks["PushedStructure"]["inputs"]["parameters"]["push_to"]["runtimeValue"]["constant"]
    assert push_to == "gs://bucket/serving"
    assert producer(tasks, "Retrainer", "structure") == ("PushedStructure", "structure")
    assert producer(tasks, "Transform", "schema") == ("PushedStructure", "schema")
    assert producer(tasks, "Evaluator", "baseline_model") == ("PushedStructure", "model")
    assert "change_threshold" in tasks["Evaluator"]["inputs"]["parameters"]["eval_config"]["runtimeValue"]["constant"]


def test_what_changes_outside_of_a_job_is_looked_at_in_every_run(tasks):
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks) - cached == {"PushedStructure", "ImportExampleGen"}


def test_not_even_settings_for_every_step_have_the_pushed_structure_cached(tmp_path):
    settings = TEXT.replace("steps: {", 'steps: {"*": {cache: true}, ')
    tasks = next(yaml.safe_load_all(compiled(tmp_path, settings).read_text()))["root"]["dag"]["tasks"]
    assert tasks["PushedStructure"]["cachingOptions"] == {}
    assert tasks["Retrainer"]["cachingOptions"] == {"enableCache": True}


def test_a_place_that_only_kubeflow_s_launcher_can_read_is_refused(tmp_path):
    with pytest.raises(MorphError, match=r"PushedStructure: pushed models are read at a minio:// address"):
        compiled(tmp_path, TEXT.replace("gs://bucket/serving", "minio://bucket/serving"))


def test_a_job_says_what_it_retrains_and_what_it_compares_with(tmp_path):
    lines: list[str] = []
    compiled(tmp_path, BASELINE, lines)
    text = "\n".join(lines)
    assert "the structure of the newest model below gs://bucket/serving when it runs, and compares" in text
    assert "MorphTrainer" not in text
    lines.clear()
    compiled(tmp_path, BASELINE + IMPORTED, lines)
    assert "It retrains gs://bucket/best/structure.json." in "\n".join(lines)
    assert "A new model is compared with gs://bucket/serving/1" in "\n".join(lines)


def test_a_job_with_an_imported_structure_has_the_baseline_of_the_configuration(tmp_path):
    job = next(yaml.safe_load_all(compiled(tmp_path, BASELINE + IMPORTED).read_text()))
    executors = job["deploymentSpec"]["executors"]
    assert executors["Structure_executor"]["importer"]["artifactUri"]["constant"] == "gs://bucket/best"
    assert executors["BaselineModel_executor"]["importer"]["artifactUri"]["constant"] == "gs://bucket/serving/1"
