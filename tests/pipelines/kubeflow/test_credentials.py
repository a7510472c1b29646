"""Where a credential comes from, and where its secret never goes."""

import time

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow import credentials
from morph_tfx.pipelines.kubeflow.credentials import find_credential

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
HTTPS = "https://kubeflow.example.com/pipeline"


def netscape(host: str, expires: int) -> str:
    """A line as `curl -c` writes it, for a cookie that scripts in a browser cannot read."""
    return f"#HttpOnly_{host}\tFALSE\t/\tTRUE\t{expires}\tauthservice_session\tabcd\n"


def test_without_any_there_is_none():
    assert find_credential(HTTPS, environment={}) is None


def test_a_file_that_is_named_wins_over_the_environment(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    found = find_credential(HTTPS, token_file=tmp_path / "token", environment={"KFP_TOKEN": "from-environment"})
    assert found is not None
    assert found.header() == ("authorization", "Bearer from-file")
    assert found.source == f"the file {tmp_path / 'token'}"


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({"KFP_TOKEN": "abc"}, ("authorization", "Bearer abc")),
        ({"KFP_TOKEN": " Bearer abc\n"}, ("authorization", "Bearer abc")),
        ({"KFP_COOKIE": "authservice_session=abc"}, ("Cookie", "authservice_session=abc")),
        ({"KFP_COOKIE": "a=1;b=2 ;"}, ("Cookie", "a=1; b=2")),
    ],
)
def test_the_environment_gives_a_token_or_cookies(environment, header):
    found = find_credential(HTTPS, environment=environment)
    assert found is not None
    assert found.header() == header


def test_the_environment_can_name_files(tmp_path):
    (tmp_path / "cookies").write_text("session=abc")
    found = find_credential(HTTPS, environment={"KFP_COOKIE_FILE": str(tmp_path / "cookies")})
    assert found is not None
    assert found.header() == ("Cookie", "session=abc")


def test_a_pod_finds_its_own_token_and_reads_it_again(tmp_path):
    token = tmp_path / "token"
    token.write_text("first")
    found = find_credential(HTTPS, environment={"KF_PIPELINES_SA_TOKEN_PATH": str(token)})
    assert found is not None
    assert found.header()[1] == "Bearer first"
    token.write_text("second")  # as the kubelet does, within the hour
    assert found.header()[1] == "Bearer second"


def test_a_pod_s_token_is_where_kubernetes_projects_it(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("projected")
    monkeypatch.setattr(credentials, "_POD_TOKEN", str(tmp_path / "token"))
    found = find_credential("http://ml-pipeline.kubeflow.svc.cluster.local:8888", environment=POD)
    assert found is not None
    assert found.header()[1] == "Bearer projected"


def test_cookies_of_curl_may_last_as_long_as_the_session(tmp_path):
    (tmp_path / "jar").write_text("# Netscape HTTP Cookie File\n" + netscape("kubeflow.example.com", 0))
    found = find_credential(HTTPS, cookie_file=tmp_path / "jar", environment={})
    assert found is not None
    assert found.header() == ("Cookie", "authservice_session=abcd")


def test_cookies_of_curl_are_those_of_the_host_that_are_still_valid(tmp_path):
    jar = tmp_path / "jar"
    soon, past = int(time.time()) + 600, int(time.time()) - 600
    jar.write_text(
        "# Netscape HTTP Cookie File\n" + netscape("kubeflow.example.com", soon) + netscape("other.com", soon)
    )
    found = find_credential(HTTPS, cookie_file=jar, environment={})
    assert found is not None
    assert found.header() == ("Cookie", "authservice_session=abcd")
    jar.write_text("# Netscape HTTP Cookie File\n" + netscape("kubeflow.example.com", past))
    with pytest.raises(
        MorphError, match=r"holds no cookie for https://kubeflow.example.com/pipeline that is still valid"
    ):
        found.header()


@pytest.mark.parametrize("files", [{}, {"token_file": "token", "cookie_file": "cookies"}])
def test_two_at_once_are_refused(tmp_path, files):
    for name in files.values():
        (tmp_path / name).write_text("a=b")
    with pytest.raises(MorphError, match=r"Expected one credential, but .* give 2"):
        find_credential(
            HTTPS,
            **{key: tmp_path / name for key, name in files.items()},
            environment={"KFP_TOKEN": "abc", "KFP_COOKIE": "a=b"},
        )


@pytest.mark.parametrize("secret", ["", "two words", "two\nlines", "quite\x00bad", "ümlaut"])
def test_what_is_no_token_is_refused_without_being_repeated(tmp_path, secret):
    (tmp_path / "token").write_text(secret)
    found = find_credential(HTTPS, token_file=tmp_path / "token", environment={})
    assert found is not None
    with pytest.raises(MorphError, match=r"holds no token: expected one bearer token") as refused:
        found.header()
    assert not secret or secret not in str(refused.value)


def test_a_missing_file_is_named():
    found = find_credential(HTTPS, token_file="/nowhere/token", environment={})
    assert found is not None
    with pytest.raises(MorphError, match=r"Cannot read the file /nowhere/token: No such file"):
        found.header()


def test_the_secret_is_not_in_the_representation():
    found = find_credential(HTTPS, environment={"KFP_TOKEN": "very-secret"})
    assert "very-secret" not in repr(found)
    assert "very-secret" not in str(vars(found))
    assert found is not None
    assert found.hide("you sent very-secret, which") == "you sent ***, which"


@pytest.mark.parametrize(
    ("endpoint", "safe"),
    [
        ("https://kubeflow.example.com", True),
        ("http://localhost:8888", True),
        ("http://127.0.0.1:8888", True),
        ("http://[::1]:8888", True),
        ("http://ml-pipeline.kubeflow.svc:8888", False),
        ("http://ml-pipeline:8888", False),
        ("http://intranet", False),
        ("http://kubeflow.example.com", False),
        ("http://10.0.0.7:8888", False),
        ("http://ml-pipeline.kubeflow.svc.example.com", False),
    ],
)
def test_a_secret_does_not_leave_the_machine_or_cluster_unencrypted(endpoint, safe):
    if safe:
        assert find_credential(endpoint, environment={"KFP_TOKEN": "abc"}) is not None
    else:
        with pytest.raises(MorphError, match=r"KFP_TOKEN would be sent without encryption"):
            find_credential(endpoint, environment={"KFP_TOKEN": "abc"})


@pytest.mark.parametrize(
    ("endpoint", "safe"),
    [
        ("http://ml-pipeline.kubeflow.svc:8888", True),
        ("http://ml-pipeline:8888", True),
        ("http://kubeflow.example.com", False),
        ("http://ml-pipeline.kubeflow.svc.example.com", False),
    ],
)
def test_in_a_pod_the_cluster_s_own_services_are_known_by_their_names(endpoint, safe):
    """Outside of it anybody in the network may answer to such a name."""
    environment = {"KFP_TOKEN": "abc", **POD}
    if safe:
        assert find_credential(endpoint, environment=environment) is not None
    else:
        with pytest.raises(MorphError, match=r"would be sent without encryption"):
            find_credential(endpoint, environment=environment)
