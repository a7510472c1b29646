"""What killed runs leave is cleared by the next one, unless somebody is still at work there."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.portable import execution_publish_utils as publish
from tfx.orchestration.portable.mlmd import context_lib

from morph_tfx.components.artifacts.staging import complete_or_absent
from morph_tfx.pipelines.local import runner
from morph_tfx.pipelines.local.leftovers import (
    ABANDONED_AFTER_DAYS,
    clear_checkpoints,
    clear_executions,
    clear_files,
    in_use,
)

HOLD = """
import sys, time
from morph_tfx.pipelines.local.leftovers import in_use
with in_use(sys.argv[1]) as place:
    with place.alone() as alone:
        print(alone, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def root(config) -> Path:
    directory = Path(config.pipeline_root)
    directory.mkdir()
    return directory


@pytest.fixture
def another_run(root):
    """A process that uses the pipeline root."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()


def told(clear, config) -> list[str]:
    lines: list[str] = []
    clear(config, lines.append)
    return lines


def test_what_was_being_filled_is_removed_and_said(root, config):
    """As complete_or_absent leaves it when nothing after the kill is run."""
    model = root / "Retrainer" / "model"
    with complete_or_absent(str(model / "4")) as directory:
        left = directory
    os.makedirs(left)
    (Path(left) / "saved_model.pb").write_text("half")
    (root / "Retrainer" / "model" / "notes.unfinished-draft").mkdir()
    assert told(clear_files, config) == [f"Cleared: {left}, that was being filled when a run was killed."]
    assert sorted(path.name for path in model.iterdir()) == ["4", "notes.unfinished-draft"]
    assert told(clear_files, config) == []


def test_checkpoints_that_nobody_went_on_with_for_a_month_are_removed_and_younger_ones_stay(root, config, tmp_path):
    config = config.model_copy(update={"checkpoint_dir": str(tmp_path / "checkpoints")})
    old, young = time.time() - (ABANDONED_AFTER_DAYS + 1) * 24 * 3600, time.time() - 24 * 3600
    places = {}
    for base in (root / "Retrainer" / "checkpoints", tmp_path / "checkpoints"):
        for name, age in (("Retrainer-0123456789abcdef", old), ("Retrainer-fedcba9876543210", young), ("mine", old)):
            places[base, name] = base / name
            (base / name).mkdir(parents=True)
            (base / name / "epoch-3.npz").write_text("weights")
            for path in (base / name / "epoch-3.npz", base / name):
                os.utime(path, (age, age))
    assert told(clear_files, config) == []  # when a run begins: what it would go on from must still be there
    lines = told(clear_checkpoints, config)
    gone = {path for path in places.values() if not path.exists()}
    assert {path.name for path in gone} == {"Retrainer-0123456789abcdef"} and len(gone) == 2
    assert sorted(lines) == sorted(
        f"Cleared: {path}, of a training that nobody went on with for {ABANDONED_AFTER_DAYS} days." for path in gone
    )


def execution_of(handle, pipeline: str, step: str) -> metadata_store_pb2.Execution:
    contexts = [context_lib.register_context_if_not_exists(handle, "pipeline", pipeline)]
    kind = metadata_store_pb2.ExecutionType(name=f"tfx.components.{step}")
    return publish.register_execution(handle, kind, contexts, {})


def states_of(config) -> dict[int, int]:
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
        return {execution.id: execution.last_known_state for execution in handle.store.get_executions()}


def test_executions_that_were_killed_are_recorded_as_failed_and_others_stay_as_they_are(config):
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
        killed = execution_of(handle, "x", "Retrainer")
        finished = execution_of(handle, "x-retrain", "Transform")
        contexts = [context_lib.register_context_if_not_exists(handle, "pipeline", "x-retrain")]
        publish.publish_succeeded_execution(handle, finished.id, contexts, {})
        elsewhere = execution_of(handle, "flowers", "Retrainer")
    assert told(clear_executions, config) == [
        "Cleared: a run was killed in Retrainer, which ML metadata took for running; recorded as failed."
    ]
    kinds = metadata_store_pb2.Execution
    expected = {killed.id: kinds.FAILED, finished.id: kinds.COMPLETE, elsewhere.id: kinds.RUNNING}
    assert states_of(config) == expected
    changed = os.stat(config.metadata).st_mtime_ns
    assert told(clear_executions, config) == []
    assert os.stat(config.metadata).st_mtime_ns == changed, "a retraining without a new span looks at it"


def test_without_metadata_there_is_nothing_to_clear_and_none_is_made(config):
    assert told(clear_executions, config) == []
    assert not Path(config.metadata).exists()


def test_another_run_in_the_same_place_is_noticed_and_a_killed_one_is_gone(root, another_run):
    with in_use(str(root)) as place:
        with place.alone() as alone:
            assert not alone
        another_run.kill()
        another_run.wait()
        for _ in range(2):
            with place.alone() as alone:
                assert alone


def test_a_run_that_came_second_is_noticed_when_the_first_has_ended(root):
    """It held the place together with the first one."""
    with contextlib.ExitStack() as first, in_use(str(root)):
        first.enter_context(in_use(str(root)))
        first.close()
        with in_use(str(root)) as third, third.alone() as alone:
            assert not alone
    with in_use(str(root)) as last, last.alone() as alone:
        assert alone


@pytest.mark.parametrize("others", [False, True])
def test_a_run_clears_only_where_it_is_alone(config, root, monkeypatch, others):
    """Or it would take away what the other one is filling."""
    cleared = []

    def stop(*_, **__):
        raise LookupError("far enough")

    monkeypatch.setattr(runner, "check_examples", lambda *_: [])
    monkeypatch.setattr(runner, "clear_files", lambda *_: cleared.append("files"))
    monkeypatch.setattr(runner, "clear_executions", lambda *_: cleared.append("executions"))
    monkeypatch.setattr("morph_tfx.pipelines.graph.morph_pipeline.morph_pipeline", stop)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(in_use(str(root)))
        if others:
            stack.enter_context(in_use(str(root)))
        stack.enter_context(pytest.raises(LookupError, match="far enough"))
        runner._run(config, lambda _: None, False, "morph", place)
    assert cleared == ([] if others else ["files", "executions"])
