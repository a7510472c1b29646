"""Where checkpoints lie: one place for each execution, in which files are whole or absent."""

import pathlib

import pytest

import morph_core as morph
from morph_core.search.checkpoint import Directory
from morph_tfx.components.training import checkpoints
from tests.components.conftest import RAW_DIGITS, make


def placed(examples, network="sha256:1", **properties):
    properties = {
        "module_file": RAW_DIGITS,
        "target": 0.5,
        "custom_config": '{"checkpoint_dir": "/volume"}',
    } | properties
    return str(checkpoints.place(None, {"examples": [examples]}, properties, network))


def test_the_same_execution_has_the_same_place_and_any_other_another(examples, tmp_path):
    place = placed(examples)
    assert place.startswith("/volume/execution-")
    assert placed(examples) == place
    copied = tmp_path / "raw_digits.py"
    copied.write_text(pathlib.Path(RAW_DIGITS).read_text())
    mine = placed(examples, module_file=str(copied))
    copied.write_text(copied.read_text() + "\n# changed\n")
    others = [
        placed(examples, target=0.4),
        placed(examples, network="sha256:2"),
        placed(make(type(examples), tmp_path)),
        mine,
        placed(examples, module_file=str(copied)),
    ]
    assert len({place, *others}) == 6


def test_without_a_directory_that_survives_there_is_none_and_a_word_about_it(examples, capsys):
    assert checkpoints.place(None, {"examples": [examples]}, {}, "sha256:1") is None
    assert "No checkpoints" in capsys.readouterr().out
    checkpoints.clear(None)


def test_an_address_that_nobody_can_write_to_is_an_error(examples):
    with pytest.raises(morph.MorphError, match=r"checkpoint_dir nowhere://bucket cannot be reached .* gs://"):
        placed(examples, custom_config='{"checkpoint_dir": "nowhere://bucket"}')


@pytest.mark.parametrize("kind", [Directory, checkpoints.RemoteDirectory])
def test_files_appear_whole_or_not_at_all(kind, tmp_path):
    storage = kind(str(tmp_path / "deep" / "place"))
    assert storage.names() == []
    with storage.writing("a") as file:
        file.write(b"first")
    with storage.writing("a") as file:
        file.write(b"second")

    def fails():
        with storage.writing("b") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert storage.names() == ["a"]
    with storage.reading("a") as file:
        file.seek(3)
        assert file.read() == b"ond"
    (tmp_path / "deep" / "place" / "b.123.unfinished").write_text("half")
    assert storage.names() == ["a"]
    storage.remove("a")
    assert storage.names() == []
    checkpoints.clear(storage)
    assert not (tmp_path / "deep" / "place").exists()
