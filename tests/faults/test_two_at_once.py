"""Two runs at once: of one pipeline, which is refused, and of two that share a store and a place to push to."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from morph_tfx.pipelines.local.one_at_a_time import only_run
from tests.faults.small_task import write_span, write_task

PATIENCE_S = 120  # for a process to load the command line, on a machine that is busy


def started(directory: Path, name: str) -> subprocess.Popen:
    """The command, as a person starts it."""
    program = "from morph_tfx.pipelines.commands.cli import main; main()"
    command = [sys.executable, "-c", program, "run", "--config", str(directory / f"{name}.yaml")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_cycle_that_is_started_twice_runs_once_and_the_second_start_names_the_first(tmp_path):
    config = write_task(tmp_path)
    write_span(tmp_path, 1)
    root = Path(config.pipeline_root)
    first = started(tmp_path, "small")
    try:
        until = time.monotonic() + PATIENCE_S
        while not (root / "_outcome" / "morph.json").exists():
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        second = started(tmp_path, "small")
        said, _ = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 2
        told = " ".join(said.split())
        assert f"Another run of small is using {root}: process {first.pid} on {os.uname().nodename}, since 2" in told
        assert "Wait until it has ended, or end it" in told
        assert json.loads((root / "_outcome" / "morph.json").read_text())["status"] == "running", "of the first"
    finally:
        first.kill()
        first.communicate()
    with only_run("small", str(root)):
        assert f"process {os.getpid()} on" in (root / "_running" / "small").read_text()
    assert (root / "_running" / "small").read_text() == ""


def test_other_pipelines_and_other_places_are_no_hindrance(tmp_path):
    """Nor is the same pipeline a moment later."""
    (tmp_path / "elsewhere").mkdir()
    with (
        only_run("small", str(tmp_path)),
        only_run("small-retrain", str(tmp_path)),
        only_run("small", str(tmp_path / "elsewhere")),
    ):
        pass
    with only_run("small", str(tmp_path)):
        pass


@pytest.mark.slow
def test_two_pipelines_on_one_store_and_one_serving_directory_both_end_whole(tmp_path):
    """They even share the pipeline root. Each pushes a version of its own, and metadata is true of both."""
    for name in ("one", "two"):
        config = write_task(tmp_path, name)
    write_span(tmp_path, 1)
    processes = [started(tmp_path, name) for name in ("one", "two")]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)

    from ml_metadata.proto import metadata_store_pb2
    from tfx.orchestration import metadata

    from morph_tfx.components.artifacts.saved_model import fault_of
    from morph_tfx.pipelines.graph.pushed import latest_pushed

    versions = sorted(Path(config.push_to).iterdir())
    assert len(versions) == 2 and [fault_of(str(version)) for version in versions] == [None, None]
    assert not list(Path(config.pipeline_root).rglob("*.unfinished-*"))
    states = metadata_store_pb2.Execution
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
        ended = {execution.last_known_state for execution in handle.store.get_executions()}
        assert ended == {states.COMPLETE}
        places = [artifact.uri for artifact in handle.store.get_artifacts()]
        assert len(set(places)) == len(places)
        # Transform of this task computes nothing from the data, so there is nothing to remember.
        assert {Path(place).parent.name for place in places if not os.listdir(place)} == {"updated_analyzer_cache"}
        pushed = [latest_pushed(handle.store, [name], pytest.fail) for name in ("one", "two")]
    found = [run["pushed_model"][0].get_string_custom_property("pushed_destination") for run in pushed if run]
    assert sorted(found) == [str(version) for version in versions]
