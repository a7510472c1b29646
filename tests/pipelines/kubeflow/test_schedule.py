"""Scheduling, against a server that follows the API's description and fails in every way that we know.

The law throughout: whatever goes wrong on the way, nothing is there twice afterwards, and what is there is what the
last command that succeeded asked for.
"""

import itertools
from dataclasses import replace

import pytest
import yaml

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow import schedule
from morph_tfx.pipelines.kubeflow.api import Connection, KubeflowApi
from morph_tfx.pipelines.kubeflow.credentials import find_credential
from morph_tfx.pipelines.kubeflow.runs import experiment_id
from morph_tfx.pipelines.kubeflow.schedule import Settings
from morph_tfx.pipelines.kubeflow.upload import upload
from tests.pipelines.kubeflow import server as server_module
from tests.pipelines.kubeflow.client import WAYS, Patience, Waiting, connect, schedules_of
from tests.pipelines.kubeflow.server import PREFIX, TOKEN, KubeflowServer


def settings(api, job, cron="0 0 3 * * *", **more):
    version = upload(api, job)
    experiment = experiment_id(api, "nightly")
    return Settings(cron, version.pipeline_id, version.version_id, experiment, **more)


def test_a_schedule_says_what_was_asked_for(server, job):
    api = connect(server)
    made, changed = schedule.put_schedule(api, "digits", settings(api, job, max_concurrency=2))
    [stored] = schedules_of(server)
    assert changed and made.enabled
    assert stored["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (stored["max_concurrency"], stored["no_catchup"], stored["status"]) == ("2", True, "ENABLED")
    assert server.state.runs == {}  # nothing runs before its time


def test_created_twice_there_is_one_and_nothing_changes(server, job):
    api = connect(server)
    first, _ = schedule.put_schedule(api, "digits", settings(api, job))
    second, changed = schedule.put_schedule(api, "digits", settings(api, job))
    assert not changed and second.id == first.id
    assert len(schedules_of(server)) == 1


def test_other_settings_replace_it_and_two_are_never_enabled(server, job):
    api = connect(server)
    old, _ = schedule.put_schedule(api, "digits", settings(api, job))
    before = len(server.requests)
    new, changed = schedule.put_schedule(api, "digits", settings(api, job, cron="0 30 4 * * *"))
    [stored] = schedules_of(server)
    assert changed and new.id != old.id and stored["recurring_run_id"] == new.id
    assert stored["status"] == "ENABLED"
    writes = [
        (one.method, one.path.removeprefix(PREFIX))
        for one in server.requests[before:]
        if one.method != "GET" and "recurringruns" in one.path
    ]
    assert writes == [
        ("POST", "/recurringruns"),
        ("POST", f"/recurringruns/{old.id}:disable"),
        ("POST", f"/recurringruns/{new.id}:enable"),
        ("DELETE", f"/recurringruns/{old.id}"),
    ]
    assert server.received("POST", "/recurringruns$")[-1].body["mode"] == "DISABLE"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", [True, False], ids=["create", "replace"])
def test_a_schedule_survives_any_one_failure_of_any_request(job, way, first):
    for number in itertools.count():
        with KubeflowServer(token=TOKEN) as server:
            patience = Patience(server)
            api = connect(server, patience)
            wanted = settings(api, job)
            if not first:
                schedule.put_schedule(api, "digits", settings(api, job, cron="0 0 1 * * *"))
            seen = itertools.count()
            server.fail(way, delay=0.5)
            [fault], server.faults = server.faults, []
            server.fault_for = lambda m, p, n=number, f=fault: f if next(seen) == n else None  # noqa: B023
            made, changed = schedule.put_schedule(api, "digits", wanted)
            assert changed
            [stored] = schedules_of(server)
            assert stored["recurring_run_id"] == made.id
            assert (stored["trigger"]["cron_schedule"]["cron"], stored["status"]) == ("0 0 3 * * *", "ENABLED")
            if next(seen) <= number:
                break
    assert number == (4 if first else 7)  # three looks and the creation; and disable, enable, delete


@pytest.mark.parametrize("step", range(4))
def test_a_replacement_that_is_cut_short_is_completed_by_the_same_command(server, job, step):
    """The server dies for good after each of the four changes; then the command is given again."""
    api = connect(server)
    schedule.put_schedule(api, "digits", settings(api, job))
    wanted = settings(api, job, cron="0 30 4 * * *")
    paths = [("POST", "/recurringruns$"), ("POST", ":disable$"), ("POST", ":enable$"), ("DELETE", "/recurringruns/")]
    server.fail("die", *paths[step])

    def no_patience(_):
        raise KeyboardInterrupt

    api_cut = KubeflowApi(
        Connection(server.url, credential=find_credential(server.url, environment={"KFP_TOKEN": TOKEN}), timeout=0.25),
        say=lambda _: None,
        sleep=no_patience,
    )
    with pytest.raises(KeyboardInterrupt):
        schedule.put_schedule(api_cut, "digits", wanted)
    assert sum(one["status"] == "ENABLED" for one in schedules_of(server)) <= 1
    server.start()
    # An update that says nothing about the state must not leave it off either.
    if step % 2:
        schedule.update_schedule(api, "digits", lambda _: wanted)
    else:
        schedule.put_schedule(api, "digits", wanted)
    [stored] = schedules_of(server)
    assert (stored["trigger"]["cron_schedule"]["cron"], stored["status"]) == ("0 30 4 * * *", "ENABLED")


def test_a_create_that_is_executed_late_leaves_one_schedule(server, job):
    api = connect(server, Waiting(server, 0.0), timeout=0.3)
    wanted = settings(api, job)
    server.fail("late", "POST", "/recurringruns$", delay=0.4)
    # The second request is slow, too, so that the late one has had its effect when we count.
    server.fail("hang", "POST", "/recurringruns$", delay=0.5)
    schedule.put_schedule(api, "digits", wanted)
    assert [one["status"] for one in schedules_of(server)] == ["ENABLED"]


def test_an_update_changes_what_is_said_and_keeps_the_rest(server, job):
    api = connect(server)
    schedule.put_schedule(api, "digits", settings(api, job, max_concurrency=3, catch_up=True), enabled=False)
    schedule.update_schedule(api, "digits", lambda old: replace(old, cron="0 30 4 * * *"))
    [stored] = schedules_of(server)
    assert stored["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * *"
    assert (stored["max_concurrency"], stored["no_catchup"], stored["status"]) == ("3", False, "DISABLED")


def test_disable_enable_and_delete(server, job):
    api = connect(server)
    schedule.put_schedule(api, "digits", settings(api, job))
    schedule.put_schedule(api, "other", settings(api, job))
    for _ in range(2):
        schedule.enable_schedule(api, "digits", False)
        assert [one["status"] for one in schedules_of(server)] == ["DISABLED"]
    schedule.enable_schedule(api, "digits", True)
    assert [one["status"] for one in schedules_of(server)] == ["ENABLED"]
    server.fail("lost", "DELETE")  # executed, and the answer lost: gone already is as good as deleted
    assert schedule.delete_schedule(api, "digits") == 1
    assert schedules_of(server) == [] and len(schedules_of(server, "other")) == 1


@pytest.mark.parametrize("verb", ["enable", "update", "delete"])
def test_an_unknown_name_is_compared_with_those_that_there_are(server, job, verb):
    api = connect(server)
    schedule.put_schedule(api, "digits", settings(api, job))
    with pytest.raises(MorphError, match=r"There is no schedule 'digit'; did you mean 'digits'?"):
        {
            "enable": lambda: schedule.enable_schedule(api, "digit", True),
            "update": lambda: schedule.update_schedule(api, "digit", lambda old: old),
            "delete": lambda: schedule.delete_schedule(api, "digit"),
        }[verb]()


def test_a_schedule_of_somebody_else_is_left_alone(server, job):
    api = connect(server)
    schedule.put_schedule(api, "digits", settings(api, job))
    [stored] = schedules_of(server)
    stored["description"] = "made in the UI"
    with pytest.raises(MorphError, match=r"was not made by morph-tfx, and it is left alone"):
        schedule.put_schedule(api, "digits", settings(api, job, cron="0 0 4 * * *"))
    assert [one["status"] for one in schedules_of(server)] == ["ENABLED"]


def test_a_server_that_knows_no_filter_does_not_make_us_take_another_for_ours(server, job, monkeypatch):
    api = connect(server)
    schedule.put_schedule(api, "other", settings(api, job))
    monkeypatch.setattr(
        server_module.json, "loads", lambda text: {} if "predicates" in str(text) else yaml.safe_load(text)
    )
    schedule.put_schedule(api, "digits", settings(api, job, cron="0 0 4 * * *"))
    assert len(schedules_of(server)) == len(schedules_of(server, "other")) == 1


def test_what_the_server_fills_in_is_no_change(server, job):
    """Where nobody names a service account, the API answers with its own."""
    api = connect(server)
    made, _ = schedule.put_schedule(api, "digits", settings(api, job))
    assert schedules_of(server)[0]["service_account"] == "pipeline-runner"
    for _ in range(2):
        again, changed = schedule.update_schedule(api, "digits", lambda old: replace(old, max_concurrency=1))
        assert (again.id, changed) == (made.id, False)
    _, changed = schedule.update_schedule(api, "digits", lambda old: replace(old, cron="0 0 5 * * *"))
    assert changed
    assert server.received("POST", "/recurringruns$")[-1].body.get("service_account") is None
    moved, changed = schedule.update_schedule(
        api, "digits", lambda old: replace(old, service_account="pipeline-runner")
    )
    assert changed and moved.settings.service_account == "pipeline-runner"


def test_a_schedule_names_the_root_of_its_runs(server, job):
    api = connect(server)
    wanted = settings(api, job, root="gs://bucket/root")
    schedule.put_schedule(api, "digits", wanted)
    assert schedules_of(server)[0]["runtime_config"] == {"parameters": {}, "pipeline_root": "gs://bucket/root"}
    assert schedule.list_schedules(api, "digits")[0].settings == wanted
    assert schedule.put_schedule(api, "digits", wanted)[1] is False
