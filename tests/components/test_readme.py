"""The components that the pages show fit into somebody else's pipeline, and work: README, pipelines, contributing."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx import types
from tfx import v1 as tfx

import morph_core as morph
from morph_tfx.components import MorphStructure, MorphTrainer, StructureExporter, load_network
from tests.components.conftest import DIGITS
from tests.core.networks import mlp
from tests.packaging.pages import blocks, run, sides


@pytest.fixture
def transform(tmp_path, monkeypatch):
    """Somebody's Transform, and a module file beside it."""
    monkeypatch.chdir(tmp_path)
    Path("my_model.py").write_text("def build_model(hparams): ...\n\ndef input_fn(*arguments): ...\n", encoding="utf-8")
    examples = tfx.components.ImportExampleGen(input_base="data")
    schema = tfx.components.ImportSchemaGen(schema_file="schema.pbtxt")
    return tfx.components.Transform(
        examples=examples.outputs["examples"], schema=schema.outputs["schema"], preprocessing_fn="module.fn"
    )


def test_the_readme_puts_a_morph_trainer_where_tfxs_trainer_stood(transform):
    """Three lines are new and one goes; tests/e2e/test_in_place_of_trainer.py runs what they make."""
    (diff,) = blocks("README.md", "diff")
    before, after = (run(side, "README.md", {"transform": transform, "tfx": tfx})["trainer"] for side in sides(diff))
    assert [sum(line.startswith(sign) for line in diff.splitlines()) for sign in "+-"] == [3, 1]
    assert type(before) is tfx.components.Trainer
    assert type(after) is MorphTrainer
    for name in ("examples", "transform_graph"):
        assert after.inputs[name] is before.inputs[name]
    assert after.outputs["model"].type is before.outputs["model"].type
    assert after.exec_properties["train_args"] == before.exec_properties["train_args"]


def test_the_two_cycles_of_the_pipelines_page_are_a_chain(transform):
    found = [block for block in blocks("docs/pipelines.md", "python") if "morph_tfx.components" in block]
    lines, *devices = [block for block in found if "load_network" not in block]
    names = run(lines, "docs/pipelines.md", {"transform": transform})
    chain = [names[name] for name in ("search", "again", "trainer")]
    assert chain[1].inputs["seed_structure"] is chain[0].outputs["structure"]
    assert chain[2].inputs["structure"] is chain[1].outputs["structure"]
    assert chain[2].outputs["model"].type is tfx.types.standard_artifacts.Model
    for lines in devices:
        run(lines, "docs/pipelines.md", names)
    assert names["search"].inputs["calibration"] is names["device"].outputs["calibration"]
    assert names["exporter"].inputs["model"] is names["trainer"].outputs["model"]


def test_a_trained_network_is_taken_out_of_its_artifact_as_the_pipelines_page_says(
    trained, transformed, tmp_path, monkeypatch
):
    """And answers what the SavedModel answers to the same transformed examples."""
    (code,) = [block for block in blocks("docs/pipelines.md", "python") if "load_network" in block]
    monkeypatch.chdir(tmp_path)
    for theirs, ours in (("pipeline_root/flowers/Retrainer/model/7", trained.uri), ("module.py", DIGITS)):
        assert theirs in code
        code = code.replace(theirs, ours)
    generator = np.random.default_rng(0)
    features = {
        "image": generator.uniform(size=(64, 8, 8, 1)).astype("float32"),
        "ink": generator.uniform(size=(64, 2)).astype("float32"),
    }
    served = tf.saved_model.load(f"{trained.uri}/Format-Serving").signatures["transformed_tensors"]
    expected = next(iter(served(**{name: tf.constant(value) for name, value in features.items()}).values()))
    before = load_network(trained.uri, DIGITS)
    np.testing.assert_allclose(before(features), expected, atol=1e-5)
    names = run(code, "docs/pipelines.md", {"features": features, "labels": generator.integers(0, 10, 64)})
    saved: Any = keras.models.load_model("network.keras")
    np.testing.assert_allclose(saved(features), names["network"](features), atol=1e-5)
    assert not np.allclose(names["network"](features), expected, atol=1e-3), "it was trained on"


def test_the_component_in_contributing_lets_cheap_structures_pass_and_no_others(tmp_path):
    (code,) = [block for block in blocks("CONTRIBUTING.md", "python") if "BaseComponent" in block]
    # TFX looks a component up by the module that it is in.
    names = run(code, "CONTRIBUTING.md", {"__name__": __name__})
    graph = morph.ChannelGraph.from_model(mlp((16,), inputs=8))
    artifact = MorphStructure()
    artifact.uri = str(tmp_path / "structure")
    structure = morph.uniform(graph, target=0.5)
    StructureExporter(artifact).write(structure, title="Half")
    costs = int(structure.costs["flops"]["structure"])
    assert names["Ceiling"](structure=types.Channel(type=MorphStructure), most=costs).exec_properties == {"most": costs}
    names["Executor"]().Do({"structure": [artifact]}, {}, {"most": costs})
    with pytest.raises(morph.MorphError, match=f"The structure costs {costs:,} FLOPs; at most {costs - 1:,} are"):
        names["Executor"]().Do({"structure": [artifact]}, {}, {"most": costs - 1})
