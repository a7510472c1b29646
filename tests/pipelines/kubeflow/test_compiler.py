"""The compiled job: compared with a golden, loaded by the kfp SDK, the same bytes every time.

The golden is one per TFX version, because TFX decides much of what is in a job. After a change that is meant, write it
anew and read the difference:

    MORPH_TFX_UPDATE_GOLDENS=1 .venv/bin/python -m pytest tests/pipelines/kubeflow/test_compiler.py
"""

import json
import os
import sys
from pathlib import Path

import pytest
import tfx
import yaml

from morph_core import MorphError
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.config.steps import COMPONENTS
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from tests.pipelines.kubeflow.jobs import KUBEFLOW, TEXT, compiled, specs


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def spec(job) -> dict:
    return specs(job)[0]


@pytest.fixture(scope="module")
def one_run(tmp_path_factory) -> tuple[Path, list[str]]:
    """The job in which the last search trains its network to the end, and what compiling it said."""
    lines: list[str] = []
    return compiled(tmp_path_factory.mktemp("one-run"), finishing("in_place"), lines), lines


def finishing(how: str) -> str:
    """The configuration with another `finish`."""
    text = TEXT.replace("expand_to: 0.5\n", f"finish: {how}\n").replace("{steps: 500,", "{epochs: 40,")
    return text + KUBEFLOW


