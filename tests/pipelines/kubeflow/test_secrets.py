"""Secrets are planted wherever a person may put one, and looked for in everything that comes out.

Looked through: what commands print, the tracebacks of their errors, what libraries log, compiled jobs, what the server
has stored, the arguments of processes, what a step prints, and what it leaves.
"""

import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner

from morph_core import MorphError
from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.kubeflow import api, entrypoint
from morph_tfx.pipelines.kubeflow.entrypoint import LAUNCHER_ROOT
from tests.pipelines.kubeflow.client import write_job
from tests.pipelines.kubeflow.jobs import KUBEFLOW, TEXT, compiled
from tests.pipelines.kubeflow.server import TOKEN, KubeflowServer

COOKIE = "authservice_session=planted-cookie-4711; other=planted-cookie-4712"
COOKIES = ["planted-cookie-4711", "planted-cookie-4712"]
PASSWORD = "planted-password-4713"
SECRET_KEY = "planted-secret-key-4714"


def assert_hidden(text: str, *secrets: str) -> None:
    for secret in (TOKEN, *COOKIES, PASSWORD, SECRET_KEY, *secrets):
        assert secret not in text, f"{secret} in {text}"


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    real = api.KubeflowApi
    monkeypatch.setattr(api, "KubeflowApi", lambda *given, **named: real(*given, **{**named, "sleep": lambda _: None}))


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    contents = {
        "token": TOKEN,
        "cookies": COOKIE,
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in contents}


WAYS = {
    "token in the environment": lambda files: ({"KFP_TOKEN": TOKEN}, []),
    "token in a file": lambda files: ({}, ["--token-file", files["token"]]),
    "cookies in the environment": lambda files: ({"KFP_COOKIE": COOKIE}, []),
    "cookies in a file": lambda files: ({}, ["--cookie-file", files["cookies"]]),
}


def repeating(status: int, sent: str) -> bytes:
    said = f"{status}: you sent {sent}"
    return json.dumps({"error": said, "message": said}).encode()


@pytest.mark.parametrize("way", WAYS)
def test_commands_that_talk_to_a_cluster_give_no_credential_away(way, files, tmp_path, caplog):
    """Also where the server fails in every way, and repeats what it was sent."""
    caplog.set_level(logging.DEBUG)
    environment, options = WAYS[way](files)
    sent = f"Bearer {TOKEN}" if way.startswith("token") else COOKIE
    said = []
    with KubeflowServer() as server:
        variables = {"KFP_ENDPOINT": server.url, **environment}
        job = write_job(tmp_path).path

        def call(*arguments):
            result = CliRunner(env=variables).invoke(cli, [str(one) for one in (*arguments, *options)])
            said.append(result.output)
            if result.exception is not None:
                said.append("".join(traceback.format_exception(result.exception)))
            return result.exit_code

        assert call("submit", "--job", job, "--verbose") == 0
        assert call("schedule", "--cron", "@daily", "--job", job, "--verbose") == 0
        assert call("schedule", "list") == 0
        for status in (302, 400, 401, 403, 404, 409, 429, 500, 503):
            server.fail(status, times=6, body=repeating(status, sent))
            call("submit", "--job", job)
        for garbled in (repeating(200, sent)[:40], f"<html>{sent}</html>".encode()):
            server.fail(200, times=6, body=garbled)
            call("submit", "--job", job)
        server.faults.clear()
        server.fail("lost", times=6)
        call("submit", "--job", job)
        assert sent in {
            request.headers.get("authorization", request.headers.get("cookie")) for request in server.requests
        }
        assert_hidden(json.dumps(vars(server.state)))
    assert_hidden("\n".join(said))
    assert_hidden("\n".join(record.getMessage() for record in caplog.records))


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_a_password_in_an_address_is_not_repeated(scheme, tmp_path):
    address = f"{scheme}://me:{PASSWORD}@kubeflow.example.com/pipeline"
    job = write_job(tmp_path).path
    for environment in ({}, {"KFP_TOKEN": TOKEN}):
        variables = {**environment, "KFP_ENDPOINT": address}
        result = CliRunner(env=variables).invoke(cli, ["submit", "--job", str(job)])
        assert result.exit_code == 2
        assert_hidden(result.output)
        assert "kubeflow.example.com" in result.output


