"""The commands that talk to a cluster, from the command line to the server and back."""

import functools
import json

import pytest
from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.kubeflow import api
from tests.pipelines.kubeflow.server import KubeflowServer
from tests.pipelines.kubeflow.test_schedule import TOKEN, _no_credentials_of_our_own, schedules_of, write_job

__all__ = ["_no_credentials_of_our_own"]

CONFIG = """
name: digits
data: {{format: tfrecord, path: gs://bucket/digits, splits: {{train: train/*, eval: eval/*}}}}
module_file: module.py
label: label
target: 0.5
search: {{epochs: 1}}
retrain: {{epochs: 1}}
evaluate: {{lower_bound: 0.9}}
push_to: gs://bucket/serving
kubeflow: {{image: "registry.example.com/morph-tfx:1"}}
kubeflow_api: {{endpoint: {endpoint}, experiment: nightly, service_account: runner, token_file: token}}
"""


@pytest.fixture
def server():
    with KubeflowServer(token=TOKEN) as running:
        yield running


@pytest.fixture
def invoke(server, tmp_path):
    (tmp_path / "token").write_text(TOKEN)

    def call(*arguments, exit_code=0, **environment):
        connection = {"KFP_ENDPOINT": server.url, "KFP_TOKEN_FILE": str(tmp_path / "token"), **environment}
        result = CliRunner(env=connection).invoke(cli, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, result.output
        assert TOKEN not in result.output
        return result.output

    return call


@pytest.fixture
def job(tmp_path):
    return write_job(tmp_path).path


def test_a_job_is_submitted(invoke, server, job):
    output = invoke("submit", "--job", job)
    [run] = server.state.runs.values()
    assert f"Started the run {run['display_name']} ({run['run_id']})" in output
    assert f"{server.url}/#/runs/details/{run['run_id']}" in output
    assert "Uploaded digits-" in output
    assert "Already there: digits-" in invoke("submit", "--job", job)


def test_a_configuration_is_compiled_uploaded_and_started_with_its_own_settings(invoke, server, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG.format(endpoint=server.url))
    output = invoke("submit", "--config", tmp_path / "config.yaml", KFP_ENDPOINT="", KFP_TOKEN_FILE="")
    [version] = server.state.pipeline_versions.values()
    [run] = server.state.runs.values()
    [experiment] = server.state.experiments.values()
    assert "Started the run" in output
    assert set(version["pipeline_spec"]["root"]["dag"]["tasks"]) >= {"MorphTrainer-1", "Retrainer", "Pusher"}
    assert (run["service_account"], experiment["display_name"]) == ("runner", "nightly")
    again = invoke("submit", "--config", tmp_path / "config.yaml", KFP_ENDPOINT="", KFP_TOKEN_FILE="")
    assert "Already there: digits-" in again  # the same configuration compiles to the same bytes


@pytest.mark.parametrize("create", [["schedule"], ["schedule", "create"]], ids=" ".join)
def test_a_schedule_is_created_listed_changed_switched_and_deleted(invoke, server, job, create):
    said = invoke(*create, "--cron", "0 3 * * *", "--job", job)
    [made] = schedules_of(server)
    assert f"Set up the schedule digits ({made['recurring_run_id']}): 0 3 * * *, enabled, at most 1 at once" in said
    assert "Times are UTC" in said
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert "Nothing to do: there is the schedule digits" in invoke(*create, "--cron", "0 3 * * *", "--job", job)

    table = invoke("schedule", "list")
    for part in ("digits", "0 3 * * *", "enabled", "no", "morph-tfx", "Times are UTC"):
        assert part in table
    [listed] = json.loads(invoke("schedule", "list", "--json"))
    assert (listed["name"], listed["cron"], listed["enabled"]) == ("digits", "0 3 * * *", True)
    assert listed["id"] == made["recurring_run_id"]

    said = invoke("schedule", "update", "digits", "--cron", "30 4 * * sun", "--max-concurrency", "2")
    assert "Updated the schedule digits" in said and "30 4 * * sun, enabled, at most 2 at once" in said
    invoke("schedule", "disable", "digits")
    assert schedules_of(server)[0]["status"] == "DISABLED"
    invoke("schedule", "enable", "digits")
    assert schedules_of(server)[0]["status"] == "ENABLED"
    invoke("schedule", "delete", "digits")
    assert schedules_of(server) == []


def test_an_update_can_go_over_to_another_job(invoke, server, job, tmp_path):
    invoke("schedule", "--cron", "@daily", "--job", job, "--name", "nightly", "--disabled")
    invoke("schedule", "update", "nightly", "--job", write_job(tmp_path, image="image:2").path)
    [stored] = schedules_of(server, "nightly")
    versions = server.state.pipeline_versions
    now = versions[stored["pipeline_version_reference"]["pipeline_version_id"]]
    assert "image:2" in json.dumps(now["pipeline_spec"])
    assert (stored["status"], stored["trigger"]["cron_schedule"]["cron"]) == ("DISABLED", "0 0 0 * * *")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["submit"], "One of --config and --job is expected"),
        (["schedule", "--job", "JOB"], "Missing option '--cron'"),
        (["schedule", "--cron", "0 25 * * *", "--job", "JOB"], "'25' in '0 25 * * *' is no hour"),
        (
            ["schedule", "--cron", "@daily", "--job", "JOB", "--max-concurrency", "11"],
            "11 is not in the range 1<=x<=10",
        ),
        (["schedule", "update", "digits"], "Nothing to change"),
        (["schedule", "enable", "digits"], "There is no schedule 'digits'; there are none."),
        (["schedule", "list", "--endpoint", "somewhere"], "endpoint: expected the address"),
    ],
)
def test_a_mistake_ends_in_one_message_and_exit_code_2(invoke, server, job, arguments, said):
    output = invoke(*[str(job) if one == "JOB" else one for one in arguments], exit_code=2)
    assert said in output
    assert "Traceback" not in output
    assert server.state.recurringRuns == server.state.runs == {}


def test_without_an_endpoint_the_message_says_how_to_name_one(invoke):
    output = invoke("schedule", "list", KFP_ENDPOINT="", exit_code=2)
    assert "--endpoint URL, KFP_ENDPOINT or kubeflow_api.endpoint" in output


def test_waiting_is_told_and_a_refusal_is_one_message(invoke, server, job, monkeypatch):
    impatient = functools.partial(api.KubeflowApi, sleep=lambda _: None)
    monkeypatch.setattr(api, "KubeflowApi", impatient)
    server.fail(503)
    assert "the server answered 503 (injected). Trying again in" in invoke("submit", "--job", job)
    server.token = "another"
    output = invoke("submit", "--job", job, exit_code=2)
    assert "status 401, it does not know us; the token of the file" in output


def test_no_command_takes_a_secret_as_an_argument():
    """What is on a command line can be read by every user of the machine."""
    schedule = cli.commands["schedule"]
    for command in (cli.commands["submit"], *schedule.commands.values()):
        for parameter in command.params:
            if parameter.name and any(word in parameter.name for word in ("token", "cookie", "password", "secret")):
                assert parameter.name.endswith("_file")
