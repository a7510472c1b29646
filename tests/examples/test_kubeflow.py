"""The job for a cluster: compiled, uploaded and scheduled as the README says, and run by the stand-in for Kubeflow."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli
from tests.examples.copies import Copy, copied
from tests.kubeflow.launcher import Cluster
from tests.pipelines.kubeflow.server import KubeflowServer

STEPS = {
    "ImportExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform", "MorphTrainer-1", "Retrainer",
    "Evaluator", "Pusher",
}  # fmt: skip
TRAINING = {"MorphTrainer-1", "Retrainer"}
IMAGE = "registry.example.com/digits:1"


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Copy:
    return copied("kubeflow", tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def server():
    with KubeflowServer() as running:
        yield running


@pytest.fixture(scope="module")
def typed(example, server) -> dict[str, str]:
    """What the README's commands that concern the cluster printed, by their second word."""
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(example.directory)
        for name in ("KFP_TOKEN", "KFP_TOKEN_FILE", "KFP_COOKIE", "KFP_COOKIE_FILE", "KFP_NAMESPACE"):
            patch.delenv(name, raising=False)
        patch.setenv("KFP_ENDPOINT", server.url)
        for command in example.commands:
            program, *arguments = shlex.split(command)
            if program == "morph-tfx" and arguments[0] != "run":
                result = CliRunner().invoke(cli, arguments)
                assert result.exit_code == 0, result.output
                printed[arguments[0]] = result.output
    return printed


