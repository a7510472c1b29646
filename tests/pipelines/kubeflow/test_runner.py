"""The compiled job: compared with a golden, loaded by the kfp SDK, the same bytes every time.

The golden is one per TFX version, because TFX decides much of what is in a job. After a change that is meant, write it
anew and read the difference:

    MORPH_TFX_UPDATE_GOLDENS=1 .venv/bin/python -m pytest tests/pipelines/kubeflow/test_runner.py
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
from morph_tfx.pipelines.kubeflow.runner import compile_pipeline

TEXT = """
name: digits
data: {format: tfrecord, path: gs://bucket/digits, splits: {train: train/*, eval: eval/*}}
module_file: module.py
label: label
target: 0.35
expand_to: 0.5
cycles: 2
search: {epochs: 20, batch_size: 64}
retrain: {steps: 500, batch_size: 64}
evaluate: {lower_bound: 0.9, max_drop: 0.02}
push_to: gs://bucket/serving
"""
KUBEFLOW = """
kubeflow:
  image: registry.example.com/morph-tfx:1
  pipeline_root: minio://mlpipeline/v2/artifacts/digits
  accelerator: {type: nvidia.com/gpu, count: 2}
  cpu: 4
  memory: 16
  steps:
    "*": {retries: 2, secrets: [{name: s3, env: {AWS_SECRET_ACCESS_KEY: secretkey}}]}
    MorphTrainer: {profile: gpu, accelerator: {count: 2}, memory_request: 8Gi, timeout: 6h}
    MorphTrainer-2: {env: {TF_CPP_MIN_LOG_LEVEL: "2"}, node_selector: {disk: ssd}}
    Transform: {volumes: [{pvc: datasets, mount: /data}], cpu: 500m, image: registry.example.com/data:1}
    Pusher: {cache: false, retries: {count: 1, backoff: 5m}, secrets: [{name: gcs, mount: /var/secrets/gcs}]}
"""
TRAINING = {"MorphTrainer-1_executor", "MorphTrainer-2_executor", "Retrainer_executor"}


def compiled(directory: Path, text: str = TEXT + KUBEFLOW, lines: list[str] | None = None) -> Path:
    config = parse_config(text, "config.yaml", directory)
    return compile_pipeline(config, directory / "job.yaml", say=(lines if lines is not None else []).append)


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def spec(job) -> dict:
    return specs(job)[0]


def specs(job: Path) -> list[dict]:
    """The documents of a job: the pipeline and, where there is one, the platform."""
    return list(yaml.safe_load_all(job.read_text()))


def test_the_job_equals_its_golden(job):
    golden = Path(__file__).parents[1] / "goldens" / f"digits-tfx-{tfx.__version__}.yaml"
    if os.environ.get("MORPH_TFX_UPDATE_GOLDENS"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(job.read_text())
    if not golden.exists():
        pytest.skip(f"There is no golden for TFX {tfx.__version__}; this file's docstring says how to write one.")
    assert job.read_text() == golden.read_text()


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


def test_the_training_steps_get_the_resources_and_others_what_they_ask_for(spec):
    executors = spec["deploymentSpec"]["executors"]
    accelerator = {"type": "nvidia.com/gpu", "count": "2", "resourceType": "nvidia.com/gpu", "resourceCount": "2"}
    limits = {"cpuLimit": 4.0, "resourceCpuLimit": "4", "memoryLimit": 16.0, "resourceMemoryLimit": "16000M"}
    resources = {
        name: executor["container"]["resources"]
        for name, executor in executors.items()
        if "resources" in executor["container"]
    }
    assert set(resources) == {*TRAINING, "Transform_executor"}
    assert resources["Retrainer_executor"] == {**limits, "accelerator": accelerator}
    requests = {"memoryRequest": 8 * 1.073741824, "resourceMemoryRequest": "8Gi"}
    for name in TRAINING - {"Retrainer_executor"}:
        assert resources[name] == {**limits, **requests, "accelerator": accelerator}
    assert resources["Transform_executor"] == {"cpuLimit": 0.5, "resourceCpuLimit": "500m"}


def test_every_step_runs_in_the_image_and_none_is_a_resolver(spec):
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) == 10
    images = {name: executor["container"]["image"] for name, executor in executors.items()}
    assert images.pop("Transform_executor") == "registry.example.com/data:1"
    assert set(images.values()) == {"registry.example.com/morph-tfx:1"}


def test_retries_environment_and_caching_are_those_of_each_step(spec):
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["SchemaGen"]["retryPolicy"] == {
        "maxRetryCount": 2,
        "backoffDuration": "30s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }
    assert (tasks["Pusher"]["retryPolicy"]["maxRetryCount"], tasks["Pusher"]["retryPolicy"]["backoffDuration"]) == (
        1,
        "300s",
    )
    # Pusher by the configuration; ImportExampleGen always, because the cache's key knows no files.
    uncached = {name for name, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert uncached == {"ImportExampleGen", "Pusher"}
    env = {
        name: executor["container"]["env"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
        if "env" in executor["container"]
    }
    assert env == {"MorphTrainer-2_executor": [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "2"}]}


def test_what_only_kubernetes_knows_is_in_the_second_document(job, spec):
    [platform] = specs(job)[1:]
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(spec["deploymentSpec"]["executors"])  # every step has a secret
    assert executors["SchemaGen_executor"] == {
        "secretAsEnv": [
            {
                "secretName": "s3",
                "secretNameParameter": {"runtimeValue": {"constant": "s3"}},
                "keyToEnv": [{"envVar": "AWS_SECRET_ACCESS_KEY", "secretKey": "secretkey"}],
                **({"optional": False} if "optional" in executors["SchemaGen_executor"]["secretAsEnv"][0] else {}),
            }
        ]
    }
    search = executors["MorphTrainer-2_executor"]
    assert search["activeDeadlineSeconds"] == "21600"
    assert search["nodeSelector"] == {"labels": {"disk": "ssd"}}
    assert search["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert search["emptyDirMounts"] == [
        {"volumeName": "shared-memory", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "1Gi"}
    ]
    assert executors["Transform_executor"]["pvcMount"][0]["mountPath"] == "/data"
    assert executors["Transform_executor"]["pvcMount"][0]["constant"] == "datasets"
    [mounted] = executors["Pusher_executor"]["secretAsVolume"]
    assert (mounted["secretName"], mounted["mountPath"]) == ("gcs", "/var/secrets/gcs")


def test_both_documents_are_messages_of_the_libraries_protos_without_a_field_that_they_do_not_know(job):
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    pipeline, platform = specs(job)
    json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    for executor in pipeline["deploymentSpec"]["executors"].values():
        json_format.ParseDict(executor, pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        message = json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        assert json_format.MessageToDict(message) == settings


def test_a_job_that_asks_nothing_of_kubernetes_has_one_document(tmp_path):
    assert len(specs(compiled(tmp_path, TEXT + "kubeflow: {image: x, cpu: 2}\n"))) == 1


def test_a_key_of_a_secret_may_fill_two_variables(tmp_path):
    env = "secrets: [{name: s3, env: {AWS_SECRET_ACCESS_KEY: k, MINIO_SECRET: k}}]"
    [_, platform] = specs(compiled(tmp_path, TEXT + f"kubeflow: {{image: x, steps: {{Pusher: {{{env}}}}}}}\n"))
    [settings] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    pairs = [pair for secret in settings["secretAsEnv"] for pair in secret["keyToEnv"]]
    assert pairs == [
        {"envVar": "AWS_SECRET_ACCESS_KEY", "secretKey": "k"},
        {"envVar": "MINIO_SECRET", "secretKey": "k"},
    ]


def test_an_entry_for_a_step_that_the_job_has_not_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(MorphError, match=r"kubeflow.steps.MorphTrainer-3: unknown step; did you mean 'MorphTrainer-"):
        compiled(tmp_path, TEXT + "kubeflow: {image: x, steps: {MorphTrainer-3: {cpu: 1}}}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_distribution_of_the_training_reaches_the_step(tmp_path):
    training = "retrain: {steps: 500, batch_size: 64, mixed_precision: true, distribution: {strategy: mirrored}}"
    text = TEXT.replace("retrain: {steps: 500, batch_size: 64}", training)
    [spec] = specs(compiled(tmp_path, text + "kubeflow: {image: x, accelerator: {count: 4}}\n"))
    tasks = spec["root"]["dag"]["tasks"]
    sent = json.loads(tasks["Retrainer"]["inputs"]["parameters"]["custom_config"]["runtimeValue"]["constant"])
    assert (sent["distribution"], sent["mixed_precision"]) == ({"strategy": "mirrored"}, True)
    search = json.loads(tasks["MorphTrainer-1"]["inputs"]["parameters"]["custom_config"]["runtimeValue"]["constant"])
    assert not {"distribution", "mixed_precision"} & set(search)


@pytest.mark.parametrize(
    ("strategy", "step", "message"),
    [
        ("multi_worker_mirrored", "{}", "a step of Kubeflow Pipelines is one pod, which does not know of others"),
        ("tpu", "{profile: gpu}", "the strategy tpu needs a TPU, but the step has nvidia.com/gpu"),
        ("tpu", "{}", "the strategy tpu needs a TPU, but the step has no accelerator"),
        ("mirrored", "{profile: tpu}", "the strategy mirrored trains on GPUs, but the step has google.com/tpu"),
    ],
)
def test_a_distribution_that_the_pod_cannot_serve_is_refused(tmp_path, strategy, step, message):
    text = TEXT.replace("batch_size: 64}", f"batch_size: 64, distribution: {{strategy: {strategy}}}}}")
    with pytest.raises(MorphError, match=message):
        compiled(tmp_path, text + f"kubeflow: {{image: x, steps: {{MorphTrainer: {step}, Retrainer: {step}}}}}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_kfp_kubernetes_names_the_extra(tmp_path, monkeypatch):
    import kfp

    monkeypatch.setitem(sys.modules, "kfp.kubernetes", None)
    monkeypatch.delattr(kfp, "kubernetes", raising=False)
    with pytest.raises(MorphError, match=r"needs kfp-kubernetes. Install it with: .*morph-tfx\[tfx,kubeflow\]"):
        compiled(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kfp_kubernetes_too_old_for_what_is_asked_is_named(tmp_path, monkeypatch):
    from kfp import kubernetes

    monkeypatch.delattr(kubernetes, "add_toleration")
    with pytest.raises(MorphError, match=r"needs kfp-kubernetes' add_toleration, and version [\d.]+ has none.*==1\.5"):
        compiled(tmp_path)
    assert list(tmp_path.iterdir()) == []


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


def test_a_named_baseline_is_imported_and_compared_with(tmp_path):
    job = compiled(tmp_path, TEXT + "kubeflow: {image: x, baseline_model: gs://bucket/serving/1}\n")
    spec = yaml.safe_load(job.read_text())
    importer = spec["deploymentSpec"]["executors"]["BaselineModel_executor"]["importer"]
    assert importer["artifactUri"]["constant"] == "gs://bucket/serving/1"
    evaluator = spec["root"]["dag"]["tasks"]["Evaluator"]["inputs"]
    assert evaluator["artifacts"]["baseline_model"]["taskOutputArtifact"]["producerTask"] == "BaselineModel"
    assert "change_threshold" in evaluator["parameters"]["eval_config"]["runtimeValue"]["constant"]


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
