"""Submitting, against a server that follows the API's description and fails in every way that we know.

The law throughout: whatever goes wrong on the way, nothing is there twice afterwards.
"""

import itertools

import pytest
import yaml

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow.runs import submit
from morph_tfx.pipelines.kubeflow.upload import Job
from tests.pipelines.kubeflow.client import WAYS, Patience, Waiting, connect, counts, write_job
from tests.pipelines.kubeflow.server import TOKEN, KubeflowServer


def test_a_job_is_uploaded_and_run(server, job):
    run = submit(connect(server), job)
    [stored] = server.state.runs.values()
    [version] = server.state.pipeline_versions.values()
    [experiment] = server.state.experiments.values()
    assert run.run_id == stored["run_id"]
    assert run.url == f"{server.url}/#/runs/details/{run.run_id}"
    assert stored["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert stored["display_name"].startswith(job.version)
    assert version["display_name"] == job.version
    assert version["pipeline_spec"] == yaml.safe_load(job.path.read_text())
    assert experiment["display_name"] == "digits"
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {TOKEN}"}


def test_the_same_job_is_there_once_and_runs_as_often_as_it_is_submitted(server, job):
    api = connect(server)
    first, second = submit(api, job), submit(api, job)
    assert first.version.uploaded and not second.version.uploaded
    assert counts(server) == [1, 1, 1, 2]


def test_another_content_is_another_version_of_the_same_pipeline(server, tmp_path):
    api = connect(server)
    for image in "abc":
        submit(api, write_job(tmp_path, image=image))
    assert counts(server) == [1, 3, 1, 3]


def test_a_run_name_is_used_once(server, job):
    api = connect(server)
    first, second = (submit(api, job, run_name="for-commit-1") for _ in range(2))
    assert first.started and not second.started
    assert first.run_id == second.run_id
    assert len(server.state.runs) == 1


def test_many_objects_of_other_names_do_not_hide_ours(server, tmp_path, job):
    api = connect(server)
    for name in ("a", "b", "c", "d", "e"):  # the server's pages hold two
        submit(api, write_job(tmp_path, name=name))
    assert submit(api, job).version.uploaded
    assert not submit(api, job).version.uploaded
    assert len(server.state.pipelines) == 6


def test_several_users_each_have_their_namespace(job):
    with KubeflowServer(multi_user=True, token=TOKEN) as server:
        with pytest.raises(MorphError, match=r"namespace is required"):
            submit(connect(server), job)
        submit(connect(server, namespace="team-a"), job)
        [experiment] = server.state.experiments.values()
        [pipeline] = server.state.pipelines.values()
        assert experiment["namespace"] == pipeline["namespace"] == "team-a"


@pytest.mark.parametrize("way", WAYS)
def test_a_submission_survives_any_one_failure_of_any_request(job, way):
    """Each request of a submission in turn fails once. Afterwards there is one of everything."""
    for number in itertools.count():
        with KubeflowServer(token=TOKEN) as server:
            patience = Patience(server)
            seen = itertools.count()
            server.fail(way, delay=0.5)
            [fault], server.faults = server.faults, []
            server.fault_for = lambda m, p, n=number, f=fault: f if next(seen) == n else None  # noqa: B023
            submit(connect(server, patience), job)
            assert counts(server) == [1, 1, 1, 1]
            if next(seen) <= number:
                assert patience.waits == []
                break
            assert 1 <= len(patience.waits) <= 2
    assert number == 9  # look and create, four times, and one last look


@pytest.mark.parametrize("path", ["/pipelines$", "/pipelines/upload_version$", "/experiments$", "/runs$"])
def test_a_request_that_is_executed_after_it_timed_out_leaves_one_object(server, job, path):
    """The worst case: we look before the late request has had its effect, and ask a second time."""
    server.fail("late", "POST", path, delay=0.4)
    api = connect(server, Waiting(server, 0.0), timeout=0.3)
    submit(api, job)
    assert counts(server) == [1, 1, 1, 1]


PAGE = b"<html>Log in</html>"
CREATING = ["/pipelines$", "/upload_version$", "/experiments$", "/runs$"]


@pytest.mark.parametrize("path", CREATING)
@pytest.mark.parametrize(
    "answer",
    [{}, {"body": b"[]"}, {"body": b"{}"}, {"body": PAGE, "headers": {"Content-Type": "text/html"}}],
    ids=["half", "list", "nothing", "page"],
)
def test_an_answer_that_cannot_be_read_to_what_was_executed_is_looked_into(server, job, path, answer):
    patience = Patience(server)
    server.fail("garbled", "POST", path, **answer)
    run = submit(connect(server, patience), job)
    assert counts(server) == [1, 1, 1, 1]
    assert run.started and run.run_id in server.state.runs
    assert len(patience.lines) == 1


@pytest.mark.parametrize("path", CREATING)
@pytest.mark.parametrize("body", [b'{"run_id', b"[]", b"{}"])
def test_an_answer_that_is_never_readable_ends_in_one_message(server, job, path, body):
    server.fail(200, "POST", path, times=float("inf"), body=body)
    with pytest.raises(MorphError, match=r"asked 6 times.*its answer cannot be read: not the JSON that is expected"):
        submit(connect(server), job)


def test_where_it_is_not_known_whether_a_run_was_started_the_message_says_how_to_go_on(server, job):
    """The login page comes in the middle and stays: a command that is merely repeated would start a second run."""
    api = connect(server)
    submit(api, job, run_name="other")
    page = {"body": PAGE, "headers": {"Content-Type": "text/html"}}
    server.fail("garbled", "POST", "/runs$", **page)
    server.fail(200, "GET", "/runs$", times=float("inf"), **page)
    [posted, listed] = server.faults
    server.fault_for = lambda method, path: (
        listed if (method, posted.times) == ("GET", 0) else KubeflowServer.fault_for(server, method, path)
    )
    server.faults = [posted]
    with pytest.raises(MorphError, match=r"not known whether .* was executed. Give the command with --run-name") as end:
        submit(api, job)
    [name] = [one["display_name"] for one in server.state.runs.values() if one["display_name"] != "other"]
    assert f"--run-name {name}" in str(end.value)
    server.fault_for = lambda method, path: None
    assert not submit(api, job, run_name=name).started
    assert len(server.state.runs) == 2


def test_a_run_names_the_root_of_its_artifacts_since_the_server_does_not_look_for_it_in_the_job(server, tmp_path):
    job = write_job(tmp_path)
    job.path.write_text(job.path.read_text() + "defaultPipelineRoot: minio://mlpipeline/mine\n")
    submit(connect(server), Job.load(job.path))
    [stored] = server.state.runs.values()
    assert stored["runtime_config"] == {"parameters": {}, "pipeline_root": "minio://mlpipeline/mine"}
