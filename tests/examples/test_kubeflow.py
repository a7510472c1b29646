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


def test_every_command_is_typed_by_a_test_or_needs_docker(example):
    kinds = [re.match(r"docker|python|morph-tfx \w+", command) for command in example.commands]
    assert [kind and kind[0] for kind in kinds] == [
        "python", "morph-tfx run", "docker", "docker", "morph-tfx compile", "morph-tfx submit", "morph-tfx schedule",
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
