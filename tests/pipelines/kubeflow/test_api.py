"""Requests that are repeated, and answers that are refusals: what is waited for, and what is said."""

import shutil
import subprocess

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow.api import Connection, KubeflowApi
from morph_tfx.pipelines.kubeflow.credentials import find_credential
from morph_tfx.pipelines.kubeflow.runs import submit
from morph_tfx.pipelines.kubeflow.upload import upload
from tests.pipelines.kubeflow.client import Patience, connect, write_job
from tests.pipelines.kubeflow.server import KubeflowServer


def test_back_off_grows_and_ends(server, job):
    patience = Patience(server)
    server.fail(503, times=float("inf"))
    with pytest.raises(MorphError) as failed:
        submit(connect(server, patience), job)
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
    submit(connect(server, patience), job)
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
        submit(connect(server, patience, token=None), job)
    assert len(patience.waits) == 5


def test_a_conflict_is_looked_into(server, job):
    """409: somebody else was faster between our look and our request. The real server's upload says 500 then, too."""
    for status in (409, 500):
        submit(connect(server), job)
        [version] = server.state.pipeline_versions.values()
        server.fail(200, "GET", "/versions$", body=b"{}")  # not seen at first
        server.fail(status, "POST", "/upload_version$")
        assert upload(connect(server), job).version_id == version["pipeline_version_id"]
        assert len(server.state.pipeline_versions) == 1


def test_a_conflict_with_nothing_to_be_seen_ends_in_the_server_s_words(server, job):
    server.fail(409, "POST", "/pipelines$", body=b'{"message": "The name digits is taken by another namespace"}')
    with pytest.raises(MorphError, match=r"cannot create the pipeline 'digits': status 409.*taken by another"):
        submit(connect(server), job)


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
        submit(connect(server, patience), job)
    assert f"refuses to look for the pipeline: {said}" in str(refused.value)
    assert "--token-file or KFP_TOKEN" in str(refused.value)
    assert patience.waits == []
    assert len(server.requests) == 1


def test_without_a_credential_the_message_says_so(server, job):
    with pytest.raises(MorphError, match=r"status 401, it does not know us; no credential was sent"):
        submit(connect(server, token=None), job)


def test_a_secret_that_the_server_repeats_is_not_shown(server, job):
    with pytest.raises(MorphError) as refused:
        submit(connect(server, token="wrong-but-secret"), job)
    assert "wrong-but-secret" not in str(refused.value)
    assert "The server said: Unauthenticated: Bearer *** is not valid" in str(refused.value)
    assert refused.value.__cause__ is None and refused.value.__suppress_context__


def test_cookies_are_sent_and_not_shown(job):
    with KubeflowServer(cookie="authservice_session=abcdef") as server:
        right, wrong = ({"KFP_COOKIE": f"authservice_session={value}"} for value in ("abcdef", "stale0"))
        api = KubeflowApi(Connection(server.url, credential=find_credential(server.url, environment=right)))
        assert submit(api, job).started
        api = KubeflowApi(Connection(server.url, credential=find_credential(server.url, environment=wrong)))
        with pytest.raises(MorphError) as refused:
            submit(api, job)
        assert "stale0" not in str(refused.value)
        assert "the cookie of the environment variable KFP_COOKIE was sent" in str(refused.value)


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b'<html>"pipelines"</html>', b""])
def test_a_page_where_the_api_should_be_is_no_empty_list(server, job, body):
    server.fail(200, body=body, headers={"Content-Type": "text/html"})
    with pytest.raises(
        MorphError, match=r"is not the Kubeflow Pipelines API: it answers text/html .* ends in /pipeline"
    ):
        submit(connect(server), job)


def test_a_bad_request_is_not_repeated(server, tmp_path):
    patience = Patience(server)
    server.fail(400, "POST", "/upload_version$", body=b'{"error_message": "Invalid input error:\\n bad  spec."}')
    with pytest.raises(
        MorphError, match=r"refuses to upload digits.yaml .*: status 400. The server said: Invalid input"
    ):
        submit(connect(server, patience), write_job(tmp_path))
    assert patience.waits == []


def test_another_address_is_said_to_be_not_found(job):
    with KubeflowServer() as server:
        api = KubeflowApi(Connection(server.url + "/elsewhere"))
        with pytest.raises(MorphError, match=r"status 404, not found. Expected the API at .*/elsewhere"):
            submit(api, job)


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
            submit(KubeflowApi(Connection(server.url)), job)
        assert server.requests == []
        assert submit(KubeflowApi(Connection(server.url, ca_file=str(certificate))), job).started
    with pytest.raises(MorphError, match=r"ca_file: cannot read certificates from /nowhere.pem"):
        KubeflowApi(Connection("https://localhost", ca_file="/nowhere.pem"))
