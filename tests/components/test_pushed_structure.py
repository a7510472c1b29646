"""PushedStructure on directories as Pusher leaves them: which model it takes, and what it says when there is none."""

import pathlib
import re
import shutil

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.proto import example_gen_pb2
from tfx.utils import io_utils, path_utils

import morph_core as morph
from morph_tfx.components import PushedStructure, StructureExporter
from morph_tfx.components.artifacts import model_assets
from morph_tfx.components.training import user_module
from tests.components import saved_models
from tests.components.conftest import DIGITS, SCHEMA


@pytest.fixture(scope="module")
def graph():
    return morph.ChannelGraph.from_model(user_module.load({"module_file": DIGITS}).seed({}))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved_models.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def push(graph, model, tmp_path):
    """push(version, width) leaves a pushed model; None as the width, one without a structure."""

    def push_model(version: str, width: int | None, complete: bool = True) -> pathlib.Path:
        directory = tmp_path / "serving" / version
        shutil.copytree(model, directory)
        (directory / "version").write_text(version)
        if width is not None:
            schema = text_format.Parse(SCHEMA, schema_pb2.Schema())
            model_assets.write(str(directory), morph.describe(graph, {"conv2d-1": width}), schema)
        if not complete:
            (directory / "saved_model.pb").unlink()
        return directory

    return push_model


@pytest.fixture
def look(run, tmp_path):
    return lambda: run(PushedStructure(push_to=str(tmp_path / "serving")))


def test_structure_schema_and_model_are_those_of_the_newest_version(push, look, graph):
    push("999", 4)
    push("1000", 8)  # newer than 999, although it sorts before it as text
    found = look()
    structure = StructureExporter(found["structure"]).read(graph)
    assert structure.widths["conv2d-1"] == 8
    assert found["structure"].get_float_custom_property("flops_fraction") < 1
    schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(found["schema"].uri))
    assert [feature.name for feature in schema.feature] == ["image", "ink", "label"]
    model = pathlib.Path(path_utils.serving_model_path(found["model"].uri))
    assert (model / "version").read_text() == "1000"
    assert (model / "saved_model.pb").is_file() and (model / "variables" / "variables.index").is_file()
    for artifact in found.values():
        assert artifact.get_string_custom_property("pushed_destination").endswith("/serving/1000")


def test_what_it_finds_out_about_news_is_said_and_goes_with_the_structure(push, run, tmp_path, capsys):
    model = push("12", 8)
    (tmp_path / "data" / "span-7").mkdir(parents=True)
    (tmp_path / "data" / "span-7" / "rows.tfrecord").write_text("rows")
    splits = [example_gen_pb2.Input.Split(name="all", pattern="span-{SPAN}/*")]
    component = PushedStructure(
        push_to=str(tmp_path / "serving"),
        input_base=str(tmp_path / "data"),
        input_config=example_gen_pb2.Input(splits=splits),
        module_file=DIGITS,
    )
    first = run(component, "first")["structure"]
    assert first.get_int_custom_property("has_news") == 1
    assert first.get_string_custom_property("news") == f"The model in {model} does not say what it was trained on."
    assert "There is something to train. The model in" in capsys.readouterr().out
    (model / model_assets.TRAINED_ON_FILE).write_text(first.get_string_custom_property("trained_on"))
    second = run(component, "second")["structure"]
    assert second.has_custom_property("has_news") and second.get_int_custom_property("has_news") == 0
    assert "There is nothing to train. The model in" in capsys.readouterr().out


def test_where_it_is_told_of_no_data_it_says_nothing_of_news(push, look, capsys):
    push("12", 8)
    assert not look()["structure"].has_custom_property("has_news")
    assert "to train" not in capsys.readouterr().out


