"""What became of the last run, in a file: what an alert sees, and when a retraining is left out."""

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from rich.console import Console
from tfx.types import standard_artifacts as artifacts

from morph_core import MorphError
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.local import outcome as outcomes
from morph_tfx.pipelines.local import runner
from morph_tfx.pipelines.local.outcome import OutcomeFile
from morph_tfx.pipelines.local.result import RunResult, Step
from morph_tfx.pipelines.local.staging import staged_modules
from morph_tfx.pipelines.local.summary import show_summary
from tests.pipelines.conftest import made

TEXT = """
name: flowers
data: {format: csv, path: data, eval_fraction: 0.2, pattern: "span-{SPAN}/*"}
module_file: module.py
label: y
target: 0.5
search: {epochs: 1}
retrain: {epochs: 1}
evaluate: {lower_bound: 0}
"""


@pytest.fixture
def project(tmp_path):
    """A configuration, its module file, one span of data, one pushed model, and ML metadata."""
    functions = ("build_model(hparams)", "input_fn(files, accessor, spec, batch_size)", "preprocessing_fn(inputs)")
    (tmp_path / "module.py").write_text("".join(f"def {function}: ...\n" for function in functions))
    write_span(tmp_path, 1)
    (tmp_path / "pushed" / "7").mkdir(parents=True)
    write_metadata(tmp_path, "CREATE TABLE MLMDEnv (schema_version)")
    return tmp_path


def write_metadata(project: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(project / "metadata.sqlite")) as connection, connection:
        connection.execute(statement)


def write_span(project: Path, number: int) -> None:
    directory = project / "data" / f"span-{number}"
    directory.mkdir(parents=True)
    (directory / "rows.csv").write_text("x,y\n1,2\n")


def config_of(project: Path, text: str = TEXT):
    return parse_config(text, "config.yaml", project)


def staged(project: Path, text: str = TEXT):
    return staged_modules(config_of(project, text))


def result_of(project: Path, pushed: bool = True) -> RunResult:
    destination = str(project / "pushed" / "7") if pushed else ""
    if pushed:
        os.makedirs(destination, exist_ok=True)
    artifact = made(artifacts.PushedModel, pushed=int(pushed), pushed_destination=destination)
    return RunResult((Step("Pusher", "ran", 2.5, {"pushed_model": [artifact]}),), 3.0)


def read(project: Path, pipeline: str = "retrain") -> dict:
    return json.loads((project / "pipeline_root" / "_outcome" / f"{pipeline}.json").read_text())


@pytest.fixture(autouse=True)
def _objections(monkeypatch):
    monkeypatch.setattr(outcomes, "held_back_because", lambda result: [] if result.pushed_model else ["0.7 is too low"])


def test_an_alert_sees_what_was_pushed_or_why_nothing_was(project):
    file = OutcomeFile(staged(project), "retrain")
    file.finished(result_of(project))
    found = read(project)
    assert {name: found[name] for name in ("pipeline", "status", "span", "pushed_model", "reasons")} == {
        "pipeline": "flowers-retrain",
        "status": "pushed",
        "span": "1",
        "pushed_model": str(project / "pushed" / "7"),
        "reasons": [],
    }
    assert found["steps"] == [{"step": "Pusher", "state": "ran", "seconds": 2.5}]
    file.finished(result_of(project, pushed=False))
    found = read(project)
    assert (found["status"], found["reasons"], found["pushed_model"]) == ("held back", ["0.7 is too low"], None)


