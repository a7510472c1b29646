"""What the source files say about themselves, read as syntax trees: nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The layers from the bottom up: folder -> import name.
LAYERS = {"morph_core": "morph_core", "components": "morph_tfx.components", "pipelines": "morph_tfx.pipelines"}
# What else lies at the top of the repository and belongs to a source distribution.
TOP = (
    "BUILD",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "MANIFEST.in",
    "MODULE.bazel",
    "Makefile",
    "README.md",
    "WORKSPACE",
    "WORKSPACE.bzlmod",
)
SETTINGS = (
    ".dockerignore",
    "pyproject.toml",
    "setup.py",
    "conftest.py",
    "uv.lock",
    ".bazelignore",
    ".bazelrc",
    ".python-version",
)


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every absolute module name that the file imports, wherever it does; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and node.args and _is_import(node.func):
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.args[0].value


def reaches_out(path: Path) -> list[str]:
    """The relative imports of a file that leave its layer, as written: they would break once the layer is installed."""
    depth = len(path.relative_to(ROOT).parts) - 1
    return [
        "." * node.level + (node.module or "")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > depth
    ]


def layers_imported(paths: list[Path]) -> set[str]:
    """The folders of the layers that these files import by their absolute names."""
    return {
        folder
        for path in paths
        for name in imports(path)
        for folder, package in LAYERS.items()
        if f"{name}.".startswith(f"{package}.")
    }


def _is_import(function: ast.expr) -> bool:
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    return name in ("import_module", "__import__", "find_spec", "importorskip")
