"""A search that goes on with a narrower network while its channels close, so that its steps become cheaper.

A closed channel is computed as long as the network has it. So after an epoch at whose end enough are closed, the search
hands over to one of a network without them: the same weights, the same state of the optimizer, the same schedule. It
costs half as much again as is due by then, so that the choice is still open where it is close. What is gone does not
come back. So a branch without which the rest could not fill the budget is not given up any more, and where it has to
go, the network is narrowed when it has gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..cost.costs import cost_of
from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..structure.budget import Budget
from ..structure.choices import channels_of_each
from ..structure.describe import describe, widths_and_channels
from .finish import narrowed

# What the network may cost that a search goes on with, in shares of what its schedule asks for.
_ROOM = 1.5
# It has at most this share of the FLOPs. The next is a network to analyse and to trace, so there are few of them.
_AT_MOST = 0.85
# What it saves at least until the search is over, in steps of the network as it is: to trace another network takes as
# long as some tens of them.
_STEPS_SAVED = 40.0


@dataclasses.dataclass(frozen=True)
class Narrower:
    """The search that goes on in place of another one. To Keras it is no part of that one.

    Attributes:
        search: of the narrower network.
        units: the channel of the other search that each of its channels is: int array (units,), -1 for channels that
            nobody decides on.
    """

    search: Any
    units: np.ndarray

    def within(self, wider: Narrower | None) -> Narrower:
        """The same, in the channels of the search that `wider` goes on for."""
        if wider is None:
            return self
        return Narrower(self.search, np.where(self.units < 0, -1, wider.units[self.units]))


def narrower(search: Any, epochs_left: int) -> Narrower | str | None:
    """The search to go on with where that is worth it, None where it is not, or why it cannot be made.

    Args:
        search: a `StructureSearch`, compiled, at the end of an epoch.
        epochs_left: of the search.
    """
    plan, graph = search._plan, search.graph
    # The price of a fixed strength, or a gate that closes in the end, lets no channel go before.
    if plan.controller is None or not plan.gate.closes_early or search._steering.is_frozen or epochs_left < 1:
        return None
    search._sync()
    flops = cost_of("flops")
    steps = epochs_left * (search._memory.epoch_length or 0)
    kept = search._steering.kept_with(_ROOM)
    widths = search._steering.widths_of(kept)
    left = graph.survivors(widths > 0)
    share = float(graph.costs([flops], widths, left)[0, 0]) / graph.cost(flops)
    # Else there is another chance at the end of the next epoch.
    if share > _AT_MOST or (1 - share) * steps < _STEPS_SAVED or plan.budget.fits(widths, left):
        return None
    staying = _filling(plan.budget, plan.gate.learns, widths)
    if not search._steering.can_keep(staying):
        return None
    structure = describe(graph, *widths_and_channels(graph, kept & left.groups[graph.group_of]))
    if structure.removed["layers"] and not isinstance(search._arguments["cost"], str):
        return "a cost that is a function may ask for the layers that would go"
    model, parts = narrowed(search.seed, structure)
    found = ChannelGraph.from_model(model)
    sizes = {group.name: group.size for group in found.groups if group.prunable}
    if sizes != {name: group["width"] for name, group in structure.groups.items() if group["width"]}:
        return "without the closed channels, other layers would be tied"
    units = _origins(graph, kept, found)
    try:
        heir = type(search)(model, **_arguments(search, found))
        heir._take_over(search, units, parts, staying)
    except MorphError as error:
        return str(error)
    return Narrower(heir, units)


def _filling(budget: Budget, decided: np.ndarray, widths: np.ndarray) -> set[str]:
    """The groups that have to stay in part: without their branch the network would be below the budget.

    Args:
        budget: of the whole search.
        decided: bool array (groups,), the groups that may go.
        widths: float array (groups,), channels of the network to go on with.
    """
    graph, found = budget.graph, set()
    for group in np.flatnonzero(decided & (widths > 0)):
        is_open = widths > 0
        is_open[group] = False
        try:
            left = graph.survivors(is_open)
        except MorphError:  # it is no branch: the output needs it
            continue
        if budget.fits(np.where(left.groups, widths, 0.0), left):
            found.add(graph.groups[group].name)
    return found


def _origins(graph: ChannelGraph, kept: np.ndarray, found: ChannelGraph) -> np.ndarray:
    """What each channel of a narrower network was: int array (its units,), -1 where nobody decides on it."""
    units = np.full(len(found.group_of), -1, dtype=np.int64)
    index_of = {group.name: index for index, group in enumerate(graph.groups)}
    for index, group in enumerate(found.groups):
        if group.prunable:
            mine = np.flatnonzero(found.group_of == index)
            theirs = np.flatnonzero((graph.group_of == index_of[group.name]) & kept)
            theirs = theirs[np.argsort(graph.position_of[theirs], kind="stable")]
            units[mine] = theirs[found.position_of[mine]]
    return units


def _arguments(search: Any, found: ChannelGraph) -> dict[str, Any]:
    """Arguments of a search of the narrower network that may end with whatever the wider one may end with."""
    plan, given = search._plan, search._arguments
    each = channels_of_each(plan.budget.graph)
    left = {name for group in found.groups if group.prunable for name in (group.name, *group.producers)}
    floors = {
        group.name: int(floor) * min(counts)
        for group, floor, counts in zip(plan.budget.graph.groups, plan.choices.floors, each, strict=True)
        if group.prunable and group.name in left
    }
    multiples = given["multiple_of"]
    if isinstance(multiples, Mapping):
        multiples = {name: count for name, count in multiples.items() if name in left} or 1
    return {
        "cost": given["cost"],
        "budget": {limit.cost.name: limit.most for limit in plan.budget.limits},
        "gate": plan.settings["gate"],
        "multiple_of": multiples,
        "min_channels": floors,
        "allow_uncounted": given["allow_uncounted"],
    }
