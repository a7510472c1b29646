"""Submitting and scheduling, against a server that follows the API's description and fails in every way that we know.

The law throughout: whatever goes wrong on the way, nothing is there twice afterwards, and what is there is what the
last command that succeeded asked for.
"""

import itertools
import shutil
import subprocess
import time
from dataclasses import replace

import pytest
import yaml

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow import schedule
from morph_tfx.pipelines.kubeflow.api import Connection, KubeflowApi
from morph_tfx.pipelines.kubeflow.credentials import find_credential
from morph_tfx.pipelines.kubeflow.schedule import Job, Settings
from tests.pipelines.kubeflow import server as server_module
from tests.pipelines.kubeflow.server import PREFIX, KubeflowServer

TOKEN = "very-secret-token"
WAYS = ["lost", "cut", "hang", "die", "die before", 500, 503, 429]


@pytest.fixture(autouse=True)
def _no_credentials_of_our_own(monkeypatch):
    for name in ("KFP_TOKEN", "KFP_TOKEN_FILE", "KFP_COOKIE", "KFP_COOKIE_FILE", "KFP_ENDPOINT", "KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with KubeflowServer(token=TOKEN) as running:
        yield running


def write_job(directory, name="digits", image="image:1"):
    path = directory / f"{name}.yaml"
    spec = {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {}}},
        "deploymentSpec": {"executors": {"one": {"container": {"image": image}}}},
    }
    path.write_text("# a comment\n" + yaml.safe_dump(spec))
    return Job.load(path)


@pytest.fixture
def job(tmp_path):
    return write_job(tmp_path)


class Patience:
    """Waits without waiting, and starts a server again that died."""

    def __init__(self, server):
        self.server = server
        self.waits = []
        self.lines = []

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.server.start()


def connect(server, patience=None, token=TOKEN, **more):
    patience = patience or Patience(server)
    environment = {"KFP_TOKEN": token} if token else {}
    credential = find_credential(server.url, environment=environment)
    connection = Connection(server.url, credential=credential, timeout=more.pop("timeout", 0.25), **more)
    return KubeflowApi(connection, say=patience.lines.append, sleep=patience.sleep)


def settings(api, job, cron="0 0 3 * * *", **more):
    version = schedule.upload(api, job)
    experiment = schedule.experiment_id(api, "nightly")
    return Settings(cron, version.pipeline_id, version.version_id, experiment, **more)


def counts(server):
    state = server.state
    return [len(kind) for kind in (state.pipelines, state.pipeline_versions, state.experiments, state.runs)]


def schedules_of(server, name="digits"):
    return [one for one in server.state.recurringRuns.values() if one["display_name"] == name]


# --- Jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_is_named_by_its_content(tmp_path):
    one = write_job(tmp_path)
    text = one.path.read_text()
    one.path.write_text("# another comment\n\n" + text)
    assert Job.load(one.path) == one
    assert write_job(tmp_path, image="image:2").version != one.version
    assert one.pipeline == "digits" and one.version.startswith("digits-")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("just text", "is no job for Kubeflow Pipelines v2"),
        ("schemaVersion: 2.1.0", "expected schemaVersion 2.1.0 and a pipelineInfo.name"),
        ("pipelineInfo: {name: a}\nschemaVersion: 2.0.0", "expected schemaVersion 2.1.0"),
    ],
)
def test_what_is_no_job_is_refused(tmp_path, text, said):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(MorphError, match=said):
        Job.load(tmp_path / "job.yaml")


def test_a_missing_job_is_named(tmp_path):
    with pytest.raises(MorphError, match=r"--job: .*nowhere.yaml cannot be read: No such file"):
        Job.load(tmp_path / "nowhere.yaml")


# --- Submitting -------------------------------------------------------------------------------------------------------


def test_a_job_is_uploaded_and_run(server, job):
    run = schedule.submit(connect(server), job)
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
    first, second = schedule.submit(api, job), schedule.submit(api, job)
    assert first.version.uploaded and not second.version.uploaded
    assert counts(server) == [1, 1, 1, 2]


def test_another_content_is_another_version_of_the_same_pipeline(server, tmp_path):
    api = connect(server)
    for image in "abc":
        schedule.submit(api, write_job(tmp_path, image=image))
    assert counts(server) == [1, 3, 1, 3]


