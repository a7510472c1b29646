"""Draws the rooms of the code and what flows between them: docs/images/rooms.svg.

    python -m tools.draw_rooms        # from the repository's root

The rooms and their order are those of `tests/packaging/rooms.py`. The arrows are the imports that it finds in the
files, without those that a longer way of arrows says already. What flows along them, the text of each box, is written
here.
`tests/packaging/test_architecture.py` fails when the picture is not that of the code.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from tests.packaging.rooms import ORDER, imported, known_modules, room_of
from tests.packaging.source import ROOT

FILE = ROOT / "docs" / "images" / "rooms.svg"

# What comes out of each room, in 24 letters at most; an arrow brings it to the rooms that need it.
GIVES = {
    "morph_core": {
        "_version": "the version",
        "errors": "MorphError",
        "arrays": "values of weights",
        "files": "JSON, within limits",
        "cost": "FLOPs, parameters, ms",
        "network": "ChannelGraph, its gates",
        "structure": "Structure, its network",
        "search": "StructureSearch",
        "device": "ms, and files for it",
        "report": "HTML and SVG files",
    },
    "components": {
        "artifacts": "directories, whole",
        "training": "a trained user model",
        "calibrator": "ms on this node",
        "exporter": "files for devices",
        "structure_exporter": "MorphStructure artifact",
        "frontier": "which model to push",
        "imported": "what lies at a path",
        "morph_trainer": "a learned structure",
        "pushed_structure": "the newest structure",
        "retrainer": "a SavedModel",
        "uniform_widths": "a baseline structure",
    },
    "pipelines": {
        "account": "lines for a person",
        "config": "PipelineConfig, checked",
        "graph": "tfx.dsl.Pipeline",
        "kubeflow": "a job, run or schedule",
        "local": "RunResult",
        "commands": "the morph-tfx command",
    },
}
# Where a room stands in its row, from 0 to 1, so that no arrow runs through a box; without one, rooms spread evenly.
PLACES = {
    "_version": 0.86, "errors": 0.14, "arrays": 0.86, "files": 0.5,
    "training": 0.3, "artifacts": 0.75, "calibrator": 0.1, "exporter": 0.54, "structure_exporter": 0.75,
    "morph_trainer": 0.03, "retrainer": 0.218, "uniform_widths": 0.406, "frontier": 0.594, "pushed_structure": 0.782,
    "imported": 0.97,
    "config": 0.09, "account": 0.86, "graph": 0.32, "kubeflow": 0.6, "local": 0.86, "commands": 0.73,
}  # fmt: skip

WIDTH, MARGIN, BOX, ROW, GAP, HEAD = 1080, 20, (160, 44), 84, 40, 26
LANE = 90  # beside the components, for what goes from the core to the pipelines
STYLE = """
    svg { font-family: system-ui, 'DejaVu Sans', sans-serif; }
    .paper { fill: #ffffff; } .layer { fill: #f1f4f8; } .box { fill: #ffffff; stroke: #94a1b5; }
    .title { fill: #5d6879; font-size: 15px; } .room { fill: #1b2330; font-size: 14px; font-weight: bold; }
    .gives { fill: #5d6879; font-size: 12px; } .arrow { stroke: #0b7a75; stroke-width: 1.4; fill: none; }
    .head { fill: #0b7a75; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; } .layer { fill: #161b22; } .box { fill: #0d1117; stroke: #5d6879; }
      .title, .gives { fill: #a3adbb; } .room { fill: #e6edf3; } .arrow { stroke: #3fb8b0; } .head { fill: #3fb8b0; }
    }
"""

Point = tuple[float, float]
Room = tuple[str, str]  # layer and room; the room "" is the layer as a whole, its public names


def needs() -> dict[Room, set[Room]]:
    """Which rooms each room imports; a layer as a whole stands for those whose names it makes public."""
    known = known_modules()
    found: dict[Room, set[Room]] = {}
    for module, path in known.items():
        room = (module.split(".")[0], room_of(module))
        others = {(other.split(".")[0], room_of(other)) for other in imported(path, known)}
        found.setdefault(room, set()).update(others - {room})
    return found


def without_detours(needed: dict[Room, set[Room]]) -> dict[Room, set[Room]]:
    """The same without what a room reaches through another one that it needs."""

    def reached(room: Room) -> set[Room]:
        return set().union(*({other} | reached(other) for other in needed.get(room, ())))

    return {
        room: {other for other in others if not any(other in reached(between) for between in others - {other})}
        for room, others in needed.items()
    }


def drawn() -> set[tuple[Room, Room]]:
    """The arrows, from what is needed to who needs it; a layer's own `__init__` is its frame."""
    return {(other, room) for room, others in without_detours(needs()).items() if room[1] for other in others}


def boxes() -> tuple[dict[Room, Point], dict[str, tuple[float, float]], float]:
    """The middle of each box, top and bottom of each layer's frame, and the height of the picture."""
    middles: dict[Room, Point] = {}
    frames: dict[str, tuple[float, float]] = {}
    y = float(MARGIN)
    for layer, steps in ORDER.items():
        top, left = y, _left(layer) + MARGIN
        y += HEAD + ROW / 2
        for rooms in steps:
            for index, room in enumerate(sorted(rooms)):
                place = PLACES.get(room, (index + 0.5) / len(rooms))
                middles[layer, room] = (left + place * (WIDTH - left - 2 * MARGIN), y)
            y += ROW
        y += -ROW / 2 + 6
        frames[layer] = (top, y)
        y += GAP
    return middles, frames, y - GAP + MARGIN


def arrows() -> dict[tuple[Room, Room], tuple[Point, Point]]:
    """Where each arrow begins and ends."""
    middles, frames, _ = boxes()
    found = {}
    for source, target in sorted(drawn()):
        x, y = middles[target]
        if source in middles:
            start = (middles[source][0], middles[source][1] + BOX[1] / 2)
        else:  # from the frame of a layer straight down, past the components in their lane
            x = x if _next_to(source[0], target[0]) else MARGIN + LANE / 2
            start = (x, frames[source[0]][1])
        found[source, target] = (start, (x, y - BOX[1] / 2))
    return found


def picture() -> str:
    """The SVG file's text.

    Raises:
        KeyError: GIVES does not say what comes out of a room.
    """
    middles, frames, height = boxes()
    half, tall = BOX[0] / 2, BOX[1] / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
        f' width="{WIDTH}" height="{height:g}">',
        "  <title>The rooms of the code, and what flows between them</title>",
        f"  <style>{STYLE}  </style>",
        '  <marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0 0 8 4 0 8z"/></marker>',
        f'  <rect class="paper" width="{WIDTH}" height="{height:g}"/>',
    ]
    for layer, (top, bottom) in frames.items():
        lines.append(
            f'  <rect class="layer" x="{_left(layer)}" y="{top:g}" width="{WIDTH - MARGIN - _left(layer)}" '
            f'height="{bottom - top:g}" rx="8"/>'
        )
        lines.append(f'  <text class="title" x="{MARGIN + LANE + 12}" y="{top + 22:g}">{layer}/</text>')
    for (source, target), ((x, y), (end_x, end_y)) in arrows().items():
        lines.append(
            f'  <path class="arrow" marker-end="url(#head)" d="M{x:g} {y:g} {end_x:g} {end_y:g}">'
            f"<title>{escape(_name(source))} → {escape(_name(target))}</title></path>"
        )
    for (layer, room), (x, y) in middles.items():
        lines.append(
            f'  <rect class="box" x="{x - half:g}" y="{y - tall:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
            f'<text class="room" x="{x:g}" y="{y - 4:g}" text-anchor="middle">{room}</text>'
            f'<text class="gives" x="{x:g}" y="{y + 13:g}" text-anchor="middle">{escape(GIVES[layer][room])}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _left(layer: str) -> float:
    return MARGIN + (LANE if layer == "components" else 0)


def _next_to(layer: str, other: str) -> bool:
    order = list(ORDER)
    return order.index(other) - order.index(layer) == 1


def _name(room: Iterable[str]) -> str:
    return "/".join(part for part in room if part)


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {len(drawn())} arrows")