def test_what_is_still_being_pushed_or_came_from_elsewhere_is_passed_over(push, look, tmp_path):
    push("1", 8)
    push("2", 4, complete=False)
    push("3", None)
    (tmp_path / "serving" / "temporary").mkdir()
    found = look()
    assert found["structure"].get_string_custom_property("pushed_destination").endswith("/serving/1")


def test_nothing_pushed_yet_says_to_run_the_morph_pipeline_first(look, tmp_path):
    message = (
        r"nothing to retrain.* pushed to .*/serving \(it is empty or not there\).*morph pipeline.* run that one first"
    )
    with pytest.raises(morph.MorphError, match=message):
        look()
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == []


def test_a_directory_of_other_models_is_told_what_it_holds(push, look):
    push("7", None)
    with pytest.raises(morph.MorphError, match=r"it holds 7\).*assets.extra/structure.json"):
        look()


DAMAGES = {
    "a graph that is cut off": (
        lambda model: saved_models.truncate(model / "saved_model.pb"),
        r"serving/8: it is not loaded: its saved_model\.pb is damaged: it is no SavedModel",
    ),
    "no variables": (lambda model: shutil.rmtree(model / "variables"), r"serving/8: it cannot be loaded \(\w+: .+\)"),
    "values that are cut off": (
        lambda model: saved_models.truncate(model / "variables" / "variables.data-00000-of-00001"),
        r"serving/8: it cannot be loaded \(\w+: .+\)",
    ),
    "garbage for a schema": (
        lambda model: (model / "assets.extra" / "schema.pbtxt").write_text("<html>404"),
        r"serving/8/assets.extra/schema.pbtxt is no schema: 1:1",
    ),
    "bytes for a schema": (
        lambda model: (model / "assets.extra" / "schema.pbtxt").write_bytes(b"\xff\xfe\x00"),
        r"serving/8/assets.extra/schema.pbtxt is not a text file",
    ),
    "an empty schema": (
        lambda model: (model / "assets.extra" / "schema.pbtxt").write_text(""),
        r"serving/8/assets.extra/schema.pbtxt names no feature",
    ),
    "no schema": (
        lambda model: (model / "assets.extra" / "schema.pbtxt").unlink(),
        r"serving/8 does not carry assets.extra/schema.pbtxt",
    ),
    "half a structure": (
        lambda model: (model / "assets.extra" / "structure.json").write_text('{"groups": '),
        r"serving/8/assets.extra/structure.json is not valid JSON",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_is_named_and_the_one_before_it_is_taken(push, look, capsys, damage, said):
    push("7", 8)
    damage(push("8", 4))
    found = look()
    told = capsys.readouterr().out
    assert re.search(rf"Passed over: .*{said}", told)
    assert re.search(r"The latest pushed model that can be used: .*/serving/7\n", told)
    for artifact in found.values():
        assert artifact.get_string_custom_property("pushed_destination").endswith("/serving/7")
        assert re.search(said, artifact.get_string_custom_property("passed_over"))


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_where_every_model_is_damaged_each_is_named(push, look, tmp_path, damage, said):
    damage(push("8", 4))
    with pytest.raises(
        morph.MorphError, match=rf"nothing to retrain: no model .* can be used\. .*{said}.* Restore one"
    ):
        look()
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == []


def test_a_file_system_that_does_not_answer_is_no_fault_of_the_model(push, look, monkeypatch):
    """Or a night in which the storage is away would retrain an old structure, and push it."""
    push("8", 4)

    def away(*_):
        raise tf.errors.UnavailableError(None, None, "the storage is away")

    monkeypatch.setattr(tf.saved_model, "load", away)
    with pytest.raises(tf.errors.UnavailableError, match="the storage is away"):
        look()


def test_a_model_that_answers_nothing_is_passed_over(push, look):
    push("7", 8)
    directory = push("8", 4)
    (directory / "saved_model.pb").unlink()
    tf.saved_model.save(tf.Module(), str(directory))
    assert look()["model"].get_string_custom_property("passed_over").endswith("it has no signature 'serving_default'.")
