"""The latest pushed structure, in metadata as TFX records it: what counts as pushed, by whom, and made from what."""

import pytest
from tfx.types import standard_artifacts as artifacts

from morph_core import MorphError
from morph_tfx.components import MorphStructure
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.graph.pushed import LatestPushedStructure, check_pushed, latest_pushed
from tests.pipelines.conftest import made

BOTH = ["digits", "digits-retrain"]


def searched(record, pipeline: str = "digits") -> MorphStructure:
    structure = made(MorphStructure)
    record.step(pipeline, "MorphTrainer", {}, structure=structure)
    return structure


def trained(record, pipeline: str, structure, transform: bool = True):
    """A retraining from raw data on; returns the model and the schema."""
    schema, graph, model = made(artifacts.Schema), made(artifacts.TransformGraph), made(artifacts.Model)
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
    found = LatestPushedStructure(pipelines=BOTH).resolve_artifacts(record.store, {})
    assert ids(found) == {"structure": [structure.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert [artifact.uri for artifact in (found or {})["structure"]] == [structure.uri]


def test_a_model_that_was_trained_in_place_has_the_structure_that_was_made_with_it(record):
    """Not that of the cycle before, which the last MorphTrainer started from."""
    before = searched(record)
    schema, graph = made(artifacts.Schema), made(artifacts.TransformGraph)
    record.step("digits", "SchemaGen", {}, schema=schema)
    record.step("digits", "Transform", {"schema": schema}, transform_graph=graph)
    structure, model = made(MorphStructure), made(artifacts.Model)
    inputs = {"seed_structure": before, "transform_graph": graph}
    record.step("digits", "MorphTrainer-2", inputs, structure=structure, model=model)
    push = pushed(record, "digits", model)
    expected = {"structure": [structure.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert ids(latest_pushed(record.store, BOTH)) == expected


def test_the_latest_push_counts_whichever_pipeline_made_it(record):
    first, second = searched(record), searched(record)
    pushed(record, "digits", trained(record, "digits", first)[0])
    model, schema = trained(record, "digits-retrain", second)
    push = pushed(record, "digits-retrain", model)
    expected = {"structure": [second.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert ids(latest_pushed(record.store, BOTH)) == expected
    assert ids(latest_pushed(record.store, ["digits"]))["structure"] == [first.id]


def test_a_model_that_was_held_back_does_not_count(record):
    good, bad = searched(record), searched(record)
    pushed(record, "digits", trained(record, "digits", good)[0])
    pushed(record, "digits", trained(record, "digits", bad)[0], really=False)
    assert ids(latest_pushed(record.store, BOTH))["structure"] == [good.id]


def test_a_model_of_another_trainer_or_of_another_pipeline_is_passed_over(record):
    structure, foreign = searched(record), searched(record, "flowers")
    pushed(record, "digits", trained(record, "digits", structure)[0])
    model = made(artifacts.Model)
    record.step("digits", "Trainer", {}, model=model)
    pushed(record, "digits", model)
    pushed(record, "flowers", trained(record, "flowers", foreign)[0])
    assert ids(latest_pushed(record.store, BOTH))["structure"] == [structure.id]


def test_what_came_from_the_cache_or_was_looked_up_keeps_its_origin(record):
    structure = searched(record)
    model, schema = trained(record, "digits", structure)
    push = pushed(record, "digits", model)
    record.cached("digits", "Retrainer", {}, model=model)
    record.cached("digits", "Pusher", {}, pushed_model=push)
    record.looked_up("digits-retrain", structure=structure, schema=schema, pushed_model=push)
    expected = {"structure": [structure.id], "schema": [schema.id], "pushed_model": [push.id]}
    assert ids(latest_pushed(record.store, BOTH)) == expected


def test_nothing_pushed_is_found_as_nothing(record):
    assert latest_pushed(record.store, BOTH) is None
    trained(record, "digits", searched(record))
    assert latest_pushed(record.store, BOTH) is None


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
