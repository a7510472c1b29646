"""Imports run one way, between layers (pipelines -> components -> morph_core), rooms and files.

And morph_core needs nothing but Keras and NumPy.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.rooms import ORDER, circles, imported, known_modules, room_of, step_of
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


@pytest.mark.parametrize("layer", LAYERS)
def test_the_order_names_every_room_of_a_layer_once(layer: str):
    named = [room for rooms in ORDER[layer] for room in rooms]
    assert sorted(named) == sorted({room_of(module) for module in known_modules() if module.startswith(f"{layer}.")})


@pytest.mark.parametrize("layer", LAYERS)
def test_no_room_imports_one_above_or_beside_it(layer: str):
    known = known_modules()
    wrong = [
        f"{module} imports {other}"
        for module, path in known.items()
        if module.startswith(f"{layer}.")
        for other in imported(path, known)
        if other.startswith(f"{layer}.") and room_of(other) != room_of(module)
        if step_of(layer, room_of(other)) >= step_of(layer, room_of(module))
    ]
    assert wrong == []


def test_no_two_files_import_each_other_on_any_way_not_even_for_types():
    known = known_modules()
    # A layer's own __init__ collects names from all its rooms; what reads one back would be a circle there, too.
    assert circles({module: imported(path, known) for module, path in known.items()}) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


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


LATE_CORE = """
import os, sys
os.environ["MORPH_CORE_LATE"] = "1"
import morph_core as morph
from morph_core.errors import MorphError
del os.environ["MORPH_CORE_LATE"]
assert morph.MorphError is MorphError and "keras" not in sys.modules and "numpy" not in sys.modules
try:
    morph.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error) and "keras" not in sys.modules
import keras
def known():
    return [name for name in keras.saving.get_custom_objects() if name.startswith("morph_core>")]
assert not known()
assert issubclass(morph.StructureSearch, keras.Model) and morph.MorphError is MorphError and known()
assert all(hasattr(morph, name) for name in morph.__all__)
from morph_core.search import gate_names, gates
assert morph.GATES is gate_names.GATES and all(issubclass(gate, gates.Gate) for gate in morph.GATES.values())
print("all")
"""


def test_names_that_need_keras_can_come_late_and_its_layers_are_registered_then():
    assert run_where_absent((), LATE_CORE).strip() == "all"
