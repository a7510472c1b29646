"""The result of a search: how wide every layer is, as a value that survives JSON and rebuilds the network by itself.

A structure belongs to one seed network, known by the fingerprint of its graph. It says for each group of channels how
many are left and, unless it was expanded, which. Everything else in it (layers, costs, trajectory) is there to be read:
the widths of the groups alone determine the network.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cost.costs import COSTS, Cost, cost_of
from ..errors import MorphError

if TYPE_CHECKING:
    from ..network.graph import ChannelGraph
    from ..network.topology import Topology

SCHEMA_VERSION = 1
# No layer anyone trains is wider; a larger number in a file is damage, and would exhaust memory when rebuilt.
_WIDEST = 1 << 24


@dataclasses.dataclass(frozen=True)
class Structure:
    """Widths learned for a seed network. Its fields are those of the JSON file.

    Attributes:
        fingerprint: of the seed's graph, "sha256:...".
        groups: for each prunable group its "seed_width", "width", and "alive": the indices of the channels kept, or
            None when the widths do not come from the seed's own channels (after `expand`).
        layers: in topological order, each layer that makes channels or multiplies: "name", "kind", "group" (None when
            fixed), "seed_width", "width" (0 when removed) and "costs": for each cost [seed, now].
        removed: "layers" that are gone, and the "branches" they formed: lists of layers that vanished together.
        costs: for each cost, of the "seed" and of this "structure".
        goal: what the search was asked for: "cost", and "target" (fraction), "budget" (absolute) or "strength"; with
            several costs "target" or "budget" alone, holding an amount for each cost.
        settings: of the search and of `expand`. "budget" tells which limit the search's structure was nearest to
            ("binding"), how much of it was "left", and where that is more than one per cent why ("granularity").
        trajectory: of the search: "step", "cost" and "target" (fractions of the seed's cost), "alive", "loss". With
            several costs, "cost" and "target" are those furthest over their schedule, and "cost_NAME" and
            "target_NAME" those of each.
        schema_version: of this format.
    """

    fingerprint: str
    groups: dict[str, dict[str, Any]]
    layers: list[dict[str, Any]]
    removed: dict[str, list[Any]]
    costs: dict[str, dict[str, float]]
    goal: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    trajectory: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def widths(self) -> dict[str, int]:
        """Channels of every layer that has a width, by layer name; 0 for a removed layer."""
        return {layer["name"]: layer["width"] for layer in self.layers}

    @property
    def limits(self) -> dict[str, float]:
        """What the search was allowed of each cost, as fractions of the seed's; none for a search with a strength."""
        for name in ("target", "budget"):
            given = self.goal.get(name)
            if given is None:
                continue
            amounts = given if isinstance(given, dict) else {str(self.goal.get("cost")): given}
            if name == "target":
                return {cost: float(amount) for cost, amount in amounts.items()}
            seeds = {cost: self.costs[cost]["seed"] for cost in amounts if cost in self.costs}
            return {cost: float(amounts[cost]) / seed for cost, seed in seeds.items() if seed}
        return {}

    def widths_in(self, graph: ChannelGraph) -> np.ndarray:
        """Channels of every group of `graph`: int array (groups,); 0 for removed groups.

        Raises:
            MorphError: the structure belongs to another network.
        """
        self.check_belongs_to(graph)
        return np.array([self.groups[group.name]["width"] if group.prunable else group.size for group in graph.groups])

    def check_belongs_to(self, graph: ChannelGraph) -> None:
        """Raise a MorphError unless this is a structure of that network."""
        if self.fingerprint != graph.fingerprint:
            raise MorphError(
                f"The structure was made for another network (fingerprint {self.fingerprint[:19]}...) than model "
                f"'{graph.name}' (fingerprint {graph.fingerprint[:19]}...). Use the build_model, the hyperparameters "
                "and the input shape that the search was run with, or search again for this network."
            )
        expected = {group.name: group.size for group in graph.groups if group.prunable}
        if {name: entry["seed_width"] for name, entry in self.groups.items()} != expected:
            raise MorphError(
                f"The structure's groups are not those of model '{graph.name}', although its fingerprint is: the file "
                "was changed by hand, or a rule was added since. Search again."
            )

    def to_json(self) -> str:
        """The structure as JSON text, the same for equal structures."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "text") -> Structure:
        """Read a structure.

        Args:
            text: what `to_json` wrote.
            source: where the text came from, for messages.

        Raises:
            MorphError: the text is not a structure; the message names the field.
        """
        try:
            data = json.loads(text, parse_constant=lambda token: _fail(source, f"{token} is not a number"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise MorphError(
                f"Structure file {source} is not valid JSON ({error}). It may have been cut short: copy it again, or "
                "take the artifact of another run."
            ) from error
        return _checked(data, source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the structure to a file, whole or not at all."""
        target = pathlib.Path(path)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.to_json())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Structure:
        """Read a structure from a file.

        Raises:
            MorphError: there is no such file, or it is not a structure.
        """
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MorphError(
                f"Structure file {path} cannot be read ({error}). Give the path of a structure.json."
            ) from error
        return cls.from_json(text, source=str(path))


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


# --- reading what came from outside -----------------------------------------------------------------------------------


def _fail(source: str, what: str) -> Any:
    raise MorphError(
        f"Structure file {source}: {what}. It is not a structure that this version wrote; take the artifact of a "
        "search, unchanged."
    )


def _checked(data: Any, source: str) -> Structure:
    def need(holds: bool, what: str) -> None:
        if not holds:
            _fail(source, what)

    need(isinstance(data, dict), "expected a JSON object at the top")
    version = data.get("schema_version")
    need(
        version == SCHEMA_VERSION and not isinstance(version, bool),
        f"schema_version is {version!r}, this version reads {SCHEMA_VERSION}",
    )
    fields = {field.name for field in dataclasses.fields(Structure)}
    need(set(data) == fields, f"expected the fields {sorted(fields)}, received {sorted(map(str, data))[:20]}")
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
    return Structure(**data)


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
