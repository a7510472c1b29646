"""Reading what came from outside: a structure file is checked field by field before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from ..errors import MorphError

# No layer anyone trains is wider; a larger number in a file is damage, and would exhaust memory when rebuilt.
_WIDEST = 1 << 24


def fail(source: str, what: str) -> Any:
    raise MorphError(
        f"Structure file {source}: {what}. It is not a structure that this version wrote; take the artifact of a "
        "search, unchanged."
    )


def checked(data: Any, source: str, fields: Collection[str], version: int) -> dict[str, Any]:
    """The fields of a structure, each of the kind that it has to be.

    Args:
        data: what a JSON file held.
        source: where it came from, for messages.
        fields: the names of all fields.
        version: of the format.

    Raises:
        MorphError: the data are no structure; the message names the field.
    """

    def need(holds: bool, what: str) -> None:
        if not holds:
            fail(source, what)

    need(isinstance(data, dict), "expected a JSON object at the top")
    found = data.get("schema_version")
    need(
        found == version and not isinstance(found, bool),
        f"schema_version is {str(found)[:40]}, this version reads {version}",
    )
    need(set(data) == set(fields), f"expected the fields {sorted(fields)}, received {sorted(map(str, data))[:20]}")
    need(isinstance(data["fingerprint"], str), "field 'fingerprint' is not text")
    for field, kind in (
        ("groups", dict),
        ("layers", list),
        ("removed", dict),
        ("costs", dict),
        ("goal", dict),
        ("settings", dict),
        ("trajectory", list),
    ):
        need(isinstance(data[field], kind), f"field '{field}' is not {'an object' if kind is dict else 'a list'}")
    for name, entry in data["groups"].items():
        _check_group(name, entry, need)
    for index, layer in enumerate(data["layers"]):
        where = f"layers[{index}]"
        need(isinstance(layer, dict) and isinstance(layer.get("name"), str), f"{where} has no name")
        need(set(layer) == {"name", "kind", "group", "seed_width", "width", "costs"}, f"{where} has other fields")
        need(isinstance(layer["kind"], str), f"{where}.kind is not text")
        need(layer["group"] is None or isinstance(layer["group"], str), f"{where}.group is neither text nor null")
        need(_is_width(layer["seed_width"]) and _is_width(layer["width"]), f"{where} has a width that is none")
        need(isinstance(layer["costs"], dict), f"{where}.costs is not an object")
        for name, pair in layer["costs"].items():
            need(
                isinstance(pair, list) and len(pair) == 2 and all(map(_is_amount, pair)),
                f"{where}.costs['{name}'] is no pair",
            )
    removed = data["removed"]
    need(set(removed) == {"layers", "branches"}, "field 'removed' needs 'layers' and 'branches'")
    need(_is_names(removed["layers"]), "removed.layers is not a list of names")
    need(
        isinstance(removed["branches"], list) and all(map(_is_names, removed["branches"])),
        "removed.branches is not lists",
    )
    for name, pair in data["costs"].items():
        need(
            isinstance(pair, dict) and set(pair) == {"seed", "structure"},
            f"costs['{name}'] needs 'seed' and 'structure'",
        )
        need(all(map(_is_amount, pair.values())), f"costs['{name}'] holds something that is no cost")
    _check_goal(data["goal"], need)
    for index, row in enumerate(data["trajectory"]):
        need(isinstance(row, dict), f"trajectory[{index}] is not an object")
        need(
            all(value is None or _is_number(value) for value in row.values()),
            f"trajectory[{index}] holds something that is no number",
        )
    return data


def _check_goal(goal: dict[str, Any], need: Callable[[bool, str], None]) -> None:
    need(set(goal) <= {"cost", "target", "budget", "strength"}, "field 'goal' has other fields")
    need(isinstance(goal.get("cost", ""), str), "goal.cost is not text")
    for name in ("target", "budget", "strength"):
        given = goal.get(name, 0.0)
        amounts = given.values() if isinstance(given, dict) else [given]
        need(all(map(_is_amount, amounts)), f"goal.{name} holds something that is no amount")
        need(not isinstance(given, dict) or name != "strength", "goal.strength is not a number")


def _check_group(name: str, entry: Any, need: Callable[[bool, str], None]) -> None:
    where = f"groups['{name}']"
    need(isinstance(entry, dict) and set(entry) == {"seed_width", "width", "alive"}, f"{where} has other fields")
    seed_width, width, alive = entry["seed_width"], entry["width"], entry["alive"]
    need(_is_width(seed_width) and seed_width > 0, f"{where}.seed_width is {str(seed_width)[:40]}, expected a width")
    need(_is_width(width), f"{where}.width is {str(width)[:40]}, expected a whole number from 0")
    if alive is None:
        return
    need(
        isinstance(alive, list) and all(_is_width(channel) for channel in alive),
        f"{where}.alive is no list of channels",
    )
    need(len(alive) == width, f"{where}.alive has {len(alive)} channels, but its width is {width}")
    need(alive == sorted(set(alive)), f"{where}.alive is not in rising order")
    need(not alive or alive[-1] < seed_width, f"{where}.alive names channel {alive[-1:]} of {seed_width}")


def _is_width(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _WIDEST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
