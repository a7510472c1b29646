"""Files of an artifact that lead out of it, or are too large, are not read."""

import pytest

import morph_core as morph
from morph_core import MorphError
from morph_tfx.components import MorphStructure, StructureExporter
from morph_tfx.components.artifacts import model_assets
from morph_tfx.components.artifacts.inside import read_inside, text_inside


@pytest.fixture
def secret(tmp_path):
    """A file beside the artifact."""
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "artifact").mkdir()
    return tmp_path / "secret"


def test_a_file_is_read_and_one_that_is_not_there_is_none(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert (read_inside(str(tmp_path), "a"), text_inside(str(tmp_path), "a")) == (b"content", "content")
    assert read_inside(str(tmp_path), "b") is None


@pytest.mark.parametrize("directory", [False, True], ids=["file", "directory"])
def test_a_link_out_of_the_artifact_is_not_followed(tmp_path, secret, directory):
    if directory:
        (tmp_path / "artifact" / "assets").symlink_to(tmp_path)
    else:
        (tmp_path / "artifact" / "secret").symlink_to(secret)
    name = "assets/secret" if directory else "secret"
    with pytest.raises(MorphError, match=rf"{name} leads out of the artifact, to {secret}, and is not read") as caught:
        read_inside(str(tmp_path / "artifact"), name)
    assert "hunter2" not in str(caught.value)


def test_links_within_the_artifact_and_a_linked_artifact_are_followed(tmp_path):
    """As Kubernetes mounts the files of a ConfigMap, and as people link a whole directory."""
    (tmp_path / "artifact" / "..data").mkdir(parents=True)
    (tmp_path / "artifact" / "..data" / "a").write_text("content")
    (tmp_path / "artifact" / "a").symlink_to("..data/a")
    (tmp_path / "linked").symlink_to(tmp_path / "artifact")
    assert text_inside(str(tmp_path / "linked"), "a") == "content"


def test_what_is_too_large_or_no_text_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff" * 11)
    with pytest.raises(MorphError, match=r"a is larger than 10 bytes"):
        read_inside(str(tmp_path), "a", most_bytes=10)
    with pytest.raises(MorphError, match=r"a is not a text file"):
        text_inside(str(tmp_path), "a")


def test_neither_a_structure_nor_a_pushed_models_file_is_read_through_a_link(tmp_path, secret):
    artifact = MorphStructure()
    artifact.uri = str(tmp_path / "artifact")
    (tmp_path / "artifact" / "structure.json").symlink_to(secret)
    with pytest.raises(morph.MorphError, match=r"leads out of the artifact"):
        StructureExporter(artifact).read()
    (tmp_path / "artifact" / "assets.extra").mkdir()
    (tmp_path / "artifact" / model_assets.SCHEMA_FILE).symlink_to(secret)
    with pytest.raises(morph.MorphError, match=r"leads out of the artifact"):
        model_assets.read(artifact.uri, model_assets.SCHEMA_FILE)
