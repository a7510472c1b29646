"""From widths to a `Structure`: its normal form, the table of layers, and the costs before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..cost.costs import COSTS, Cost, cost_of
from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..network.topology import Topology
from .structure import Structure


def describe(
    graph: ChannelGraph,
    widths: Mapping[str, int],
    alive: Mapping[str, Sequence[int] | None] | None = None,
    costs: Sequence[str | Callable | Cost] = (),
    **fields: Any,
) -> Structure:
    """The structure of a network with these widths, in its normal form: groups that nothing needs have width 0.

    Args:
        graph: of the seed.
        widths: channels of each prunable group, by name; the seed's for groups not named.
        alive: which channels those are; the first ones for a group not named, None for widths of no channels in
            particular.
        costs: to report besides the built-in ones.
        **fields: `goal`, `settings` and `trajectory` of the structure.

    Raises:
        MorphError: a group is unknown or fixed, or nothing would be left of an output.
    """
    known = {group.name: group for group in graph.groups}
    for name in widths:
        if name not in known or not known[name].prunable:
            why = known[name].reason if name in known else f"there are {', '.join(sorted(known)[:8])}, ..."
            raise MorphError(f"Group '{name}' cannot be given a width in model '{graph.name}': {why}.")
    wanted = np.array([widths.get(group.name, group.size) for group in graph.groups])
    topology = graph.survivors(wanted > 0)
    final = np.where(topology.groups, wanted, 0)
    groups = {}
    for index, group in enumerate(graph.groups):
        if group.prunable:
            width = int(final[index])
            kept = list(range(width)) if alive is None or group.name not in alive else alive[group.name]
            groups[group.name] = {
                "seed_width": group.size,
                "width": width,
                "alive": None if kept is None else [int(channel) for channel in kept][:width],
            }
    named = {name: COSTS[name] for name in COSTS} | {cost_of(cost).name: cost_of(cost) for cost in costs}
    layers, totals = _costed(graph, final, topology, named)
    names = [call.name for call in graph.trace.calls]
    left = {name for name, live in zip(names, topology.calls, strict=True) if live}
    if graph.uncounted:
        uncounted = {name: dataclasses.asdict(layer) for name, layer in graph.uncounted.items()}
        fields = {**fields, "settings": {**fields.get("settings", {}), "uncounted": uncounted}}
    return Structure(
        fingerprint=graph.fingerprint,
        groups=groups,
        layers=layers,
        removed={
            "layers": [name for name in dict.fromkeys(names) if name not in left],
            "branches": _branches(graph, topology.calls),
        },
        costs=totals,
        **fields,
    )


def widths_and_channels(graph: ChannelGraph, kept: np.ndarray) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Widths and channels of each prunable group, by name, from the channels kept, bool array (units,)."""
    alive = {}
    for index, group in enumerate(graph.groups):
        if group.prunable:
            units = np.flatnonzero(graph.group_of == index)
            alive[group.name] = graph.position_of[units][kept[units]].tolist()
    return {name: len(channels) for name, channels in alive.items()}, alive


def _costed(
    graph: ChannelGraph, widths: np.ndarray, left: Topology, costs: Mapping[str, Cost]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """The table of layers, and the totals, before and after."""
    seed_calls = graph.call_widths(graph.seed_widths.astype(float))
    kept = graph.call_widths(widths.astype(float), left)
    now_at = dict(zip(np.flatnonzero(left.calls).tolist(), kept, strict=True))
    layers: list[dict[str, Any]] = []
    rows: dict[str, dict[str, Any]] = {}
    for index, before in enumerate(seed_calls):
        if not before.rule.widths and not before.rule.kernels:
            continue
        now = now_at.get(index)
        spent = {}
        for name, cost in costs.items():
            if cost.of_call is not None and _is_known(cost, before):
                spent[name] = [float(cost.of_call(before)), float(cost.of_call(now)) if now else 0.0]
        row = rows.get(before.name)
        if row is None:
            row = rows[before.name] = {
                "name": before.name,
                "kind": before.kind,
                "group": _group_name(graph, index),
                "seed_width": int(before.axes.get("out", 0)),
                "width": int(now.axes.get("out", 0)) if now else 0,
                "costs": spent,
            }
            layers.append(row)
        else:
            row["costs"] = {
                name: [a + b for a, b in zip(row["costs"][name], pair, strict=True)] for name, pair in spent.items()
            }
    totals = {}
    for name, cost in costs.items():
        try:
            totals[name] = {"seed": float(cost.total(seed_calls)), "structure": float(cost.total(kept))}
        except MorphError:  # It cannot be told: the size of the input is open, and it is not what was searched for.
            continue
    return [row for row in layers if row["seed_width"]], totals


def _is_known(cost: Cost, call: Any) -> bool:
    """Whether a cost can be told: FLOPs cannot where the size of the input is open."""
    try:
        assert cost.of_call is not None
        cost.of_call(call)
    except MorphError:
        return False
    return True


def _group_name(graph: ChannelGraph, call: int) -> str | None:
    units = graph.axes[call].get("out", np.zeros(0, dtype=np.int64))
    inside = units[units >= 0]
    if not len(inside):
        return None
    group = graph.groups[int(graph.group_of[inside[0]])]
    return group.name if group.prunable else None


def _branches(graph: ChannelGraph, live: np.ndarray) -> list[list[str]]:
    """The removed calls, as lists of layers that were joined to each other."""
    branch_of: dict[int, int] = {}
    branches: dict[int, list[str]] = {}
    for index, call in enumerate(graph.trace.calls):
        if live[index]:
            continue
        near = sorted({branch_of[number] for number in call.inputs if number in branch_of})
        branch = near[0] if near else index
        for other in near[1:]:
            branches[branch] += branches.pop(other)
            branch_of = {number: branch if owner == other else owner for number, owner in branch_of.items()}
        branches.setdefault(branch, []).append(call.name)
        for number in call.outputs:
            branch_of[number] = branch
    return [list(dict.fromkeys(names)) for names in branches.values()]
