"""The latest pushed structure, in metadata as TFX records it: what counts as pushed, by whom, and made from what."""

import functools
import pathlib
import re
import shutil

import keras
import pytest
from tfx.types import standard_artifacts as artifacts
from tfx.utils import io_utils

import morph_core as morph
from morph_core import MorphError
from morph_tfx.components import MorphStructure
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.graph.pushed import LatestPushedStructure, check_pushed, latest_pushed
from tests.components import saved_models
from tests.pipelines.conftest import made

BOTH = ["digits", "digits-retrain"]


@functools.cache
def structure_text() -> str:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(8)(inputs)))
    return morph.uniform(morph.ChannelGraph.from_model(model), target=0.5).to_json()


def found(record) -> MorphStructure:
    structure = made(MorphStructure)
    structure.uri = str(record.place("structure"))
    (pathlib.Path(structure.uri) / "structure.json").write_text(structure_text())
    return structure


def searched(record, pipeline: str = "digits") -> MorphStructure:
    structure = found(record)
    record.step(pipeline, "MorphTrainer", {}, structure=structure)
    return structure


def inferred(record):
    schema = made(artifacts.Schema)
    schema.uri = str(record.place("schema"))
    io_utils.write_string_file(f"{schema.uri}/schema.pbtxt", 'feature { name: "label" type: INT }')
    return schema


def trained(record, pipeline: str, structure, transform: bool = True):
    """A retraining from raw data on; returns the model and the schema."""
    schema, graph, model = inferred(record), made(artifacts.TransformGraph), made(artifacts.Model)
    record.step(pipeline, "SchemaGen", {}, schema=schema)
    if transform:
        record.step(pipeline, "Transform", {"schema": schema}, transform_graph=graph)
    data = {"transform_graph": graph} if transform else {"schema": schema}
    record.step(pipeline, "Retrainer", {"structure": structure, **data}, model=model)
    return model, schema


def pushed(record, pipeline: str, model, really: bool = True, copied: bool = False):
    """A push of a model or, as where several budgets are compared, of a copy of it."""
    blessing = made(artifacts.ModelBlessing, current_model_id=model.id, blessed=int(really))
    record.step(pipeline, "Evaluator", {"model": model}, blessing=blessing)
    if copied:
        model = made(artifacts.Model)
        record.step(pipeline, "Frontier", {}, model=model)
    artifact = made(artifacts.PushedModel, pushed=int(really))
    if really:
        artifact.set_string_custom_property("pushed_destination", str(record.saved_model("version")))
    record.step(pipeline, "Pusher", {"model": model, "model_blessing": blessing}, pushed_model=artifact)
    return artifact


def ids(found) -> dict[str, list[int]]:
    assert found is not None
    return {name: [artifact.id for artifact in ones] for name, ones in found.items()}


