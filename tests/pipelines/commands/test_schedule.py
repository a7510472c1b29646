"""`morph-tfx schedule ...`, from the command line to the server and back."""

import json

import pytest
import yaml

from morph_tfx.pipelines.kubeflow import compiler
from tests.pipelines.kubeflow.client import schedules_of, write_job


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


CONFIG = {
    "name": "flowers",
    "data": {"format": "tfrecord", "path": "gs://bucket/flowers", "splits": {"train": "train/*", "eval": "eval/*"}},
    "module_file": "module.py",
    "label": "label",
    "target": 0.5,
    "search": {"epochs": 1},
    "retrain": {"epochs": 1},
    "evaluate": {"lower_bound": 0.9},
    "kubeflow": {"image": "image:1"},
}


@pytest.fixture
def compilations(monkeypatch, tmp_path):
    """The pipelines that were compiled, in the place of TFX's compiler: a job of the right name each."""
    done = []

    def compile_pipeline(config, path, say, verbose, pipeline):
        done.append(pipeline)
        name = {"morph": config.name, "retrain": config.retrain_pipeline_name}[pipeline]
        path.write_text(write_job(tmp_path, name, image=config.kubeflow.image).path.read_text())

    monkeypatch.setattr(compiler, "compile_pipeline", compile_pipeline)
    return done


@pytest.fixture
def config(tmp_path):
    """config(image) is a configuration file."""

    def write(image="image:1"):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**CONFIG, "kubeflow": {"image": image}}))
        return path

    return write


@pytest.fixture
def nightly(invoke, config, compilations):
    """A schedule of retrainings."""
    create = ("schedule", "--cron", "0 3 * * *", "--config", config(), "--pipeline", "retrain", "--name", "nightly")
    invoke(*create)
    compilations.clear()
    return create


def pipeline_of(server, name="nightly"):
    [stored] = schedules_of(server, name)
    return server.state.pipelines[stored["pipeline_version_reference"]["pipeline_id"]]["display_name"]


def test_another_hour_leaves_a_retraining_what_it_is(invoke, server, config, nightly, compilations):
    """The configuration says how to reach the cluster; it does not say that the search is to run every night."""
    invoke("schedule", "update", "nightly", "--cron", "30 4 * * *", "--config", config("image:2"))
    [stored] = schedules_of(server, "nightly")
    assert stored["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert pipeline_of(server) == "flowers-retrain"
    assert (compilations, len(server.state.pipeline_versions)) == ([], 1)


def test_what_is_scheduled_changes_where_its_pipeline_is_named(invoke, server, config, nightly, compilations):
    invoke("schedule", "update", "nightly", "--config", config("image:2"), "--pipeline", "retrain")
    assert (pipeline_of(server), compilations, len(server.state.pipeline_versions)) == (
        "flowers-retrain",
        ["retrain"],
        2,
    )
    invoke("schedule", "update", "nightly", "--config", config(), "--pipeline", "morph")
    assert pipeline_of(server) == "flowers"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "CONFIG"], "name the pipeline that the schedule is to run as it is configured now"),
        (["--pipeline", "retrain"], "--pipeline names one of the pipelines of --config"),
        (["--pipeline", "retrain", "--config", "CONFIG", "--job", "JOB"], "--job is a job already"),
    ],
)
def test_an_update_that_does_not_say_what_to_run_changes_nothing(
    invoke, server, config, job, nightly, compilations, arguments, said
):
    before = json.dumps(server.state.recurringRuns)
    files = {"CONFIG": config(), "JOB": job}
    output = invoke("schedule", "update", "nightly", *[files.get(one, one) for one in arguments], exit_code=2)
    assert said in " ".join(output.split())
    assert (compilations, json.dumps(server.state.recurringRuns)) == ([], before)


def test_an_unknown_name_fails_before_anything_is_compiled_or_uploaded(invoke, server, config, nightly, compilations):
    output = invoke(
        "schedule", "update", "nihgtly", "--config", config("image:2"), "--pipeline", "retrain", exit_code=2
    )
    assert "There is no schedule 'nihgtly'; did you mean 'nightly'?" in output
    assert (compilations, len(server.state.pipeline_versions)) == ([], 1)


@pytest.mark.parametrize("command", ["create", "update"])
def test_a_schedule_of_somebody_else_is_found_before_anything_is_compiled(
    invoke, server, config, nightly, compilations, command
):
    schedules_of(server, "nightly")[0]["description"] = "made in the UI"
    to_update = ["schedule", "update", "nightly", "--config", config("image:2"), "--pipeline", "retrain"]
    output = invoke(*(to_update if command == "update" else nightly), exit_code=2)
    assert "was not made by morph-tfx, and it is left alone" in output
    assert (compilations, len(server.state.pipeline_versions)) == ([], 1)


def test_creating_it_again_without_its_pipeline_is_no_way_to_a_search(invoke, server, config, nightly, compilations):
    without = [one for one in nightly if one not in ("--pipeline", "retrain")]
    output = invoke(*without, exit_code=2)
    assert "runs another pipeline than 'flowers'" in output and "--pipeline retrain" in output
    assert (pipeline_of(server), compilations) == ("flowers-retrain", [])
    assert "Nothing to do: there is the schedule nightly" in invoke(*nightly)
    invoke(*without, "--pipeline", "morph")
    assert pipeline_of(server) == "flowers"


def test_a_new_schedule_runs_the_search_and_again_does_so(invoke, server, config, compilations):
    for said in ("Set up the schedule flowers", "Nothing to do: there is the schedule flowers"):
        assert said in invoke("schedule", "--cron", "@weekly", "--config", config())
    assert compilations == ["morph", "morph"]


WITH_PARAMETERS = {
    "root": {
        "dag": {"tasks": {}},
        "inputDefinitions": {
            "parameters": {
                "retrain_epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 30},
                "span": {"parameterType": "STRING", "defaultValue": ""},
            }
        },
    }
}


def with_parameters(path):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **WITH_PARAMETERS}))
    return path


def test_a_schedule_hands_its_runs_what_they_are_told(invoke, server, job):
    create = ["schedule", "--cron", "@daily", "--job", with_parameters(job)]
    invoke(*create, "--parameter", "retrain_epochs=60", "--parameter", "span=7")
    [stored] = schedules_of(server)
    assert stored["runtime_config"]["parameters"] == {"retrain_epochs": 60, "span": "7"}
    stored["runtime_config"]["parameters"]["retrain_epochs"] = 60.0  # as the API gives numbers back
    again = invoke(*create, "--parameter", "span=7", "--parameter", "retrain_epochs=60")
    assert "Nothing to do: there is the schedule digits" in again
    invoke("schedule", "update", "digits", "--cron", "@weekly")
    assert schedules_of(server)[0]["runtime_config"]["parameters"] == {"retrain_epochs": 60, "span": "7"}
    invoke("schedule", "update", "digits", "--job", job, "--parameter", "span=8")
    assert schedules_of(server)[0]["runtime_config"]["parameters"] == {"retrain_epochs": 60, "span": "8"}
    [listed] = json.loads(invoke("schedule", "list", "--json"))
    assert listed["parameters"] == {"retrain_epochs": 60, "span": "8"}


def test_an_unknown_parameter_changes_nothing(invoke, server, job):
    invoke("schedule", "--cron", "@daily", "--job", with_parameters(job), "--parameter", "epochs=1", exit_code=2)
    assert server.requests == []
    said = invoke("schedule", "update", "digits", "--parameter", "span=1", exit_code=2)
    assert "--parameter needs the job that has them" in said
