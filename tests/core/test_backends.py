"""The same seed and mask give the same structure file, byte for byte, whatever Keras runs on.

The goldens are shared by all backends: TensorFlow here, JAX and PyTorch with `make test-backends`. After a change that
is meant, write them anew and read the difference before committing it:

    MORPH_TFX_UPDATE_GOLDENS=1 .venv/bin/python -m pytest tests/core/test_backends.py
"""

import os
from pathlib import Path

import keras
import numpy as np

import morph_core as morph
from tests.core.networks import residual

GOLDENS = Path(__file__).parent / "goldens"


def agrees_with_golden(name: str, structure: morph.Structure, folder: Path) -> bool:
    structure.save(folder / name)
    written = (folder / name).read_bytes()
    if os.environ.get("MORPH_TFX_UPDATE_GOLDENS"):
        GOLDENS.mkdir(exist_ok=True)
        (GOLDENS / name).write_bytes(written)
    return written == (GOLDENS / name).read_bytes()


def test_a_mask_gives_the_same_file_on_every_backend(tmp_path):
    graph = morph.ChannelGraph.from_model(residual(12, blocks=2))
    alive = {"stem": [0, 2, 3, 7, 11], "b1_in": [], "b2_in": [1, 4, 9]}
    structure = morph.describe(graph, {name: len(channels) for name, channels in alive.items()}, alive)
    assert agrees_with_golden("masked.json", structure, tmp_path)


def test_a_search_with_the_same_scales_gives_the_same_file_on_every_backend(tmp_path):
    """Scales of whole numbers, so that no backend rounds them, take the way through its variables and back."""
    model = residual(12, blocks=2)
    search = morph.StructureSearch(model, cost="params", target=0.4, gate="gamma")
    for place, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign((np.arange(12) * 5 + place) % 12 + 1)
    for step, progress in enumerate((0.0, 0.6, 0.95), start=1):
        search.update(progress, step=step)
    structure = search.structure()
    assert structure.costs["params"]["structure"] <= 0.4 * structure.costs["params"]["seed"]
    assert agrees_with_golden("searched.json", structure, tmp_path)


def test_the_core_runs_on_the_backend_that_was_asked_for():
    assert keras.backend.backend() == os.environ.get("MORPH_TEST_BACKEND", "tensorflow")