@pytest.mark.parametrize(
    "text",
    [
        TEXT + f"kubeflow_api: {{endpoint: 'https://me:{PASSWORD}@kubeflow.example.com'}}\n",
        TEXT + f"kubeflow: {{image: x, steps: {{'*': {{env: {{AWS_SECRET_ACCESS_KEY: {SECRET_KEY}}}}}}}}}\n",
        TEXT + f"kubeflow: {{image: x, steps: {{'*': {{env: {{DB_PASSWORD: {PASSWORD}}}}}}}}}\n",
        TEXT + f"kubeflow: {{image: x, steps: {{'*': {{secrets: [{{name: s3, value: {SECRET_KEY}}}]}}}}}}\n",
        TEXT + f"kubeflow_api: {{token: {TOKEN}}}\n",
        TEXT + f"kubeflow_api: {{password: {PASSWORD}}}\n",
    ],
    ids=["address", "environment", "password", "secret", "token", "unknown"],
)
def test_a_secret_in_a_configuration_is_refused_without_being_repeated(text, tmp_path):
    with pytest.raises(MorphError) as refused:
        parse_config(text, "config.yaml", tmp_path)
    assert_hidden("".join(traceback.format_exception(refused.value)))


def test_a_compiled_job_holds_names_of_secrets_and_nothing_of_this_machine_s(tmp_path, monkeypatch, files):
    for name in ("KFP_TOKEN", "AWS_SECRET_ACCESS_KEY", "GOOGLE_API_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, SECRET_KEY)
    lines: list[str] = []
    text = TEXT + KUBEFLOW + f"kubeflow_api: {{token_file: {files['token']}}}\n"
    job = compiled(tmp_path, text, lines).read_text()
    assert "secretkey" in job and "secretName: s3" in job
    assert_hidden(job)
    assert_hidden("\n".join(lines))
    assert str(files["token"]) not in job


def test_what_a_step_prints_and_leaves_holds_nothing_of_its_environment(tmp_path, monkeypatch, capfd, caplog):
    from tests.kubeflow.steps import Probe

    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(LAUNCHER_ROOT, str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setattr(Probe, "action", lambda outputs: Path(outputs["model"][0].uri, "weights").write_text("x"))
    model = {"instanceSchema": "title: tfx.Model\ntype: object\n"}
    invocation = {
        "inputs": {"parameterValues": {"custom_config": "{}"}},
        "outputs": {
            "artifacts": {"model": {"artifacts": [{"name": "model", "uri": "minio://b/run/model", "type": model}]}},
            "outputFile": str(tmp_path / "out" / "output_metadata.json"),
        },
    }
    arguments = ["--executor_class_path", "tests.kubeflow.steps.Probe", "--json_serialized_invocation_args"]
    spec = {"parameters": {"custom_config": {"parameterType": "STRING"}}}
    specified = ["--json_serialized_inputs_spec_args", json.dumps(spec)]
    assert entrypoint.main([*arguments, json.dumps(invocation), *specified]) == 0
    monkeypatch.setattr(Probe, "action", lambda outputs: outputs["no such output"])
    with pytest.raises(KeyError) as failed:
        entrypoint.main([*arguments, json.dumps(invocation), *specified])
    assert_hidden("".join(traceback.format_exception(failed.value)))
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in left} >= {"weights", "output_metadata.json"}
    assert_hidden("\n".join(path.read_text() for path in left))
    assert_hidden("".join(capfd.readouterr()))
    assert_hidden("\n".join(record.getMessage() for record in caplog.records))


@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="the arguments of processes are read in /proc")
def test_the_list_of_processes_shows_no_credential_while_a_command_runs(tmp_path, files):
    job = write_job(tmp_path).path
    code = "import sys; from morph_tfx.pipelines.commands.cli import main; sys.argv[0] = 'morph-tfx'; main()"
    with KubeflowServer(token=TOKEN) as server:
        server.fail("hang", delay=3.0)
        environment = {**os.environ, "KFP_ENDPOINT": server.url, "KFP_TOKEN": TOKEN}
        process = subprocess.Popen(
            [sys.executable, "-c", code, "submit", "--job", str(job)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            while not server.requests and process.poll() is None:
                pass
            seen = []
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal():
                    try:
                        seen.append((entry / "cmdline").read_text(errors="replace"))
                    except OSError:  # it has ended meanwhile
                        continue
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
    assert server.requests
    assert any("morph-tfx" in command for command in seen)
    assert_hidden("\n".join(seen))
    assert_hidden(output)
