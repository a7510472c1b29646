"""ImportedModel and ImportedStructure on directories as people leave them on a volume."""

import pathlib

import pytest
from tfx.utils import path_utils

import morph_core as morph
from morph_tfx.components import ImportedModel, ImportedStructure, StructureExporter
from morph_tfx.components.training import user_module
from tests.components import saved_models
from tests.components.conftest import DIGITS


@pytest.fixture
def volume(tmp_path) -> pathlib.Path:
    return tmp_path / "volume"


def lay_model(directory: pathlib.Path) -> None:
    saved_models.save(directory, "17")


def files(root: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("below", ["", "Format-Serving"], ids=["pushed", "artifact"])
def test_a_model_becomes_one_that_evaluator_opens(run, volume, below):
    lay_model(volume / "1700000000" / below)
    model = run(ImportedModel(path=str(volume / "1700000000")))["result"]
    directory = pathlib.Path(path_utils.serving_model_path(model.uri))
    assert (directory / "version").read_text() == "17"
    assert (directory / "variables" / "variables.index").is_file()
    assert model.get_string_custom_property("imported_from") == str(volume / "1700000000")


def test_a_model_with_a_link_to_a_file_of_the_machine_is_not_imported(run, volume, tmp_path):
    lay_model(volume)
    (tmp_path / "secret").write_text("secret")
    (volume / "secret").symlink_to(tmp_path / "secret")
    with pytest.raises(
        morph.MorphError, match=r"The model at .* is not imported: its file secret is a link to .*\. Name"
    ):
        run(ImportedModel(path=str(volume)))
    assert not any(file.read_bytes() == b"secret" for file in files(tmp_path / "run"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda volume: None, r"There is no model at .*/volume \(it is not there\).*saved_model.pb.*kubeflow.steps"),
        (lambda volume: volume.mkdir(), r"\(it holds nothing\).*volumes: \[\{pvc: NAME, mount: PATH\}\]"),
        (lambda volume: lay_model(volume / "17"), r"holds the versions 17: name one of them, such as .*/volume/17"),
    ],
    ids=["missing", "empty", "versions"],
)
def test_where_there_is_no_model_the_message_says_what_there_is(run, volume, make, said):
    make(volume)
    with pytest.raises(morph.MorphError, match=said):
        run(ImportedModel(path=str(volume)))
    assert files(volume.parent / "run") == []


@pytest.fixture
def structure(volume) -> morph.Structure:
    graph = morph.ChannelGraph.from_model(user_module.load({"module_file": DIGITS}).seed({}))
    structure = morph.describe(graph, {"conv2d-1": 4})
    volume.mkdir()
    (volume / "structure.json").write_text(structure.to_json())
    return structure


@pytest.mark.parametrize("name", ["", "structure.json"], ids=["directory", "file"])
def test_a_structure_becomes_an_artifact_with_its_report(run, volume, structure, name):
    (volume / "somebody's data").write_text("not ours")
    found = run(ImportedStructure(path=str(volume / name)))["result"]
    assert StructureExporter(found).read() == structure
    assert "<svg" in pathlib.Path(found.uri, "report.html").read_text()
    assert not pathlib.Path(found.uri, "somebody's data").exists()
    assert found.get_float_custom_property("flops_fraction") < 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"There is no structure at .*structure.json.*kubeflow.steps"),
        (b"{", r"structure.json is not valid JSON"),
        (b"\xff\xfe", r"structure.json is not a text file"),
    ],
    ids=["missing", "damaged", "binary"],
)
def test_what_is_no_structure_is_named(run, volume, content, said):
    volume.mkdir()
    if content is not None:
        (volume / "structure.json").write_bytes(content)
    with pytest.raises(morph.MorphError, match=said):
        run(ImportedStructure(path=str(volume)))
    assert files(volume.parent / "run") == []


def test_a_file_too_large_for_a_structure_is_not_read_into_memory(run, volume):
    volume.mkdir()
    with (volume / "structure.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(morph.MorphError, match=r"structure.json is larger than 67,108,864 bytes"):
        run(ImportedStructure(path=str(volume)))
