"""Directories appear complete or not at all."""

import pathlib

import pytest

from morph_tfx.components.artifacts.staging import complete_or_absent, emptied_on_failure


def test_a_filled_directory_takes_the_place_of_the_target(tmp_path):
    target = tmp_path / "artifact"
    target.mkdir()
    (target / "old").write_text("of an earlier attempt")
    with complete_or_absent(str(target)) as directory:
        pathlib.Path(directory, "new").write_text("1")
        assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_neither_target_nor_unfinished_files(tmp_path):
    target = tmp_path / "artifact"

    def interrupted():
        with complete_or_absent(str(target)) as directory:
            pathlib.Path(directory, "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_logs_stay_after_success_and_go_after_failure(tmp_path):
    logs = tmp_path / "model_run"
    with emptied_on_failure(str(logs)) as directory:
        (logs / "train").mkdir()
        (logs / "train" / "events").write_text("1")
    assert (logs / "train" / "events").exists()
    assert directory == str(logs)

    def fails():
        with emptied_on_failure(str(logs)):
            raise ValueError("training failed")

    with pytest.raises(ValueError, match="training failed"):
        fails()
    assert list(logs.iterdir()) == []