@pytest.mark.parametrize(("transform", "copied"), [(True, False), (False, False), (True, True)])
def test_structure_and_schema_are_found_by_the_lineage_of_the_pushed_model(record, transform, copied):
    other = searched(record)
    structure = searched(record)
    model, schema = trained(record, "digits", structure, transform)
    trained(record, "digits", other)  # later, but never pushed
    push = pushed(record, "digits", model, copied=copied)
    latest = LatestPushedStructure(pipelines=BOTH).resolve_artifacts(record.store, {})
    assert ids(latest) == {"structure": [structure.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert [artifact.uri for artifact in (latest or {})["structure"]] == [structure.uri]


def test_a_model_that_was_trained_in_place_has_the_structure_that_was_made_with_it(record):
    """Not that of the cycle before, which the last MorphTrainer started from."""
    before = searched(record)
    schema, graph = inferred(record), made(artifacts.TransformGraph)
    record.step("digits", "SchemaGen", {}, schema=schema)
    record.step("digits", "Transform", {"schema": schema}, transform_graph=graph)
    structure, model = found(record), made(artifacts.Model)
    inputs = {"seed_structure": before, "transform_graph": graph}
    record.step("digits", "MorphTrainer-2", inputs, structure=structure, model=model)
    push = pushed(record, "digits", model)
    expected = {"structure": [structure.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert ids(latest_pushed(record.store, BOTH, print)) == expected


def test_the_latest_push_counts_whichever_pipeline_made_it(record):
    first, second = searched(record), searched(record)
    pushed(record, "digits", trained(record, "digits", first)[0])
    model, schema = trained(record, "digits-retrain", second)
    push = pushed(record, "digits-retrain", model)
    expected = {"structure": [second.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert ids(latest_pushed(record.store, BOTH, print)) == expected
    assert ids(latest_pushed(record.store, ["digits"], print))["structure"] == [first.id]


def test_a_model_that_was_held_back_does_not_count(record):
    good, bad = searched(record), searched(record)
    pushed(record, "digits", trained(record, "digits", good)[0])
    pushed(record, "digits", trained(record, "digits", bad)[0], really=False)
    assert ids(latest_pushed(record.store, BOTH, print))["structure"] == [good.id]


def test_a_model_of_another_trainer_or_of_another_pipeline_is_passed_over(record):
    structure, foreign = searched(record), searched(record, "flowers")
    pushed(record, "digits", trained(record, "digits", structure)[0])
    model = made(artifacts.Model)
    record.step("digits", "Trainer", {}, model=model)
    pushed(record, "digits", model)
    pushed(record, "flowers", trained(record, "flowers", foreign)[0])
    assert ids(latest_pushed(record.store, BOTH, print))["structure"] == [structure.id]


def test_what_came_from_the_cache_or_was_looked_up_keeps_its_origin(record):
    structure = searched(record)
    model, schema = trained(record, "digits", structure)
    push = pushed(record, "digits", model)
    record.cached("digits", "Retrainer", {}, model=model)
    record.cached("digits", "Pusher", {}, pushed_model=push)
    record.looked_up("digits-retrain", structure=structure, schema=schema, pushed_model=push)
    expected = {"structure": [structure.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert ids(latest_pushed(record.store, BOTH, print)) == expected


def place_of(artifact) -> pathlib.Path:
    return pathlib.Path(artifact.get_string_custom_property("pushed_destination"))


def test_to_delete_a_version_there_is_a_rollback(record, capsys):
    """To the last one that is still there, and it is said; what was deleted before that is nobody's business."""
    oldest, kept, newest = searched(record), searched(record), searched(record)
    places = []
    for structure in (oldest, kept, newest):
        places.append(place_of(pushed(record, "digits", trained(record, "digits", structure)[0])))
    shutil.rmtree(places[0])
    shutil.rmtree(places[2])
    latest = LatestPushedStructure(pipelines=BOTH).resolve_artifacts(record.store, {})
    assert ids(latest)["structure"] == [kept.id]
    assert capsys.readouterr().out == f"{places[2]} was pushed, and is passed over: it is not there.\n"


def test_what_was_pushed_later_is_newer_whatever_the_clock_said(record):
    """Metadata knows the order of pushes; the numbers of versions play no part."""
    first, second = searched(record), searched(record)
    for structure, version in ((first, "1700000000"), (second, "1600000000")):
        artifact = made(artifacts.PushedModel, pushed=1, pushed_destination=str(record.saved_model(version)))
        model = trained(record, "digits", structure)[0]
        blessing = made(artifacts.ModelBlessing, current_model_id=model.id, blessed=1)
        record.step("digits", "Evaluator", {"model": model}, blessing=blessing)
        record.step("digits", "Pusher", {"model": model, "model_blessing": blessing}, pushed_model=artifact)
    assert ids(latest_pushed(record.store, BOTH, print))["structure"] == [second.id]


def half_a_graph(push, structure, schema):
    saved_models.truncate(place_of(push) / "saved_model.pb")


def no_variables(push, structure, schema):
    shutil.rmtree(place_of(push) / "variables")


def garbage_for_a_schema(push, structure, schema):
    (pathlib.Path(schema.uri) / "schema.pbtxt").write_text("<html>404")


def no_schema(push, structure, schema):
    shutil.rmtree(schema.uri)


def half_a_structure(push, structure, schema):
    saved_models.truncate(pathlib.Path(structure.uri) / "structure.json")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half_a_graph, r"it is not loaded: its saved_model\.pb is damaged: it is no SavedModel"),
        (no_variables, r"it cannot be loaded \(\w+: .+\)"),
        (garbage_for_a_schema, r"the schema in \S+ cannot be read \(1:1.*\)"),
        (no_schema, r"the schema in \S+ is not there"),
        (half_a_structure, r"structure\.json is not valid JSON"),
    ],
)
def test_what_is_damaged_is_passed_over_and_said(record, damage, said):
    good, bad = searched(record), searched(record)
    pushed(record, "digits", trained(record, "digits", good)[0])
    model, schema = trained(record, "digits", bad)
    push = pushed(record, "digits", model)
    damage(push, bad, schema)
    told: list[str] = []
    assert ids(latest_pushed(record.store, BOTH, told.append))["structure"] == [good.id]
    [line] = told
    assert line.startswith(f"{place_of(push)} was pushed, and is passed over")
    assert re.search(said, line)


def test_nothing_pushed_is_found_as_nothing(record):
    assert latest_pushed(record.store, BOTH, print) is None
    trained(record, "digits", searched(record))
    assert latest_pushed(record.store, BOTH, print) is None


def test_a_run_says_what_to_do_when_all_that_was_pushed_is_gone(config, monkeypatch):
    """And not that nothing was pushed yet."""
    gone = "/serving/7 was pushed, and is passed over: it is not there."

    def nothing_left(store, pipelines, tell):
        tell(gone)

    monkeypatch.setattr("morph_tfx.pipelines.graph.pushed.latest_pushed", nothing_left)
    pathlib.Path(config.metadata).touch()
    with pytest.raises(MorphError, match=rf"of what x or x-retrain pushed, nothing can be used\. {gone} Restore one"):
        check_pushed(config)


def test_a_run_says_what_to_do_when_nothing_was_pushed_and_leaves_no_metadata_behind(tmp_path):
    text = """
name: digits
data: {format: tfrecord, path: data, eval_fraction: 0.2}
module_file: module.py
label: label
target: 0.5
search: {epochs: 3}
retrain: {epochs: 3}
evaluate: {lower_bound: 0.9}
"""
    config = parse_config(text, "config.yaml", tmp_path)
    message = (
        r"according to .*/metadata.sqlite, no run of digits or digits-retrain has pushed a model to .*/pushed yet\. "
        r"Run the morph pipeline first .* name a structure: retrain_pipeline: \{structure: PATH\}"
    )
    with pytest.raises(MorphError, match=message):
        check_pushed(config)
    assert list(tmp_path.iterdir()) == []
