"""Which widths each group may have: none below its floor, and multiples where the hardware wants them.

A group is a ladder of widths, from its floor to the seed's width; a search climbs down it, an expansion goes on above
its top. Floors and multiples are given in channels of a layer, as users see them. A channel of a group may stand for
several of a layer (a head of attention, one channel in each group of a grouped convolution), so they are translated.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from ..arrays import weight_of
from ..cost.costs import Cost
from ..errors import MorphError
from ..network.graph import ChannelGraph

Counts = int | Mapping[str, int]
"""A number of channels for all layers, or numbers by the name of a layer or group."""

AUTO = "auto"
Multiples = Counts | Literal["auto"]
"""As `Counts`, or "auto": what the device prefers, where a calibration has measured it."""

UNIFORM = "uniform"
Floors = Counts | Literal["uniform"]
"""As `Counts`, or "uniform": what uniform widths within the same budget have."""

# By default a layer keeps at least this share of its channels, or dies with its branch.
DEFAULT_FLOOR = 1 / 16


@dataclasses.dataclass(frozen=True, eq=False)
class Choices:
    """The widths that the groups of one network may have.

    Attributes:
        graph: of the seed.
        floors: the smallest width of each group that does not die: int array (groups,).
        multiples: widths are multiples of this, or the seed's: int array (groups,).
    """

    graph: ChannelGraph
    floors: np.ndarray
    multiples: np.ndarray

    @functools.cached_property
    def ladders(self) -> list[np.ndarray]:
        """For each group its widths in a search, rising: int arrays.

        They are the multiples from the floor on, and always the seed's own width, so that a group narrower than one
        multiple keeps all its channels or dies. A group that cannot be pruned has the seed's width alone.
        """
        found = []
        for group, floor, multiple in zip(self.graph.groups, self.floors, self.multiples, strict=True):
            first = math.ceil(floor / multiple) * multiple
            rungs = np.arange(first, group.size, multiple) if group.prunable else []
            found.append(np.array([*rungs, group.size], dtype=np.int64))
        return found

    def at_least(self, widths: np.ndarray) -> np.ndarray:
        """The narrowest allowed widths from these up, 0 staying 0: int array (groups,)."""
        rounded = [rungs[np.searchsorted(rungs, width)] for rungs, width in zip(self.ladders, widths, strict=True)]
        return np.where(widths > 0, rounded, 0)

    def wider(self, widths: np.ndarray) -> np.ndarray:
        """The next multiple above each width, also beyond the seed's: int array (groups,)."""
        return (widths // self.multiples + 1) * self.multiples


def choices_of(
    graph: ChannelGraph,
    multiple_of: Counts = 1,
    min_channels: Counts | None = None,
    floor: float = DEFAULT_FLOOR,
    caller: str = "",
) -> Choices:
    """The widths that a user allows.

    Args:
        graph: of the seed.
        multiple_of: channels; groups that a dict does not name may have any width.
        min_channels: channels; groups that it does not name keep the default.
        floor: the default: this share of the seed's width, rounded up.
        caller: begins messages, as in "expand: ".

    Raises:
        MorphError: a number is no whole number of at least 1, or a name is none of a layer that can be pruned.
    """
    each = channels_of_each(graph)
    floors = np.maximum(np.ceil(graph.seed_widths * floor - 1e-9), 1).astype(np.int64)
    for group, wanted in _by_group(graph, "min_channels", min_channels, caller).items():
        floors[group] = math.ceil(wanted / min(each[group]))
    multiples = np.ones(len(graph.groups), dtype=np.int64)
    for group, wanted in _by_group(graph, "multiple_of", multiple_of, caller).items():
        multiples[group] = math.lcm(*(wanted // math.gcd(wanted, count) for count in each[group]))
    return Choices(graph, np.minimum(floors, graph.seed_widths), multiples)


def multiples_for(multiple_of: Multiples, costs: Iterable[Cost], caller: str = "") -> Counts:
    """Numbers for "auto", from the costs of a budget; anything else as it is.

    Args:
        multiple_of: as the user gave it.
        costs: those that the budget is about.
        caller: begins messages, as in "expand: ".

    Raises:
        MorphError: "auto", and no cost is a latency that was measured.
    """
    if not isinstance(multiple_of, str) or multiple_of != AUTO:
        return multiple_of
    costs = list(costs)
    known = [cost.calibration.multiple_of for cost in costs if cost.calibration is not None]
    if not known:
        raise MorphError(
            f"{caller}multiple_of='auto' takes the number from a calibration, and {' and '.join(c.name for c in costs)}"
            " has none. Ask for a measured latency, cost='latency:FILE.json' with a file of morph-tfx calibrate, or "
            "give a number, such as multiple_of=8."
        )
    return math.lcm(*known)


def _by_group(graph: ChannelGraph, name: str, counts: Any, caller: str) -> dict[int, int]:
    """The number for each group that the user named; all that can be pruned when it is one number."""
    if counts is None:
        return {}
    check_counts(name, counts, caller)
    prunable = {index: group for index, group in enumerate(graph.groups) if group.prunable}
    if not isinstance(counts, Mapping):
        return dict.fromkeys(prunable, int(counts))
    found: dict[int, int] = {}
    for label, count in counts.items():
        named = [index for index, group in enumerate(graph.groups) if label in (group.name, *group.producers)]
        free = [index for index in named if index in prunable]
        if not free:
            if named:
                why = f"its channels stay as they are: {graph.groups[named[0]].reason}"
            else:
                close = difflib.get_close_matches(str(label), [group.name for group in prunable.values()], n=1)
                why = f"did you mean {close[0]!r}?" if close else "print(graph) lists the layers that can be pruned."
            raise MorphError(
                f"{caller}{name} names {label!r}, which is no layer of model '{graph.name}' to prune; {why}"
            )
        # Layers that are tied share one width, so the strictest of their numbers counts.
        join = max if name == "min_channels" else math.lcm
        found.update({index: join(int(count), found.get(index, 1)) for index in free})
    return found


def check_counts(name: str, counts: Any, caller: str = "") -> None:
    """Raise a MorphError unless these are numbers of channels, as far as it can be told without a network."""
    if name == "multiple_of" and isinstance(counts, str) and counts == AUTO:
        return
    named = {f"{name}[{label!r}]": count for label, count in counts.items()} if isinstance(counts, Mapping) else {}
    for where, count in (named or {name: counts}).items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise MorphError(f"{caller}{where} is {count!r}; expected a whole number of channels, at least 1.")


def check_floors(min_channels: Any, has_budget: bool, caller: str = "") -> None:
    """Raise a MorphError unless a search can keep these, as far as it can be told without a network.

    Args:
        min_channels: `Floors`, or None.
        has_budget: the search has a target or a budget.
        caller: begins messages.
    """
    if not isinstance(min_channels, str):
        if min_channels is not None:
            check_counts("min_channels", min_channels, caller)
    elif min_channels != UNIFORM:
        raise MorphError(
            f"{caller}min_channels is {min_channels!r}; expected a whole number of channels, numbers by layer, or "
            f"'{UNIFORM}': the widths that every layer has when all are narrowed alike to the budget."
        )
    elif not has_budget:
        raise MorphError(
            f"{caller}min_channels='{UNIFORM}' is about uniform widths within the search's budget, and a strength by "
            "itself has none. Give a target, such as target=0.5, or numbers of channels."
        )


def channels_of_each(graph: ChannelGraph) -> list[set[int]]:
    """For each group, how many channels of a layer that makes it one of its own stands for; may differ by layer."""
    found: list[set[int]] = []
    for index, group in enumerate(graph.groups):
        counts = {
            int((graph.group_of[units[units >= 0]] == index).sum()) // group.size * _features(graph, call, axis)
            for call in group.makers
            for axis in dict.fromkeys(graph.rules[call].widths.values())
            if (units := graph.axes[call].get(axis)) is not None
        }
        found.append({count for count in counts if count} or {1})
    return found


def _features(graph: ChannelGraph, call: int, axis: str) -> int:
    """What one place on a layer's axis makes: 1, but for a head of attention as many features as it has."""
    sizes = []
    for path, follows in graph.rules[call].weights.items():
        weight: Any = weight_of(graph.trace.calls[call].layer, path)
        if weight is not None and axis in follows:
            rest = follows[follows.index(axis) + 1 :]
            if rest and all(name is None for name in rest):
                sizes.append(math.prod(weight.shape[len(weight.shape) - len(rest) :]))
    return math.gcd(*sizes) if sizes else 1
