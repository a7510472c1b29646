"""The baseline is the latest blessed model other than the one that is evaluated, whichever pipeline made it."""

import pathlib
import shutil

from tfx.types import standard_artifacts

from morph_tfx.pipelines.graph.baseline import LatestOtherBlessedModel
from tests.components import saved_models
from tests.pipelines.conftest import made


def model(record, pipeline: str = "digits", blessed: bool | None = True, pushed: bool = True):
    """A model; evaluated unless `blessed` is None, and then pushed when it is blessed."""
    artifact = made(standard_artifacts.Model)
    artifact.uri = str(record.saved_model("model", "Format-Serving"))
    record.step(pipeline, "Retrainer", {}, model=artifact)
    if blessed is not None:
        blessing = made(standard_artifacts.ModelBlessing, current_model_id=artifact.id, blessed=int(blessed))
        record.step(pipeline, "Evaluator", {"model": artifact}, blessing=blessing)
        if pushed:
            result = made(standard_artifacts.PushedModel, pushed=int(blessed))
            if blessed:
                result.set_string_custom_property("pushed_destination", str(record.saved_model("version")))
            record.step(pipeline, "Pusher", {"model": artifact, "model_blessing": blessing}, pushed_model=result)
    return artifact


def resolve(record, candidate) -> list[int]:
    strategy = LatestOtherBlessedModel(pipelines=["digits", "digits-retrain"])
    resolved = strategy.resolve_artifacts(record.store, {"model": [], "candidate": [candidate]})
    assert resolved is not None
    assert [artifact.id for artifact in resolved["candidate"]] == [candidate.id]
    return [artifact.id for artifact in resolved["model"]]


def test_the_first_model_has_no_baseline(record):
    assert resolve(record, model(record, blessed=None)) == []


def test_a_blessed_model_from_the_cache_is_not_its_own_baseline(record):
    assert resolve(record, model(record)) == []


def test_the_latest_other_blessed_model_is_the_baseline(record):
    _, second, _, candidate = model(record), model(record), model(record, blessed=None), model(record, blessed=None)
    assert resolve(record, candidate) == [second.id]


def test_a_model_that_was_not_blessed_is_no_baseline(record):
    first, _ = model(record), model(record, blessed=False)
    assert resolve(record, model(record, blessed=None)) == [first.id]


def test_a_model_that_is_not_where_it_was_pushed_to_any_more_is_no_baseline(record, tmp_path, capsys):
    first, _ = model(record), model(record)
    *_, newest = sorted(tmp_path.glob("version-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(newest)
    assert resolve(record, model(record, blessed=None)) == [first.id]
    assert f"{newest} was pushed, and is passed over: it is not there." in capsys.readouterr().out


def test_a_model_that_does_not_load_is_no_baseline(record, capsys):
    """What Evaluator would read is the artifact, and not what was pushed."""
    first, second = model(record), model(record)
    saved_models.truncate(pathlib.Path(second.uri) / "Format-Serving" / "saved_model.pb")
    assert resolve(record, model(record, blessed=None)) == [first.id]
    assert "is passed over as the model to compare with: it is not loaded" in capsys.readouterr().out


def test_a_network_that_was_blessed_to_compare_with_only_is_no_baseline(record):
    chosen, _ = model(record), model(record, pushed=False)
    assert resolve(record, model(record, blessed=None)) == [chosen.id]


def test_both_pipelines_have_to_beat_each_other_s_models_and_no_others(record):
    searched = model(record, "digits")
    assert resolve(record, model(record, "digits-retrain", blessed=None)) == [searched.id]
    retrained = model(record, "digits-retrain")
    model(record, "flowers")
    assert resolve(record, model(record, "digits", blessed=None)) == [retrained.id]


def test_of_two_candidates_neither_is_the_baseline(record):
    first, pushed, other = model(record), model(record), model(record, blessed=None)
    strategy = LatestOtherBlessedModel(pipelines=["digits"])
    candidates = {"candidate": [pushed], "candidate_2": [other]}
    resolved = strategy.resolve_artifacts(record.store, {"model": [], **candidates})
    assert resolved is not None
    assert {name: [artifact.id for artifact in found] for name, found in resolved.items()} == {
        "model": [first.id],
        "candidate": [pushed.id],
        "candidate_2": [other.id],
    }