@pytest.mark.parametrize(
    ("error", "status", "reasons"),
    [
        (MorphError("the disk is full"), "failed", ["MorphError: the disk is full"]),
        (RuntimeError("odd"), "failed", ["RuntimeError: odd"]),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_an_alert_sees_a_run_that_did_not_finish(project, error, status, reasons, monkeypatch):
    def run(*_):
        assert (read(project, "morph")["status"], read(project, "morph")["finished"]) == ("running", None)
        raise error

    monkeypatch.setattr(runner, "_run", run)
    with pytest.raises(type(error)):
        runner.run_pipeline(config_of(project), say=lambda _: None)
    assert read(project, "morph")["status"] == status
    assert read(project, "morph").get("reasons") == reasons
    assert [path.name for path in (project / "pipeline_root" / "_outcome").iterdir()] == ["morph.json"]


@pytest.mark.parametrize("pushed", [True, False])
def test_a_retraining_without_a_new_span_is_left_out_and_says_so(project, pushed, monkeypatch):
    monkeypatch.setattr(runner, "_run", lambda *_: pytest.fail("something was run"))
    OutcomeFile(staged(project), "retrain").finished(result_of(project, pushed))
    for _ in range(2):  # the second night, and the third
        lines: list[str] = []
        result = runner.run_pipeline(config_of(project), say=lines.append, pipeline="retrain")
        assert result.steps == () and result.cached
        assert result.pushed_model == (str(project / "pushed" / "7") if pushed else None)
        [line] = lines
        status = "pushed" if pushed else "held back"
        assert line.startswith("No new span: the newest is 1, as in the run that ended at 20")
        assert line.endswith(f" ({status}), and nothing else has changed. Nothing is run.")
        assert read(project)["status"] == "no new span" and read(project)["last"]["status"] == status
    console = Console(record=True, width=120)
    show_summary(result, config_of(project), console=console)
    assert (str(project / "pushed" / "7") if pushed else "nothing: 0.7 is too low") in console.export_text()


def new_span(project):
    write_span(project, 2)


def corrected_data(project):
    (project / "data" / "span-1" / "rows.csv").write_text("x,y\n1,2\n3,4\n")


def another_module(project):
    (project / "module.py").write_text((project / "module.py").read_text() + "WIDTH = 3\n")


def a_rollback(project):
    shutil.rmtree(project / "pushed" / "7")


def another_push(project):
    (project / "pushed" / "8").mkdir()


def another_run(project):
    write_metadata(project, "INSERT INTO MLMDEnv VALUES (10)")


@pytest.mark.parametrize("change", [new_span, corrected_data, another_module, a_rollback, another_push, another_run])
def test_whatever_has_changed_is_run(project, change, monkeypatch):
    monkeypatch.setattr(runner, "_run", lambda *_: result_of(project))
    OutcomeFile(staged(project), "retrain").finished(result_of(project))
    change(project)
    assert runner.run_pipeline(config_of(project), say=lambda _: None, pipeline="retrain").steps
    assert read(project)["status"] == "pushed"


@pytest.mark.parametrize(
    "text", [TEXT.replace("retrain: {epochs: 1}", "retrain: {epochs: 2}"), TEXT.replace("0.2", "0.3")]
)
def test_another_configuration_is_run(project, text, monkeypatch):
    monkeypatch.setattr(runner, "_run", lambda *_: result_of(project))
    OutcomeFile(staged(project), "retrain").finished(result_of(project))
    assert runner.run_pipeline(config_of(project, text), say=lambda _: None, pipeline="retrain").steps


def test_a_push_from_the_cache_that_was_deleted_since_is_told_and_not_named_as_pushed(project, monkeypatch):
    """What deletes it takes it back; the demo would try to load it."""
    monkeypatch.undo()
    result = result_of(project)
    assert result.rolled_back is None and outcomes.held_back_because(result) == []
    a_rollback(project)
    place = str(project / "pushed" / "7")
    assert (result.pushed_model, result.rolled_back) == (None, place)
    OutcomeFile(staged(project), "morph").finished(result)
    found = read(project, "morph")
    assert (found["status"], found["pushed_model"]) == ("held back", None)
    [reason] = found["reasons"]
    assert reason.startswith(f"{place} was pushed by an earlier run and was deleted since")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"status": "pushed"}', '{"status": "no new span"}'])
def test_a_damaged_file_leaves_nothing_out(project, damage, monkeypatch):
    monkeypatch.setattr(runner, "_run", lambda *_: result_of(project))
    OutcomeFile(staged(project), "retrain").finished(result_of(project))
    (project / "pipeline_root" / "_outcome" / "retrain.json").write_text(damage)
    assert runner.run_pipeline(config_of(project), say=lambda _: None, pipeline="retrain").steps


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_what_was_killed_or_failed_is_run_again(project, status):
    file = OutcomeFile(staged(project), "retrain")
    file.finished(result_of(project))
    assert file.last_if_unchanged() is not None
    place = project / "pipeline_root" / "_outcome" / "retrain.json"
    place.write_text(json.dumps({**read(project), "status": status}))
    assert file.last_if_unchanged() is None


def test_searches_and_data_without_spans_are_never_left_out(project, monkeypatch):
    """TFX's cache serves them: nobody runs a search each night."""
    monkeypatch.setattr(runner, "_run", lambda *_: result_of(project))
    OutcomeFile(staged(project), "morph").finished(result_of(project))
    assert runner.run_pipeline(config_of(project), say=lambda _: None).steps
    plain = TEXT.replace("{SPAN}", "1")
    OutcomeFile(staged(project, plain), "retrain").finished(result_of(project))
    assert runner.run_pipeline(config_of(project, plain), say=lambda _: None, pipeline="retrain").steps
