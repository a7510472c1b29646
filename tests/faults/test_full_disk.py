"""A full disk is told in one message, nothing that was there before is lost, and with room the same call goes on."""

import errno
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys

import pytest

import morph_core as morph
from morph_tfx.components import MorphStructure, StructureExporter
from morph_tfx.pipelines.graph import pusher
from morph_tfx.pipelines.local.shortage import shortage_in
from tests.components.conftest import make
from tests.faults.programs import on_disk
from tests.faults.small_disk import with_disk

KEPT = "Finished steps, checkpoints and pushed models are kept: the same command goes on after them."


@pytest.fixture
def largest_file():
    """largest_file(bytes) lets no file grow beyond that, which is the cheapest disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def structure_of(width: int) -> morph.Structure:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(width, activation="relu"), keras.layers.Dense(2)])
    return morph.uniform(morph.ChannelGraph.from_model(model), target=0.5)


@pytest.mark.thorough
def test_a_search_on_a_full_disk_keeps_its_last_checkpoint_and_goes_on_to_the_same_structure(mountable, tmp_path):
    found = on_disk("search_on_full_disk", tmp_path, kilobytes=1024)
    assert re.fullmatch(
        r"The checkpoint epoch-000004\.npz of \d\.\d MB cannot be written to \S+/checkpoints \(No space left on "
        r"device, with 0\.0 MB of 1\.0 MB free there\)\. epoch-000003\.npz is kept: make room there, or permit "
        r"writing, and start again, which goes on after it\.",
        found["message"],
    )
    assert found["left"] == ["epoch-000002.npz", "epoch-000003.npz"]
    assert (found["epochs"], found["same"]) == (12, True)


@pytest.mark.slow
def test_a_run_on_a_disk_that_is_too_small_says_so_at_every_step_and_ends_when_there_is_room(mountable, tmp_path):
    *failed, last = on_disk("run_on_small_disk", tmp_path, kilobytes=1024)
    assert len({attempt["step"] for attempt in failed}) >= 3, "else the sizes are no trial"
    for attempt in failed:
        assert re.search(r"No space left on device|disk is full|Disk quota exceeded", attempt["message"]), attempt
        assert attempt["message"].endswith((KEPT, "which goes on after it.", "which begins anew.")), attempt
        assert attempt["faults"] == [], attempt
    told = [attempt["outcome"] for attempt in failed if attempt["step"]]
    assert told and all(status == "failed" and "MB" in reasons[0] for status, reasons in told), told
    assert (last["message"], last["outcome"][0], last["faults"]) == (None, "pushed", [])


def test_a_structure_that_finds_no_room_leaves_the_one_before_it(largest_file, tmp_path):
    old, new = structure_of(8), structure_of(200)
    path = tmp_path / "structure.json"
    old.save(path)
    largest_file(100)
    with pytest.raises(morph.MorphError, match=rf"structure.json cannot be written \({os.strerror(errno.EFBIG)}\)"):
        new.save(path)
    largest_file(resource.RLIM_INFINITY)
    assert morph.Structure.load(path) == old
    assert [file.name for file in tmp_path.iterdir()] == ["structure.json"]


def test_a_structure_with_its_report_that_finds_no_room_is_there_before_or_not_at_all(largest_file, tmp_path):
    artifact = make(MorphStructure, tmp_path / "structure" / "7")
    old, new = structure_of(8), structure_of(200)
    StructureExporter(artifact).write(old)
    files = {path.name: path.read_bytes() for path in (tmp_path / "structure" / "7").iterdir()}
    largest_file(len(old.to_json()) + 100)
    with pytest.raises(Exception, match=r"File too large|RESOURCE_EXHAUSTED|No space") as caught:
        StructureExporter(artifact).write(new)
    largest_file(resource.RLIM_INFINITY)
    assert {path.name: path.read_bytes() for path in (tmp_path / "structure" / "7").iterdir()} == files
    assert [path.name for path in (tmp_path / "structure").iterdir()] == ["7"]
    message = shortage_in(caught.value, {"pipeline_root": str(tmp_path)})
    assert message is not None
    assert message.startswith(f"pipeline_root: there is no room at {tmp_path}, with ")
    assert message.endswith(KEPT)


def test_a_push_that_finds_no_room_leaves_the_last_version_and_no_part_of_its_own(served, largest_file, tmp_path):
    first = pusher.push(str(served), str(tmp_path / "pushed"))
    shutil.copytree(served, tmp_path / "larger")
    (tmp_path / "larger" / "variables" / "more").write_bytes(bytes(100_000))
    largest_file(50_000)
    with pytest.raises(Exception, match=r"File too large|RESOURCE_EXHAUSTED|No space") as caught:
        pusher.push(str(tmp_path / "larger"), str(tmp_path / "pushed"))
    largest_file(resource.RLIM_INFINITY)
    assert [str(path) for path in (tmp_path / "pushed").iterdir()] == [first]
    assert shortage_in(caught.value, {"push_to": str(tmp_path)}) is not None


def test_a_command_that_finds_no_room_says_so_and_leaves_no_half_of_a_file(mountable, tmp_path):
    command = [sys.executable, "-m", "morph_tfx.pipelines.commands.cli", "init", str(tmp_path / "mine")]
    look = f"{shlex.join(command)}; code=$?; ls -A {shlex.quote(str(tmp_path / 'mine'))}; exit $code"
    done = subprocess.run(with_disk(tmp_path, 8, ["sh", "-c", look]), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"morph-tfx: .* cannot be written: No space left on device\. Make room .*\n", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("No space left on device [while running 'WriteSplit[train]']", r"there is no room at .* \(No space left"),
        ("INTERNAL: sqlite3 error: database or disk is full", r"there is no room at .* \(database or disk is full\)"),
        ("attempt to write a readonly database", r"Nothing can be written any more to .* \(attempt to"),
        ("OOM when allocating tensor with shape[9,9]", r"The memory .* is used up \(OOM when allocating\)"),
        ("Worker subprocess exited with return code 137", r"A worker process of Beam was killed \(signal 9\)"),
    ],
)
def test_a_shortage_is_known_by_what_libraries_say_of_it(text, message, tmp_path):
    try:
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            raise ValueError("while that was handled") from error
    except ValueError as error:
        found = shortage_in(error, {"pipeline_root": str(tmp_path)})
    assert re.search(message, found or ""), found
    assert (found or "").endswith(KEPT)


def test_what_is_no_shortage_stays_what_it_is(tmp_path):
    assert shortage_in(RuntimeError("Worker subprocess exited with return code 1"), {"push_to": str(tmp_path)}) is None
    rolled_back = RuntimeError("cannot commit - no transaction is active")  # which a full disk is one reason for
    assert shortage_in(rolled_back, {"push_to": str(tmp_path)}) is None
    assert shortage_in(FileNotFoundError(errno.ENOENT, "No such file"), {"push_to": str(tmp_path)}) is None
    assert shortage_in(MemoryError(), {"push_to": str(tmp_path)}) is not None
