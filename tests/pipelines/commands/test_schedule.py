"""`morph-tfx schedule ...`, from the command line to the server and back."""

import json

import pytest

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
