"""The job that a retraining compiles to: compared with a golden, and what it reads where models are pushed to.

After a change that is meant, write the golden anew and read the difference:

    MORPH_TFX_UPDATE_GOLDENS=1 .venv/bin/python -m pytest tests/pipelines/kubeflow/test_retraining_job.py
"""

import os
from pathlib import Path

import pytest
import tfx
import yaml
from click.testing import CliRunner

from morph_core import MorphError
from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from tests.pipelines.retraining import BASELINE, IMPORTED, TEXT, config_of


def compiled(directory: Path, text: str = TEXT, lines: list[str] | None = None) -> Path:
    say = (lines if lines is not None else []).append
    return compile_pipeline(config_of(text, directory), directory / "job.yaml", say=say, pipeline="retrain")


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def tasks(job) -> dict:
    return next(yaml.safe_load_all(job.read_text()))["root"]["dag"]["tasks"]


def producer(tasks: dict, task: str, name: str) -> tuple[str, str]:
    source = tasks[task]["inputs"]["artifacts"][name]["taskOutputArtifact"]
    return source["producerTask"], source["outputArtifactKey"]


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


EXPORTED = "export: {formats: [litert]}\n"


def test_every_step_but_the_look_stands_under_the_condition_that_there_is_news(tmp_path):
    tasks = next(yaml.safe_load_all(compiled(tmp_path, TEXT + EXPORTED).read_text()))["root"]["dag"]["tasks"]
    conditions = {name: task.get("triggerPolicy", {}).get("condition") for name, task in tasks.items()}
    assert conditions.pop("PushedStructure") is None
    assert {"ImportExampleGen", "Exporter", "Pusher"} <= set(conditions)
    for name, condition in conditions.items():
        key = next(key for key in tasks[name]["inputs"]["artifacts"] if f"'{key}'" in condition)
        assert producer(tasks, name, key) == ("PushedStructure", "structure")
        assert condition.strip("()") == f"inputs.artifacts['{key}'].artifacts[0].metadata['has_news'] == 1.0"


@pytest.mark.parametrize("text", [TEXT.replace("day-{SPAN}/", ""), TEXT + IMPORTED], ids=["no spans", "imported"])
def test_without_spans_or_with_a_structure_of_one_s_own_every_run_trains(tmp_path, text):
    lines: list[str] = []
    tasks = next(yaml.safe_load_all(compiled(tmp_path, text, lines).read_text()))["root"]["dag"]["tasks"]
    assert not any("triggerPolicy" in task for task in tasks.values())
    assert not any("ends after PushedStructure" in line for line in lines)


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
    assert "A run ends after PushedStructure where that model was trained on the newest span already" in text
    lines.clear()
    compiled(tmp_path, BASELINE + IMPORTED, lines)
    assert "It retrains gs://bucket/best/structure.json." in "\n".join(lines)
    assert "A new model is compared with gs://bucket/serving/1" in "\n".join(lines)


def test_a_job_with_an_imported_structure_has_the_baseline_of_the_configuration(tmp_path):
    tasks = next(yaml.safe_load_all(compiled(tmp_path, BASELINE + IMPORTED).read_text()))["root"]["dag"]["tasks"]
    places = {"Structure": "gs://bucket/best/structure.json", "BaselineModel": "gs://bucket/serving/1"}
    for step, place in places.items():
        assert tasks[step]["inputs"]["parameters"]["path"]["runtimeValue"]["constant"] == place
        assert tasks[step]["cachingOptions"] == {}


def test_a_structure_on_a_volume_is_read_in_a_step_that_mounts_it(tmp_path):
    """A path of this machine means nothing to the pods, so they may be told another."""
    mounted = TEXT.replace(
        "kubeflow: {",
        "retrain_pipeline: {structure: best/structure.json}\nkubeflow: {structure: /mnt/best/structure.json, ",
    ).replace("steps: {", 'steps: {"*": {volumes: [{pvc: best, mount: /mnt/best}]}, ')
    lines: list[str] = []
    spec, platform = yaml.safe_load_all(compiled(tmp_path, mounted, lines).read_text())
    path = spec["root"]["dag"]["tasks"]["Structure"]["inputs"]["parameters"]["path"]
    assert path["runtimeValue"]["constant"] == "/mnt/best/structure.json"
    assert not any("importer" in executor for executor in spec["deploymentSpec"]["executors"].values())
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["Structure_executor"]
    assert placed["pvcMount"][0]["mountPath"] == "/mnt/best"
    assert any("It retrains /mnt/best/structure.json" in line for line in lines)
