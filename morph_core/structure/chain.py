"""The structure of a later cycle, told as a structure of the first cycle's seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import MorphError
from .structure import Structure


def chain(first: Structure, second: Structure) -> Structure:
    """The structure found in a second cycle, as a structure of the first cycle's seed.

    Args:
        first: of the original seed.
        second: found on the network that `rebuild` made from `first`.

    Returns:
        The widths of `second`, fractions and costs relative to the original seed.

    Raises:
        MorphError: `second` was not found on a network rebuilt from `first`.
    """
    for name, entry in second.groups.items():
        before = first.groups.get(name)
        if before is None or before["width"] != entry["seed_width"]:
            found = "no such group" if before is None else f"width {before['width']}"
            raise MorphError(
                f"The second structure was not found on the first one's network: its group '{name}' has seed width "
                f"{entry['seed_width']}, but the first structure has {found}. Search on morph.rebuild(model, first)."
            )
    groups = {}
    for name, before in first.groups.items():
        after = second.groups.get(name)
        if after is None:
            groups[name] = {"seed_width": before["seed_width"], "width": 0, "alive": []}
            continue
        alive = None
        if before["alive"] is not None and after["alive"] is not None:
            alive = [before["alive"][channel] for channel in after["alive"]]
        groups[name] = {"seed_width": before["seed_width"], "width": after["width"], "alive": alive}
    later = {layer["name"]: layer for layer in second.layers}
    counted = {name for layer in second.layers for name in layer["costs"]}
    layers = []
    for layer in first.layers:
        now = later.get(layer["name"], {"width": 0, "costs": {}})
        costs = {
            name: [pair[0], now["costs"].get(name, [0.0, 0.0])[1]]
            for name, pair in layer["costs"].items()
            if name in counted
        }
        layers.append({**layer, "width": now["width"], "costs": costs})
    shares = {
        name: pair["seed"] / first.costs[name]["seed"]
        for name, pair in second.costs.items()
        if first.costs.get(name, {}).get("seed")
    }
    return dataclasses.replace(
        second,
        fingerprint=first.fingerprint,
        groups=groups,
        layers=layers,
        removed={key: [*first.removed[key], *second.removed[key]] for key in ("layers", "branches")},
        costs={
            name: {"seed": first.costs[name]["seed"], "structure": pair["structure"]}
            for name, pair in second.costs.items()
            if name in first.costs
        },
        goal=_goal_of_first(second.goal, shares),
        trajectory=[_row_of_first(row, str(second.goal.get("cost")), shares) for row in second.trajectory],
    )


def _goal_of_first(goal: dict[str, Any], shares: Mapping[str, float]) -> dict[str, Any]:
    """A goal with fractions of the first seed's costs; `shares` are the second seed's costs as fractions of those."""
    target = goal.get("target")
    if target is None:
        return goal
    if isinstance(target, dict):
        return {**goal, "target": {name: amount * shares.get(name, 1.0) for name, amount in target.items()}}
    return {**goal, "target": target * shares.get(str(goal.get("cost")), 1.0)}


def _row_of_first(row: dict[str, Any], cost: str, shares: Mapping[str, float]) -> dict[str, Any]:
    """A point of the trajectory with fractions of the first seed's costs."""
    several = [name.removeprefix("cost_") for name in row if name.startswith("cost_")]
    changed = dict(row)
    for name in several:
        for key in (f"cost_{name}", f"target_{name}"):
            if changed.get(key) is not None:
                changed[key] = changed[key] * shares.get(name, 1.0)
        # Which of them was the furthest over its schedule is the same in both seeds' fractions.
        if (row["cost"], row.get("target")) == (row[f"cost_{name}"], row.get(f"target_{name}")):
            changed["cost"], changed["target"] = changed[f"cost_{name}"], changed.get(f"target_{name}")
    if not several:
        for key in ("cost", "target"):
            if changed.get(key) is not None:
                changed[key] = changed[key] * shares.get(cost, 1.0)
    return changed