def check_golden(job: Path, name: str) -> None:
    golden = Path(__file__).parents[1] / "goldens" / f"{name}-tfx-{tfx.__version__}.yaml"
    if os.environ.get("MORPH_TFX_UPDATE_GOLDENS"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(job.read_text())
    if not golden.exists():
        pytest.skip(f"There is no golden for TFX {tfx.__version__}; this file's docstring says how to write one.")
    assert job.read_text() == golden.read_text()


def test_the_job_equals_its_golden(job):
    check_golden(job, "digits")


def test_the_job_of_one_run_equals_its_golden(one_run):
    check_golden(one_run[0], "digits-in-place")


def test_in_one_run_the_last_search_makes_the_model_that_is_evaluated_and_shown(one_run):
    job, lines = one_run
    spec, _ = specs(job)
    tasks = spec["root"]["dag"]["tasks"]
    assert "Retrainer" not in tasks
    for step in ("Evaluator", "Pusher"):
        source = tasks[step]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
        assert source == {"outputArtifactKey": "model", "producerTask": "MorphTrainer-2"}
    outputs = spec["components"]["MorphTrainer-2"]["outputDefinitions"]["artifacts"]
    assert {"structure", "structure_report", "model", "model_metrics"} <= set(outputs)
    assert "model" not in spec["components"]["MorphTrainer-1"]["outputDefinitions"]["artifacts"]
    assert not any("Retrainer" in line for line in lines)


def test_the_job_that_trains_either_way_pushes_what_the_comparison_hands_out(tmp_path):
    tasks = specs(compiled(tmp_path, finishing("both")))[0]["root"]["dag"]["tasks"]
    assert {"MorphTrainer-2", "Retrainer", "Evaluator-in-place", "Evaluator-from-scratch", "Frontier"} <= set(tasks)
    assert "Evaluator" not in tasks
    source = tasks["Pusher"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
    assert source == {"outputArtifactKey": "model", "producerTask": "Frontier"}


DEVICES = """
cost: latency
calibrate: {runtime: xla, dtype: bfloat16, device: serving-node}
export: {formats: [litert, litert-int8], max_accuracy_loss: 0.01}
"""


@pytest.fixture(scope="module")
def with_devices(tmp_path_factory) -> tuple[Path, list[str]]:
    """The job that measures a device first and writes files for others last, and what compiling it said."""
    lines: list[str] = []
    kubeflow = KUBEFLOW + "    DeviceCalibrator: {profile: gpu, node_selector: {serves: flowers}, cache: false}\n"
    return compiled(tmp_path_factory.mktemp("devices"), TEXT + DEVICES + kubeflow, lines), lines


def test_the_job_with_devices_equals_its_golden(with_devices):
    check_golden(with_devices[0], "digits-devices")


def test_a_device_is_measured_on_the_node_that_its_step_is_given(with_devices):
    spec, platform = specs(with_devices[0])
    tasks = spec["root"]["dag"]["tasks"]
    for step in ("MorphTrainer-1", "MorphTrainer-2"):
        source = tasks[step]["inputs"]["artifacts"]["calibration"]["taskOutputArtifact"]
        assert source == {"outputArtifactKey": "calibration", "producerTask": "DeviceCalibrator"}
    container = spec["deploymentSpec"]["executors"]["DeviceCalibrator_executor"]["container"]
    assert container["resources"]["accelerator"]["count"] == "1" or container["resources"]["accelerator"]
    assert tasks["DeviceCalibrator"]["cachingOptions"] == {}
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["DeviceCalibrator_executor"]
    assert placed["nodeSelector"] == {"labels": {"serves": "flowers"}}
    assert not any("DeviceCalibrator" in line for line in with_devices[1])


def test_the_blessed_model_is_exported_and_its_figures_are_shown(with_devices):
    spec, _ = specs(with_devices[0])
    inputs = spec["root"]["dag"]["tasks"]["Exporter"]["inputs"]["artifacts"]
    sources = {name: source["taskOutputArtifact"]["producerTask"] for name, source in inputs.items()}
    assert sources == {
        "model": "Retrainer",
        "model_blessing": "Evaluator",
        "examples": "Transform",
        "transform_graph": "Transform",
    }
    outputs = spec["components"]["Exporter"]["outputDefinitions"]["artifacts"]
    assert set(outputs) == {"exported_model", "exported_model_metrics"}


def test_a_device_without_an_accelerator_is_told_of(tmp_path):
    lines: list[str] = []
    compiled(tmp_path, TEXT + DEVICES + "kubeflow: {image: x}\n", lines)
    assert any(
        "No accelerator: DeviceCalibrator measures the CPUs of the node that it comes to" in line for line in lines
    )


def test_the_same_configuration_gives_the_same_bytes(job, tmp_path):
    assert compiled(tmp_path).read_bytes() == job.read_bytes()


def test_the_kfp_sdk_loads_the_job(job):
    from kfp import components

    component = components.load_component_from_file(str(job))
    assert component.name == "digits"
    assert set(component.pipeline_spec.root.dag.tasks) == set(specs(job)[0]["root"]["dag"]["tasks"])
    assert set(component.platform_spec.platforms) == {"kubernetes"}


def test_the_schema_is_the_one_that_kubeflow_runs(spec):
    assert spec["schemaVersion"] == "2.1.0"
    assert spec["defaultPipelineRoot"] == "minio://mlpipeline/v2/artifacts/digits"


def test_every_step_runs_in_the_image_and_none_is_a_resolver(spec):
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) == 10
    images = {name: executor["container"]["image"] for name, executor in executors.items()}
    assert images.pop("Transform_executor") == "registry.example.com/data:1"
    assert set(images.values()) == {"registry.example.com/morph-tfx:1"}


def test_every_component_of_a_job_is_one_that_entries_may_name(spec):
    names = {name.rsplit("-", 1)[0] if name[-1].isdigit() else name for name in spec["root"]["dag"]["tasks"]}
    assert names <= set(COMPONENTS)


def test_the_cycles_depend_on_each_other(spec):
    tasks = spec["root"]["dag"]["tasks"]
    assert "MorphTrainer-1" in tasks["MorphTrainer-2"]["dependentTasks"]
    assert "MorphTrainer-2" in tasks["Retrainer"]["dependentTasks"]
    seed = tasks["MorphTrainer-2"]["inputs"]["artifacts"]["seed_structure"]["taskOutputArtifact"]
    assert (seed["producerTask"], seed["outputArtifactKey"]) == ("MorphTrainer-1", "structure")


def test_the_module_file_is_that_of_the_image(spec):
    for task in ("Transform", "MorphTrainer-1", "Retrainer"):
        parameters = spec["root"]["dag"]["tasks"][task]["inputs"]["parameters"]
        assert parameters["module_file"]["runtimeValue"]["constant"] == "/opt/morph-tfx/modules/module.py"


def test_what_differs_from_a_local_run_is_said(tmp_path):
    lines: list[str] = []
    local = TEXT.replace("gs://bucket/digits", "data").replace("gs://bucket/serving", "pushed")
    compiled(tmp_path, local + "kubeflow: {image: x}\n", lines)
    text = "\n".join(lines)
    assert "10 steps, image x" in text
    assert "open-source Kubeflow cannot look up the latest blessed model" in text
    assert "No accelerator" in text
    assert f"data.path is {tmp_path / 'data'}, a path that every pod must be able to see" in text
    assert "Otherwise set kubeflow.push_to" in text


@pytest.mark.parametrize("place", ["gs://bucket/serving/1", "/mnt/serving/1"])
def test_a_named_baseline_is_read_by_a_step_in_each_run_and_compared_with(tmp_path, place):
    """An importer takes no path, and what Pusher leaves is not laid out as the model that Evaluator opens."""
    lines: list[str] = []
    job = compiled(tmp_path, TEXT + f"kubeflow: {{image: x, baseline_model: {place}}}\n", lines)
    spec = yaml.safe_load(job.read_text())
    reader = spec["root"]["dag"]["tasks"]["BaselineModel"]
    assert reader["inputs"]["parameters"]["path"]["runtimeValue"]["constant"] == place
    assert reader["cachingOptions"] == {}
    assert "container" in spec["deploymentSpec"]["executors"]["BaselineModel_executor"]
    on_a_volume = "kubeflow.baseline_model is /mnt/serving/1, a path on a volume that the step BaselineModel must mount"
    assert any(on_a_volume in line for line in lines) == place.startswith("/")
    evaluator = spec["root"]["dag"]["tasks"]["Evaluator"]["inputs"]
    assert evaluator["artifacts"]["baseline_model"]["taskOutputArtifact"]["producerTask"] == "BaselineModel"
    assert "change_threshold" in evaluator["parameters"]["eval_config"]["runtimeValue"]["constant"]


def test_a_baseline_that_only_the_launcher_reads_is_imported(tmp_path):
    lines: list[str] = []
    place = "minio://mlpipeline/v2/artifacts/digits/run/Retrainer/1/model"
    [spec] = specs(compiled(tmp_path, TEXT + f"kubeflow: {{image: x, baseline_model: '{place}'}}\n", lines))
    importer = spec["deploymentSpec"]["executors"]["BaselineModel_executor"]["importer"]
    assert importer["artifactUri"]["constant"] == place
    assert any("must be an artifact of an earlier run" in line for line in lines)


def test_paths_of_the_cluster_replace_those_of_this_machine(tmp_path):
    paths = "data_path: s3://b/data, push_to: s3://b/out, module_dir: /modules, checkpoint_dir: /mnt/c"
    [spec] = specs(compiled(tmp_path, TEXT + f"kubeflow: {{image: x, {paths}}}\n"))
    tasks = spec["root"]["dag"]["tasks"]

    def constant(task: str, name: str) -> str:
        return tasks[task]["inputs"]["parameters"][name]["runtimeValue"]["constant"]

    assert constant("ImportExampleGen", "input_base") == "s3://b/data"
    assert "s3://b/out" in constant("Pusher", "push_destination")
    assert constant("Retrainer", "module_file") == "/modules/module.py"
    for step in ("MorphTrainer-1", "Retrainer"):
        assert json.loads(constant(step, "custom_config"))["checkpoint_dir"] == "/mnt/c"


def test_a_configuration_without_a_kubeflow_section_is_refused(tmp_path):
    with pytest.raises(MorphError, match=r"kubeflow: missing.*For example: kubeflow: \{image: "):
        compiled(tmp_path, TEXT)
    assert list(tmp_path.iterdir()) == []


def test_another_file_format_is_refused(tmp_path):
    config = parse_config(TEXT + KUBEFLOW, "config.yaml", tmp_path)
    with pytest.raises(MorphError, match=r"--output: expected a name that ends in .yaml, got .*job.json"):
        compile_pipeline(config, tmp_path / "job.json")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_kfp_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kfp", None)
    with pytest.raises(MorphError, match=r"needs kfp, which is not installed.*morph-tfx\[tfx,kubeflow\]"):
        compiled(tmp_path)
    assert list(tmp_path.iterdir()) == []
