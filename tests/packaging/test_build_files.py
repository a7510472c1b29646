"""The BUILD files state the layer order, and say the same as the imports."""

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.rooms import imported, known_modules, room_of
from tests.packaging.source import LAYERS, ROOT, layers_imported, modules

TEST_FOLDERS = sorted({path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")})
BUILD_FILES = sorted(
    [ROOT / "BUILD", ROOT / "tests/BUILD", *(ROOT / layer / "BUILD" for layer in LAYERS)]
    + [ROOT / "tests" / folder / "BUILD" for folder in TEST_FOLDERS]
)
# The highest layer that a folder of tests may need.
TESTED = {
    "core": "morph_core",
    "components": "components",
    "e2e": "pipelines",
    "examples": "pipelines",
    "faults": "pipelines",
    "kubeflow": "pipelines",
    "packaging": "pipelines",
    "pipelines": "pipelines",
}


def rules(path: Path) -> list[dict[str, Any]]:
    """The rules of a BUILD file, which is Python by its syntax: their kind, name and dependencies."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("py_library", "py_test"):
            attributes = {keyword.arg: keyword.value for keyword in node.keywords}
            name, deps = ast.unparse(attributes["name"]).strip("'"), ast.literal_eval(attributes["deps"])
            found.append({"kind": node.func.id, "name": name, "deps": deps})
    return found


def room_dependencies(layer: str) -> dict[str, list[str]]:
    """What each library of a layer's BUILD file has to name: a library is a room, the layer's own its `__init__`."""
    known = known_modules()
    found: dict[str, set[str]] = {}
    for module, path in known.items():
        if module.split(".")[0] != layer or room_of(module) == "_version":
            continue
        room = room_of(module) or layer
        needed = found.setdefault(room, set())
        for other in imported(path, known):
            if not other.startswith(f"{layer}."):
                needed.add(f"//{other.split('.')[0]}")
            elif room_of(other) not in (room, "_version"):
                needed.add(f":{room_of(other)}")
    # The command is reached by its name alone.
    found.get("pipelines", set()).add(":commands")
    return {
        room: sorted(needed - {f"//{layer}"}, key=lambda dep: (dep[0] == "/", dep)) for room, needed in found.items()
    }


@pytest.mark.parametrize("folder", LAYERS)
def test_each_room_is_a_library_that_depends_on_what_it_imports(folder: str):
    found = rules(ROOT / folder / "BUILD")
    assert {rule["kind"] for rule in found} == {"py_library"}
    assert {rule["name"]: rule["deps"] for rule in found} == room_dependencies(folder)


@pytest.mark.parametrize("path", BUILD_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rules_come_from_rules_python_since_new_bazels_have_none_of_their_own(path: Path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    loads = [
        [ast.literal_eval(argument) for argument in node.args] for node in calls if ast.unparse(node.func) == "load"
    ]
    needed = sorted(called & {"py_library", "py_test"})
    assert loads == ([["@rules_python//python:defs.bzl", *needed]] if needed else [])
    assert called <= {"alias", "exports_files", "glob", "len", "licenses", "load", "package", *needed}


def test_no_layer_depends_on_one_above_it():
    order = list(LAYERS)
    for folder in order:
        across = {dep for rule in rules(ROOT / folder / "BUILD") for dep in rule["deps"] if dep.startswith("//")}
        assert {dep.strip("/") for dep in across} <= set(order[: order.index(folder)])


@pytest.mark.parametrize("folder", TEST_FOLDERS)
def test_a_folder_of_tests_depends_on_what_it_imports(folder: str):
    (rule,) = rules(ROOT / "tests" / folder / "BUILD")
    assert rule["kind"] == "py_test"
    assert rule["deps"] == [f"//{layer}" for layer in sorted(layers_imported(modules(f"tests/{folder}")))]
    above = list(LAYERS)[list(LAYERS).index(TESTED[folder]) + 1 :]
    assert not {f"//{layer}" for layer in above} & set(rule["deps"])
