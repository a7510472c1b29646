"""Weights beside a structure: a file that is damaged or of another network is refused."""

import pathlib

import numpy as np
import pytest

import morph_core as morph
from morph_tfx.components import MorphStructure, StructureExporter
from morph_tfx.components.training import user_module
from tests.components.conftest import DIGITS, make


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: np.savez(path, **{"paths": np.array(["a"]), "0": np.zeros(3)}), r"of another network: .*differ"),
        (lambda path: np.savez(path, paths=np.array([object()], dtype=object)), "cannot be read"),
        (lambda path: np.savez_compressed(path, a=np.zeros(2_000_000)), r"cannot be read .*it holds 16,000,\d+ bytes"),
        (lambda path: path.write_bytes(bytes(16_000_000)), r"is larger than [\d,]+ bytes"),
    ],
    ids=["cut off", "empty", "another network", "with a pickle", "compressed zeros", "zeros"],
)
def test_weights_that_cannot_be_used_are_refused(tmp_path, damage, message):
    seed = user_module.load({"module_file": DIGITS}).seed({})
    graph = morph.ChannelGraph.from_model(seed)
    artifact = make(MorphStructure, tmp_path / "structure")
    narrow = morph.describe(graph, {})
    StructureExporter(artifact).write(narrow, trained=morph.rebuild(seed, narrow))
    damage(pathlib.Path(artifact.uri) / "weights.npz")
    with pytest.raises(morph.MorphError, match=message):
        StructureExporter(artifact).read_weights(morph.rebuild(seed, narrow))
