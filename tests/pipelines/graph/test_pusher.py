"""A push is the newest version below the directory of versions, whatever the clock says, and whole or not there."""

import os
import pathlib

import pytest
from tfx.proto import pusher_pb2
from tfx.types import channel_utils
from tfx.types import standard_artifacts as artifacts

from morph_core.report.card import Slice
from morph_tfx.components.artifacts import evaluation, model_assets
from morph_tfx.pipelines.graph import pusher
from tests.pipelines.conftest import made


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds) sets the time for the pusher."""
    return lambda seconds: monkeypatch.setattr(pusher.time, "time", lambda: seconds)


def versions(push_to: pathlib.Path) -> list[str]:
    return sorted(os.listdir(push_to))


def test_a_version_is_the_time_of_its_push(served, tmp_path, clock):
    clock(1_700_000_000.9)
    assert pusher.push(str(served), str(tmp_path / "serving")) == str(tmp_path / "serving" / "1700000000")
    assert (tmp_path / "serving" / "1700000000" / "saved_model.pb").is_file()


def test_where_the_clock_has_gone_back_a_push_is_still_the_newest_and_says_why(served, tmp_path, clock, capsys):
    clock(1_700_000_000)
    pusher.push(str(served), str(tmp_path))
    clock(1_600_000_000)
    pusher.push(str(served), str(tmp_path))
    pusher.push(str(served), str(tmp_path))
    assert versions(tmp_path) == ["1700000000", "1700000001", "1700000002"]
    assert f"Version 1700000001: {tmp_path} holds 1700000000 already, and the clock says 1600000000." in (
        capsys.readouterr().out
    )


def test_two_pushes_within_a_second_are_two(served, tmp_path, clock):
    clock(5)
    assert [pathlib.Path(pusher.push(str(served), str(tmp_path))).name for _ in range(2)] == ["5", "6"]


def test_a_number_that_another_push_takes_meanwhile_is_left_to_it(served, tmp_path, clock, monkeypatch):
    clock(5)
    rename = os.rename

    def beaten(source, target):
        monkeypatch.setattr(os, "rename", rename)
        (tmp_path / "5").mkdir()
        (tmp_path / "5" / "theirs").write_text("")
        rename(source, target)

    monkeypatch.setattr(os, "rename", beaten)
    assert pusher.push(str(served), str(tmp_path)) == str(tmp_path / "6")
    assert versions(tmp_path / "5") == ["theirs"]


def test_what_is_no_version_does_not_count(served, tmp_path, clock):
    for name in ("README", "99999999999x", "²"):
        (tmp_path / name).mkdir()
    clock(5)
    assert pusher.push(str(served), str(tmp_path)).endswith("/5")


def test_a_push_that_fails_halfway_leaves_no_version(served, tmp_path, monkeypatch):
    """A server that starts now would take half a model for the newest."""
    monkeypatch.setattr(pusher.os, "rename", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        pusher.push(str(served), str(tmp_path))
    assert versions(tmp_path) == []


def test_what_a_killed_push_left_is_removed_a_day_later(served, tmp_path):
    for name, age in (("unfinished-old", 2 * 24 * 3600), ("unfinished-running", 60)):
        (tmp_path / name).mkdir()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    pusher.push(str(served), str(tmp_path))
    assert "unfinished-old" not in versions(tmp_path) and "unfinished-running" in versions(tmp_path)


@pytest.mark.parametrize("blessed", [1, 0])
def test_only_what_is_blessed_is_pushed_and_the_artifact_says_where(blessed, record, tmp_path):
    model, blessing, pushed = (made(kind) for kind in (artifacts.Model, artifacts.ModelBlessing, artifacts.PushedModel))
    model.uri = str(record.saved_model("model", "Format-Serving"))
    pushed.uri = str(tmp_path / "archive")
    blessing.set_int_custom_property("blessed", blessed)
    component = pusher.Pusher(
        model=channel(model), model_blessing=channel(blessing), push_destination=destination(tmp_path / "serving")
    )
    pusher.Executor().Do(
        {"model": [model], "model_blessing": [blessing]}, {"pushed_model": [pushed]}, component.exec_properties
    )
    assert pushed.get_int_custom_property("pushed") == blessed
    assert (tmp_path / "serving").is_dir() == bool(blessed)
    if blessed:
        [version] = versions(tmp_path / "serving")
        assert pushed.get_string_custom_property("pushed_destination") == str(tmp_path / "serving" / version)
        assert pushed.get_string_custom_property("pushed_version") == version
        assert (tmp_path / "archive" / "saved_model.pb").is_file()


@pytest.mark.parametrize("carries_card", [True, False])
def test_what_evaluator_found_is_on_the_card_of_what_is_pushed(carries_card, record, tmp_path, monkeypatch):
    """And on that of the archived copy; the model that was trained stays as it is."""
    found = [Slice("", None, {"accuracy": 0.9}, 10), Slice("country", "AT", {"accuracy": 0.5}, 4)]
    monkeypatch.setattr(evaluation, "slices", {"/found": found}.__getitem__)
    model, blessing, pushed, told = (
        made(kind)
        for kind in (artifacts.Model, artifacts.ModelBlessing, artifacts.PushedModel, artifacts.ModelEvaluation)
    )
    model.uri, pushed.uri, told.uri = (
        str(record.saved_model("model", "Format-Serving")),
        str(tmp_path / "copy"),
        "/found",
    )
    blessing.set_int_custom_property("blessed", 1)
    trained = pathlib.Path(model.uri, "Format-Serving", model_assets.CARD_FILE)
    if carries_card:
        trained.parent.mkdir(exist_ok=True)
        trained.write_text("# Model card\n\n## Costs\n")
    component = pusher.Pusher(
        model=channel(model),
        model_blessing=channel(blessing),
        evaluation=channel(told),
        push_destination=destination(tmp_path / "serving"),
    )
    pusher.Executor().Do(
        {"model": [model], "model_blessing": [blessing], "evaluation": [told]},
        {"pushed_model": [pushed]},
        component.exec_properties,
    )
    for place in (pushed.get_string_custom_property("pushed_destination"), pushed.uri):
        card = pathlib.Path(place, model_assets.CARD_FILE)
        assert card.exists() == carries_card
        if carries_card:
            text = card.read_text()
            assert text.startswith("# Model card\n\n## Costs\n\n## Evaluated\n")
            assert "| all | 10 | 0.9 |" in text and text.endswith("| country = AT | 4 | 0.5 |\n")
    assert not carries_card or "Evaluated" not in trained.read_text()


def channel(artifact):
    return channel_utils.as_channel([artifact])


def destination(directory: pathlib.Path):
    return pusher_pb2.PushDestination(filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(directory)))
