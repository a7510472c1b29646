"""The MorphStructure artifact: what lies in it, what its metadata says, and what reading a bad one ends in."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest
from tfx.types.artifact import Artifact
from tfx.utils import import_utils

import morph_core as morph
from morph_tfx.components import MorphStructure, StructureExporter
from tests.components.conftest import make


def network(width=32):
    inputs = keras.Input((8,), name="x")
    hidden = keras.layers.Dense(width, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="answer")(hidden))
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="module")
def structure():
    graph = morph.ChannelGraph.from_model(network())
    trajectory = [
        {"step": step, "cost": 1 - step / 40, "target": 1 - step / 40, "alive": 32, "loss": 1.0} for step in (0, 20)
    ]
    return morph.describe(
        graph,
        {"hidden": 16},
        goal={"cost": "flops", "target": 0.5},
        settings={"gate": "logistic_sigmoid"},
        trajectory=trajectory,
    )


@pytest.fixture
def artifact(structure, tmp_path):
    artifact = make(MorphStructure, tmp_path / "structure" / "1")
    StructureExporter(artifact).write(structure, title="Widths of a test")
    return artifact


def test_the_directory_holds_what_the_type_documents(artifact, structure, tmp_path):
    documented = set(re.findall(r"^ *(\w+\.\w+)  ", MorphStructure.__doc__ or "", flags=re.MULTILINE))
    assert {path.name for path in pathlib.Path(artifact.uri).iterdir()} == documented - {"weights.npz"}
    warm = make(MorphStructure, tmp_path / "structure" / "2")
    StructureExporter(warm).write(structure, title="With weights", trained=morph.rebuild(network(), structure))
    assert {path.name for path in pathlib.Path(warm.uri).iterdir()} == documented


def test_the_structure_survives_the_artifact(artifact, structure):
    assert StructureExporter(artifact).read() == structure


def test_the_json_alone_rebuilds_the_network(artifact):
    text = pathlib.Path(StructureExporter(artifact).structure_path).read_text()
    student = morph.rebuild(network(), morph.Structure.from_json(text))
    assert student.get_layer("hidden").units == 16
    assert student.count_params() == 8 * 16 + 16 + 16 * 3 + 3


def test_the_report_is_one_page_with_the_title(artifact):
    page = pathlib.Path(StructureExporter(artifact).report_path).read_text()
    assert "Widths of a test" in page
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:", page)


def test_custom_properties_tell_the_goal_and_the_costs(artifact):
    flops = 2 * (8 * 32 + 32 * 3), 2 * (8 * 16 + 16 * 3)
    params = 8 * 32 + 32 + 32 * 3 + 3, 8 * 16 + 16 + 16 * 3 + 3
    assert artifact.get_string_custom_property("cost") == "flops"
    assert artifact.get_float_custom_property("target") == 0.5
    assert artifact.get_string_custom_property("gate") == "logistic_sigmoid"
    assert artifact.get_float_custom_property("flops_seed") == flops[0]
    assert artifact.get_float_custom_property("flops_structure") == flops[1]
    assert artifact.get_float_custom_property("flops_fraction") == 0.5
    assert artifact.get_float_custom_property("params_seed") == params[0]
    assert artifact.get_float_custom_property("params_structure") == params[1]
    assert artifact.get_int_custom_property("layers_removed") == 0
    assert artifact.get_int_custom_property("schema_version") == 1
    assert artifact.get_string_custom_property("keras_version") == keras.__version__
    assert artifact.get_string_custom_property("fingerprint").startswith("sha256:")


def test_the_artifact_survives_ml_metadata_json(artifact):
    twin = Artifact.from_json_dict(artifact.to_json_dict())
    assert type(twin) is MorphStructure
    assert twin.get_float_custom_property("flops_fraction") == 0.5


def test_the_kubeflow_compiler_accepts_the_type():
    compiler_utils = pytest.importorskip("tfx.orchestration.kubeflow.v2.compiler_utils", exc_type=ImportError)
    schema = compiler_utils.get_artifact_schema(MorphStructure)
    assert "title: morph_tfx.MorphStructure" in schema


def test_a_container_finds_the_type_by_its_name():
    assert import_utils.import_class_by_path(MorphStructure.TYPE_NAME) is MorphStructure


def test_a_failing_disk_leaves_nothing(structure, tmp_path, monkeypatch):
    artifact = make(MorphStructure, tmp_path / "structure")

    def full(*paths):
        raise OSError("no space left on the device")

    monkeypatch.setattr("morph_tfx.components.artifacts.staging.fileio.rename", full)
    with pytest.raises(OSError, match="no space left"):
        StructureExporter(artifact).write(structure)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(morph.MorphError, match=r"no structure at .*nowhere/structure\.json.* run MorphTrainer again"):
        StructureExporter(make(MorphStructure, tmp_path / "nowhere")).read()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "not valid JSON"),
        (lambda data: b"\xff\xfe" + data, "not a text file"),
        (lambda data: b"[]", "expected a JSON object"),
        (lambda data: json.dumps({**json.loads(data), "groups": {"hidden": {"width": -1}}}).encode(), "groups"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(artifact, damage, message):
    path = pathlib.Path(StructureExporter(artifact).structure_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        morph.MorphError, match=f"(?s){re.escape(str(path))}.*{message}|{message}.*{re.escape(str(path))}"
    ):
        StructureExporter(artifact).read()


def test_a_structure_of_another_network_names_both(artifact, structure):
    graph = morph.ChannelGraph.from_model(network(width=48))
    with pytest.raises(
        morph.MorphError, match=r"(?s)belongs to another network.*module file and the hyperparameters"
    ) as error:
        StructureExporter(artifact).read(graph)
    assert structure.fingerprint in str(error.value)
    assert graph.fingerprint in str(error.value)


def test_rebuilt_network_runs(artifact):
    student = morph.rebuild(network(), StructureExporter(artifact).read())
    assert np.isfinite(student(np.ones((2, 8), np.float32)).numpy()).all()
