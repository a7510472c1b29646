"""The rooms of each layer, in the order in which they may know of each other, and what files import of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.packaging.source import LAYERS, ROOT, modules

# From the bottom up; rooms of one step do not know each other. A room is a folder, or a file at the layer's top.
ORDER: dict[str, list[set[str]]] = {
    "morph_core": [
        {"_version", "errors"},
        {"arrays", "files"},
        {"cost"},
        {"network"},
        {"structure"},
        {"device", "report", "search"},
    ],
    "components": [
        {"artifacts"},
        {"training"},
        {"calibrator", "exporter"},
        {"structure_exporter"},
        {"frontier", "imported", "morph_trainer", "pushed_structure", "retrainer", "uniform_widths"},
    ],
    "pipelines": [
        {"account"},
        {"config"},
        {"graph"},
        {"kubeflow", "local"},
        {"commands"},
    ],
}


def name_of(path: Path) -> str:
    """The module that a source file is, by its folder: "morph_core.network.graph"; a package by its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def known_modules() -> dict[str, Path]:
    """Every module of every layer, by name; templates are text that users get, no modules of ours."""
    paths = [path for layer in LAYERS for path in modules(layer) if "templates" not in path.parts]
    return {name_of(path): path for path in paths}


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the project that a file names in an import, wherever it does and for whatever purpose.

    `from a import b` is an import of the module a.b where there is one, else of a.
    """
    found: set[str] = set()
    for module, names in _statements(path):
        for name in names or [""]:
            full = f"{module}.{name}" if name else module
            if full in known:
                found.add(full)
            elif module in known:
                found.add(module)
    return found


def _statements(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Module and names of each import, by folders: "morph_tfx.components" is "components"."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((_by_folder(alias.name), []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield _by_folder(node.module or ""), [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            yield ".".join([*base, *([node.module] if node.module else [])]), [alias.name for alias in node.names]


def _by_folder(module: str) -> str:
    for folder, name in LAYERS.items():
        if f"{module}.".startswith(f"{name}."):
            return folder + module[len(name) :]
    return module


def room_of(module: str) -> str:
    """The room that a module lies in; "" for a layer's own `__init__`, which may name all of them."""
    return [*module.split("."), ""][1]


def step_of(layer: str, room: str) -> int:
    """The place of a room in its layer's order."""
    return next(step for step, rooms in enumerate(ORDER[layer]) if room in rooms)


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The ways from a module back to itself, one for each knot of modules that import each other."""
    found, done = [], set()
    for start in sorted(imports):
        way, seen = [(start, iter(sorted(imports[start])))], {start}
        while way and start not in done:
            following = next(way[-1][1], None)
            if following is None:
                way.pop()
            elif following == start:
                found.append([name for name, _ in way] + [start])
                done.update(name for name, _ in way)
                way = []
            elif following not in seen and following in imports:
                seen.add(following)
                way.append((following, iter(sorted(imports[following]))))
    return found
