"""PushedStructure on directories as Pusher leaves them: which model it takes, and what it says when there is none."""

import pathlib

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils, path_utils

import morph_core as morph
from morph_tfx.components import PushedStructure, StructureExporter
from morph_tfx.components.artifacts import model_assets
from morph_tfx.components.training import user_module
from tests.components.conftest import DIGITS, SCHEMA


@pytest.fixture(scope="module")
def graph():
    return morph.ChannelGraph.from_model(user_module.load({"module_file": DIGITS}).seed({}))


@pytest.fixture
def push(graph, tmp_path):
    """push(version, width) leaves a pushed model; None as the width, one without a structure."""

    def push_model(version: str, width: int | None, complete: bool = True) -> pathlib.Path:
        directory = tmp_path / "serving" / version
        (directory / "variables").mkdir(parents=True)
        (directory / "variables" / "variables.index").write_text(version)
        if width is not None:
            schema = text_format.Parse(SCHEMA, schema_pb2.Schema())
            model_assets.write(str(directory), morph.describe(graph, {"conv2d-1": width}), schema)
        if complete:
            (directory / "saved_model.pb").write_text(version)
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
    assert (model / "saved_model.pb").read_text() == "1000"
    assert (model / "variables" / "variables.index").read_text() == "1000"
    for artifact in found.values():
        assert artifact.get_string_custom_property("pushed_destination").endswith("/serving/1000")


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


def test_a_damaged_structure_is_named_with_its_file(push, look):
    directory = push("7", 8)
    (directory / "assets.extra" / "structure.json").write_text('{"groups": ')
    with pytest.raises(morph.MorphError, match=r"serving/7/assets.extra/structure.json is not valid JSON"):
        look()


def test_a_lost_schema_is_named(push, look):
    (push("7", 8) / "assets.extra" / "schema.pbtxt").unlink()
    with pytest.raises(morph.MorphError, match=r"serving/7 does not carry assets.extra/schema.pbtxt"):
        look()
