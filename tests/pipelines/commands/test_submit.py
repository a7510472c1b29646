"""`morph-tfx submit`, from the command line to the server and back."""

import functools

from morph_tfx.pipelines.kubeflow import api

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


def test_a_job_is_submitted(invoke, server, job):
    output = invoke("submit", "--job", job)
    [run] = server.state.runs.values()
    assert f"Started the run {run['display_name']} ({run['run_id']})" in output
    assert f"{server.url}/#/runs/details/{run['run_id']}" in output
    assert "Uploaded digits-" in output
    assert "Already there: digits-" in invoke("submit", "--job", job)


def test_a_run_is_told_other_values(invoke, server, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG.format(endpoint=server.url))
    submit = ["submit", "--config", tmp_path / "config.yaml", "--parameter", "search_epochs=3"]
    invoke(*submit, KFP_ENDPOINT="", KFP_TOKEN_FILE="")
    [run] = server.state.runs.values()
    assert run["runtime_config"]["parameters"] == {"search_epochs": 3}
    said = invoke("submit", "--config", tmp_path / "config.yaml", "--parameter", "search_epoch=3", exit_code=2)
    assert "did you mean search_epochs? There are: push_to, retrain_epochs, search_epochs, target" in said


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


def test_waiting_is_told_and_a_refusal_is_one_message(invoke, server, job, monkeypatch):
    impatient = functools.partial(api.KubeflowApi, sleep=lambda _: None)
    monkeypatch.setattr(api, "KubeflowApi", impatient)
    server.fail(503)
    assert "the server answered 503 (injected). Trying again in" in invoke("submit", "--job", job)
    server.token = "another"
    output = invoke("submit", "--job", job, exit_code=2)
    assert "status 401, it does not know us; the token of the file" in output
