"""JSON from outside ends in a reason where it is larger, deeper or longer than anything that is written here.

What is written is there as a whole, or not at all.
"""

import errno
import json
import os
import pathlib
import time

import keras
import pytest

import morph_core as morph
from morph_core import files


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested more than 64 deep"),
        ("[" * 65 + "1" + "]" * 65, "nested more than 64 deep"),
        ('{"a":' * 300 + "1" + "}" * 300, "nested more than 64 deep"),
        ("9" * 5000, "has 5000 digits"),
        ("1e999", "1e999 is not a finite number"),
        ("[NaN]", "NaN is not a number"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_beyond_the_limits_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        files.json_of(text)


def test_what_is_within_them_is_read_as_it_is():
    data = {"a": [1, -2.5, None, True, "text", {"b": []}], "c": 10**299}
    assert files.json_of(json.dumps(data)) == data
    deep = json.loads("[" * 64 + "]" * 64)
    assert files.json_of(json.dumps(deep)) == deep


def test_a_file_is_read_no_further_than_the_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"larger than 1,000 bytes"):
        files.read_json("/dev/zero")
    (tmp_path / "a.json").write_text(" " * 999 + "1")
    assert files.read_json(tmp_path / "a.json") == 1


def test_a_module_is_known_by_the_names_and_contents_of_its_directory_s_python_files(tmp_path):
    def digest(directory: pathlib.Path) -> str:
        return files.digest_of(files.sources_beside(directory / "module.py"))

    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        for name in ("neighbour.py", "module.py", "notes.txt"):
            (directory / name).write_text(name)
    assert [file.name for file in files.sources_beside(first / "module.py")] == ["module.py", "neighbour.py"]
    (second / "notes.txt").write_text("other notes")
    assert digest(first) == digest(second)
    known = {digest(first)}
    (second / "neighbour.py").write_text("other code")
    known.add(digest(second))
    (second / "neighbour.py").write_text("neighbour.py")
    (second / "neighbour.py").rename(second / "friend.py")
    known.add(digest(second))
    (second / "friend.py").unlink()
    known.add(digest(second))
    assert len(known) == 4


@pytest.mark.parametrize("read", [morph.Structure.load, morph.latency], ids=["structure", "calibration"])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"schema_version": ' + "9" * 5000 + "}", '{"schema_version": ' + "9" * 200 + "}", '{"a": 1e999}'],
    ids=["depth", "digits", "large version", "infinity"],
)
def test_structures_and_calibrations_are_refused_at_once_and_briefly(tmp_path, read, text):
    path = tmp_path / "file.json"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(morph.MorphError, match=r"file\.json") as caught:
        read(str(path))
    assert len(str(caught.value)) < 1000
    assert time.process_time() - start < 5


def test_a_file_that_is_written_can_be_read_by_everybody(tmp_path):
    """A server or a phone's build runs as another user than the one who made the file."""
    path = tmp_path / "model.tflite"
    for content in (b"first", b"second"):
        files.write_whole(path, content)
        assert path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "made.json"
    files.write_whole(path, b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(morph.MorphError, match=r"made.json cannot be written \(No space left on device\)"):
        files.write_whole(path, b"after")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_structure_names_the_place_that_it_cannot_be_written_to(tmp_path):
    inputs = keras.Input((4,))
    structure = morph.describe(morph.ChannelGraph.from_model(keras.Model(inputs, keras.layers.Dense(2)(inputs))), {})
    with pytest.raises(morph.MorphError, match=r"none/structure.json cannot be written \(No such file or directory\)"):
        structure.save(tmp_path / "none" / "structure.json")
