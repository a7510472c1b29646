"""Imports run one way, pipelines -> components -> morph_core, and morph_core needs nothing but Keras and NumPy."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.source import LAYERS, ROOT, imports, layers_imported, modules, reaches_out

# What somebody with the core alone does not have, whichever backend Keras runs on there ...
EXTRAS = (
    "apache_beam", "kfp", "kfp_pipeline_spec", "ml_metadata", "morph_tfx", "pydantic", "sklearn",
    "tensorflow_data_validation", "tensorflow_metadata", "tensorflow_model_analysis", "tensorflow_transform", "tfx",
    "tfx_bsl", "yaml",
)  # fmt: skip
# ... the backends, which the core reaches through Keras only ...
BACKENDS = ("jax", "openvino", "tensorflow", "torch")
# ... and what the report draws with, imported when it is asked for; it names the extra where they are missing.
LATE = ("jinja2", "matplotlib")


def among(name: str, packages: tuple[str, ...]) -> bool:
    return name.partition(".")[0] in packages


@pytest.mark.parametrize("path", modules("morph_core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_neither_tfx_nor_a_backend_by_name(path: Path):
    assert [name for name in imports(path) if among(name, EXTRAS + BACKENDS)] == []


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [("morph_core", {"components", "pipelines"}), ("components", {"pipelines"})],
)
def test_no_layer_imports_one_above_it(folder: str, forbidden: set[str]):
    assert layers_imported(modules(folder)) & forbidden == set()


@pytest.mark.parametrize("folder", LAYERS)
def test_a_layer_is_imported_by_its_installed_name(folder: str):
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(folder)
        for name in [*imports(path), *reaches_out(path)]
        if name.partition(".")[0] in ("", "components", "pipelines", "tests")
    ]
    assert wrong == [], "relative within a layer, `from morph_tfx.components import ...` across"


FRESH = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
{code}
"""


def run_where_absent(absent: tuple[str, ...], code: str) -> str:
    """What the code prints in a fresh process to which these packages do not exist."""
    result = subprocess.run(
        [sys.executable, "-c", FRESH.format(absent=absent, code=code)],
        cwd="/", text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_core_works_without_the_extras():
    code = """
import keras
import morph_core as morph
inputs = keras.Input((8, 8, 3))
hidden = keras.layers.Conv2D(10, 3, padding="same", name="hidden")(inputs)
model = keras.Model(inputs, keras.layers.Dense(5, name="head")(keras.layers.Flatten()(hidden)))
print(morph.ChannelGraph.from_model(model).cost("flops"))
"""
    flops = 2 * (8 * 8 * 3 * 3 * 3 * 10 + 8 * 8 * 10 * 5)
    assert float(run_where_absent(EXTRAS + LATE, code)) == flops


def test_importing_the_core_in_a_fresh_process_loads_no_tfx():
    loaded = run_where_absent((), "import sys, morph_core; print(*sys.modules)").split()
    assert "morph_core" in loaded
    assert [name for name in loaded if among(name, ("apache_beam", "kfp", "ml_metadata", "morph_tfx", "tfx"))] == []