def test_a_run_name_is_used_once(server, job):
    api = connect(server)
    first, second = (schedule.submit(api, job, run_name="for-commit-1") for _ in range(2))
    assert first.started and not second.started
    assert first.run_id == second.run_id
    assert len(server.state.runs) == 1


def test_many_objects_of_other_names_do_not_hide_ours(server, tmp_path, job):
    api = connect(server)
    for name in ("a", "b", "c", "d", "e"):  # the server's pages hold two
        schedule.submit(api, write_job(tmp_path, name=name))
    assert schedule.submit(api, job).version.uploaded
    assert not schedule.submit(api, job).version.uploaded
    assert len(server.state.pipelines) == 6


def test_several_users_each_have_their_namespace(job):
    with KubeflowServer(multi_user=True, token=TOKEN) as server:
        with pytest.raises(MorphError, match=r"namespace is required"):
            schedule.submit(connect(server), job)
        schedule.submit(connect(server, namespace="team-a"), job)
        [experiment] = server.state.experiments.values()
        [pipeline] = server.state.pipelines.values()
        assert experiment["namespace"] == pipeline["namespace"] == "team-a"


# --- What goes wrong on the way ---------------------------------------------------------------------------------------


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
            schedule.submit(connect(server, patience), job)
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
    schedule.submit(api, job)
    assert counts(server) == [1, 1, 1, 1]


class Waiting(Patience):
    """As Patience, but lets some real time pass."""

    def __init__(self, server, seconds):
        super().__init__(server)
        self.seconds = seconds

    def sleep(self, seconds):
        time.sleep(self.seconds)
        super().sleep(seconds)


def test_back_off_grows_and_ends(server, job):
    patience = Patience(server)
    server.fail(503, times=float("inf"))
    with pytest.raises(MorphError) as failed:
        schedule.submit(connect(server, patience), job)
    message = str(failed.value)
    assert "did not look for the pipeline, asked 6 times" in message
    assert "The last time: the server answered 503 (injected)" in message
    assert "nothing is created twice" in message
    assert len(server.requests) == 6
    for wait, least in zip(patience.waits, [1, 2, 4, 8, 16], strict=True):
        assert least <= wait <= least + 1
    assert patience.lines[0].startswith("To look for the pipeline: the server answered 503 (injected). Trying again in")


def test_the_server_may_say_how_long_to_wait(server, job):
    patience = Patience(server)
    server.fail(429, headers={"Retry-After": "37"})
    server.fail(429, headers={"Retry-After": "86400"})
    schedule.submit(connect(server, patience), job)
    assert patience.waits == [37, 120]


def test_a_server_that_is_not_there_is_asked_a_few_times(job):
    server = KubeflowServer()
    server.start()
    server.stop()

    class Never(Patience):
        def sleep(self, seconds):
            self.waits.append(seconds)

    patience = Never(server)
    with pytest.raises(MorphError, match=r"asked 6 times.*no connection \(.*refused\)"):
        schedule.submit(connect(server, patience, token=None), job)
    assert len(patience.waits) == 5


def test_a_conflict_is_looked_into(server, job):
    """409: somebody else was faster between our look and our request. The real server's upload says 500 then, too."""
    for status in (409, 500):
        schedule.submit(connect(server), job)
        [version] = server.state.pipeline_versions.values()
        server.fail(200, "GET", "/versions$", body=b"{}")  # not seen at first
        server.fail(status, "POST", "/upload_version$")
        assert schedule.upload(connect(server), job).version_id == version["pipeline_version_id"]
        assert len(server.state.pipeline_versions) == 1


