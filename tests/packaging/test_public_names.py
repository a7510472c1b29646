"""Each package says what is public: `__all__` lists every public name of its `__init__.py`, once, in order."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.source import LAYERS, ROOT, modules

PACKAGES = [path for folder in LAYERS for path in modules(folder) if path.name == "__init__.py"]


def bound(tree: ast.Module) -> set[str]:
    """The public names that the file makes, but for modules it imports whole."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.update(name.asname or name.name for name in node.names)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_") and name not in ("Any", "TYPE_CHECKING", "annotations")}


def listed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return []


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_every_public_name_is_listed_once(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [name for name in listed(tree) if not name.startswith("__")]
    assert sorted(names) == sorted(bound(tree))


def test_the_lists_are_sorted():
    # Constants, classes, functions, each in alphabetical order: what `ruff check` enforces, if nobody takes it away.
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "RUF022", *PACKAGES],
        text=True, capture_output=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


def test_the_cores_list_is_what_a_user_gets():
    import morph_core

    assert [name for name in morph_core.__all__ if not hasattr(morph_core, name)] == []
