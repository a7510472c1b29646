"""What the steps of a compiled job need from the cluster: in the job itself, and in its second document."""

import json
import sys
from pathlib import Path

import pytest

from morph_core import MorphError
from tests.pipelines.kubeflow.jobs import TEXT, compiled, specs

TRAINING = {"MorphTrainer-1_executor", "MorphTrainer-2_executor", "Retrainer_executor"}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def spec(job) -> dict:
    return specs(job)[0]


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