def test_a_conflict_with_nothing_to_be_seen_ends_in_the_server_s_words(server, job):
    server.fail(409, "POST", "/pipelines$", body=b'{"message": "The name digits is taken by another namespace"}')
    with pytest.raises(MorphError, match=r"cannot create the pipeline 'digits': status 409.*taken by another"):
        schedule.submit(connect(server), job)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "status 401, it does not know us; the token of the environment variable KFP_TOKEN was sent"),
        (403, "status 403, it does not allow us to do this; the token of"),
        (302, "status 302, it sends us to log in; the token of"),
    ],
)
def test_a_refusal_names_the_credential_and_how_to_give_one(server, job, status, said):
    patience = Patience(server)
    server.fail(status, headers={"Location": "https://dex.example.com/auth"})
    with pytest.raises(MorphError) as refused:
        schedule.submit(connect(server, patience), job)
    assert f"refuses to look for the pipeline: {said}" in str(refused.value)
    assert "--token-file or KFP_TOKEN" in str(refused.value)
    assert patience.waits == []
    assert len(server.requests) == 1


def test_without_a_credential_the_message_says_so(server, job):
    with pytest.raises(MorphError, match=r"status 401, it does not know us; no credential was sent"):
        schedule.submit(connect(server, token=None), job)


def test_a_secret_that_the_server_repeats_is_not_shown(server, job):
    with pytest.raises(MorphError) as refused:
        schedule.submit(connect(server, token="wrong-but-secret"), job)
    assert "wrong-but-secret" not in str(refused.value)
    assert "The server said: Unauthenticated: Bearer *** is not valid" in str(refused.value)
    assert refused.value.__cause__ is None and refused.value.__suppress_context__


def test_cookies_are_sent_and_not_shown(job):
    with KubeflowServer(cookie="authservice_session=abcdef") as server:
        right, wrong = ({"KFP_COOKIE": f"authservice_session={value}"} for value in ("abcdef", "stale0"))
        api = KubeflowApi(Connection(server.url, credential=find_credential(server.url, environment=right)))
        assert schedule.submit(api, job).started
        api = KubeflowApi(Connection(server.url, credential=find_credential(server.url, environment=wrong)))
        with pytest.raises(MorphError) as refused:
            schedule.submit(api, job)
        assert "stale0" not in str(refused.value)
        assert "the cookie of the environment variable KFP_COOKIE was sent" in str(refused.value)


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b'<html>"pipelines"</html>', b""])
def test_a_page_where_the_api_should_be_is_no_empty_list(server, job, body):
    server.fail(200, body=body, headers={"Content-Type": "text/html"})
    with pytest.raises(
        MorphError, match=r"is not the Kubeflow Pipelines API: it answers text/html .* ends in /pipeline"
    ):
        schedule.submit(connect(server), job)


def test_a_bad_request_is_not_repeated(server, tmp_path):
    patience = Patience(server)
    server.fail(400, "POST", "/upload_version$", body=b'{"error_message": "Invalid input error:\\n bad  spec."}')
    with pytest.raises(
        MorphError, match=r"refuses to upload digits.yaml .*: status 400. The server said: Invalid input"
    ):
        schedule.submit(connect(server, patience), write_job(tmp_path))
    assert patience.waits == []


def test_another_address_is_said_to_be_not_found(job):
    with KubeflowServer() as server:
        api = KubeflowApi(Connection(server.url + "/elsewhere"))
        with pytest.raises(MorphError, match=r"status 404, not found. Expected the API at .*/elsewhere"):
            schedule.submit(api, job)


@pytest.mark.parametrize(
    "endpoint", ["kubeflow.example.com", "ftp://a", "http://", "https://me:secret@host", "http://a?b=c"]
)
def test_an_endpoint_is_an_address_without_secrets(endpoint):
    with pytest.raises(MorphError, match=r"endpoint: expected the address") as refused:
        KubeflowApi(Connection(endpoint))
    assert "secret" not in str(refused.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the test's certificate is made with openssl")
def test_the_server_s_certificate_is_checked(tmp_path, job):
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with KubeflowServer(tls=(str(certificate), str(key))) as server:
        with pytest.raises(MorphError, match=r"(?s)CERTIFICATE_VERIFY_FAILED.*--ca-file FILE"):
            schedule.submit(KubeflowApi(Connection(server.url)), job)
        assert server.requests == []
        assert schedule.submit(KubeflowApi(Connection(server.url, ca_file=str(certificate))), job).started
    with pytest.raises(MorphError, match=r"ca_file: cannot read certificates from /nowhere.pem"):
        KubeflowApi(Connection("https://localhost", ca_file="/nowhere.pem"))


# --- Schedules --------------------------------------------------------------------------------------------------------


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