@pytest.fixture(scope="module")
def job(typed, example) -> list[dict]:
    """The two documents of the compiled job."""
    return list(yaml.safe_load_all((example.directory / "job.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def containers(job) -> dict[str, dict]:
    """What the first document says of each step's container."""
    executors = job[0]["deploymentSpec"]["executors"]
    return {name.removesuffix("_executor"): executor["container"] for name, executor in executors.items()}


@pytest.fixture(scope="module")
def settings(job) -> dict[str, dict]:
    """What the second document, for Kubernetes, says of each step."""
    executors = job[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removesuffix("_executor"): executor for name, executor in executors.items()}


def test_every_command_is_typed_by_a_test_or_needs_docker_or_a_cluster(example):
    kinds = [re.match(r"docker|kubectl|python|morph-tfx \w+", command) for command in example.commands]
    assert [kind and kind[0] for kind in kinds] == [
        "python", "morph-tfx run", "docker", "docker", "morph-tfx compile", "morph-tfx submit", "morph-tfx schedule",
        "kubectl",
    ]  # fmt: skip


def test_the_job_has_every_step_in_the_image_of_the_dockerfile(containers, example):
    assert set(containers) == STEPS
    assert {container["image"] for container in containers.values()} == {IMAGE}
    assert {tuple(container["command"]) for container in containers.values()} == {
        ("python", "-m", "morph_tfx.pipelines.kubeflow.entrypoint")
    }
    [built] = [command for command in example.commands if command.startswith("docker build")]
    assert f"--tag {IMAGE} " in built
    [source, target] = re.findall(r"^COPY (\S+) (\S+)$", (example.directory / "Dockerfile").read_text(), re.MULTILINE)[
        0
    ]
    context = example.directory / built.split()[-1]
    assert (context / source).is_file()
    assert f"constant: {target}{source}" in (example.directory / "job.yaml").read_text()


def test_the_training_steps_alone_get_an_accelerator_and_each_step_its_limits(containers):
    resources = {name: container["resources"] for name, container in containers.items()}
    accelerators = {
        name: (found["accelerator"]["type"], found["accelerator"]["count"])
        for name, found in resources.items()
        if "accelerator" in found
    }
    assert accelerators == dict.fromkeys(TRAINING, ("nvidia.com/gpu", "1"))
    assert {name: found["cpuLimit"] for name, found in resources.items()} == {
        name: 4.0 if name in TRAINING else 2.0 for name in STEPS
    }


def test_secrets_and_volumes_are_there_by_name(settings):
    assert set(settings) == STEPS
    for name, found in settings.items():
        assert [secret["secretName"] for secret in found["imagePullSecret"]] == ["registry"]
        [mounted] = found["secretAsVolume"]
        assert (mounted["secretName"], mounted["mountPath"]) == ("bucket-key", "/var/secrets/bucket")
        volumes = [(volume["constant"], volume["mountPath"]) for volume in found.get("pvcMount", ())]
        assert volumes == ([("checkpoints", "/mnt/checkpoints")] if name in TRAINING else [])
    for name in TRAINING:
        assert settings[name]["nodeSelector"] == {"labels": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}
        assert settings[name]["activeDeadlineSeconds"] == str(6 * 3600)
        assert [toleration["key"] for toleration in settings[name]["tolerations"]] == ["nvidia.com/gpu"]


def test_a_failed_step_is_tried_again(job):
    tasks = job[0]["root"]["dag"]["tasks"]
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks.values()} == {2}


def test_the_commands_for_the_cluster_start_a_run_and_a_nightly_retraining(typed, server):
    [run] = server.state.runs.values()
    assert run["run_id"] in typed["submit"]
    [schedule] = server.state.recurringRuns.values()
    assert schedule["display_name"] == "digits-nightly"
    assert schedule["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"  # Kubeflow's cron begins with seconds
    uploaded = {version["display_name"] for version in server.state.pipeline_versions.values()}
    assert len(uploaded) == 2, "the search and the retraining are two jobs"


# The fields of an InferenceService that a manifest here may use, with their types: read in KServe's own definition,
# config/crd/full/serving.kserve.io_inferenceservices.yaml (v1beta1) at commit aaac4e29 of kserve/kserve, whose chart of
# definitions is v0.20.0. That file is 2 MB; against all of it the manifest was validated by hand.
TEXT, COUNT, TEXTS = str, int, {"*": str}
INFERENCE_SERVICE = {
    "apiVersion": TEXT,
    "kind": TEXT,
    "metadata": {"name": TEXT, "namespace": TEXT, "annotations": TEXTS, "labels": TEXTS},
    "spec": {
        "predictor": {
            "minReplicas": COUNT,
            "maxReplicas": COUNT,
            "canaryTrafficPercent": COUNT,
            "serviceAccountName": TEXT,
            "nodeSelector": TEXTS,
            "model": {
                "modelFormat": {"name": TEXT, "version": TEXT},
                "protocolVersion": TEXT,
                "runtime": TEXT,
                "runtimeVersion": TEXT,
                "storageUri": TEXT,
                "resources": {"requests": TEXTS, "limits": TEXTS},
            },
        }
    },
}


def misfits(value, expected, where="") -> list[str]:
    """The places where a manifest departs from the fields that there are."""
    if not isinstance(expected, dict):
        return [] if type(value) is expected else [f"{where} is {value!r}, not {expected.__name__}"]
    if not isinstance(value, dict):
        return [f"{where} is no mapping"]
    found = []
    for name, inner in value.items():
        kind = expected.get(name, expected.get("*"))
        found += [f"{where}.{name} is unknown"] if kind is None else misfits(inner, kind, f"{where}.{name}")
    return found


def manifest(example: Copy) -> dict:
    return yaml.safe_load((example.directory / "inference_service.yaml").read_text(encoding="utf-8"))


def test_the_inference_service_has_fields_that_kserve_knows(example):
    service = manifest(example)
    assert misfits(service, INFERENCE_SERVICE) == []
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    # What the definition requires, and what the runtime of that name takes (config/runtimes, same commit).
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] == "tensorflow" and model["modelFormat"]["version"] in ("1", "2")
    assert model["runtime"] == "kserve-tensorflow-serving" and model["protocolVersion"] in ("v1", "grpc-v1")
    quantity = r"[0-9]+(\.[0-9]*)?([KMGTPE]i|[numkMGTPE])?"
    for amounts in model["resources"].values():
        assert all(re.fullmatch(quantity, amount) for amount in amounts.values())


def test_a_misspelled_field_is_noticed(example):
    service = manifest(example)
    service["spec"]["predictor"]["model"]["storageURI"] = "gs://b"
    service["spec"]["predictor"]["minReplicas"] = "1"
    assert misfits(service, INFERENCE_SERVICE) == [
        ".spec.predictor.minReplicas is '1', not int",
        ".spec.predictor.model.storageURI is unknown",
    ]


def test_the_inference_service_serves_what_the_job_pushes(example):
    config = yaml.safe_load((example.directory / "config.yaml").read_text(encoding="utf-8"))
    assert manifest(example)["spec"]["predictor"]["model"]["storageUri"] == config["kubeflow"]["push_to"]


@pytest.mark.slow  # nine processes that import TFX, one after the other
def test_the_job_runs_to_a_pushed_model_as_kubeflow_would_run_it(tmp_path):
    example = copied("kubeflow", tmp_path)
    data = next(command for command in example.commands if command.startswith("python"))
    example.run(data)
    file = example.directory / "config.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    # Directories of this machine stand for the image, the bucket and the volume.
    places = {
        "module_dir": str(example.directory.parent / "tfx_images"),
        "data_path": str(example.directory / "data"),
        "push_to": str(example.directory / "serving"),
        "checkpoint_dir": str(example.directory / "checkpoints"),
    }
    config["kubeflow"].update(places)
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    example.run(next(command for command in example.commands if command.startswith("morph-tfx compile")))
    run = Cluster(tmp_path / "cluster").run(example.directory / "job.yaml")
    assert run.in_state("succeeded") == STEPS, str(run)
    [model] = (example.directory / "serving").iterdir()
    assert (model / "saved_model.pb").exists()


@pytest.mark.slow  # a whole pipeline; that of the other examples is in their tests
def test_the_same_configuration_runs_on_this_machine(tmp_path):
    example = copied("kubeflow", tmp_path)
    data, run, *_ = example.commands
    example.run(data)
    printed = example.run(run)
    pushed = re.search(r"^pushed +(\S+)$", printed, re.MULTILINE)
    assert pushed is not None, printed
    assert (Path(pushed[1]) / "saved_model.pb").exists()
