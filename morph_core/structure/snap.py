"""From scores to a structure that is within a budget: the last step of every search.

One threshold on all channels' scores, as low as the budget allows; then steps are given back where they still fit, best
first, and traded between groups where that uses the budget better. A step is one channel, or as many as lie between two
widths that a group may have (`choices`). The result is never over the budget, and not one more step of a group that is
left would fit. A group whose channels all fall below the threshold dies with its branch, unless the model's output
would die too; what is left has its floor at least.

Where all this leaves more than one per cent of the budget, every structure is tried if they are few enough, so that the
rest is what the network's own granularity leaves and not what the search for it missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cost.costs import Cost
from ..errors import MorphError
from ..network.graph import ChannelGraph
from .budget import Budget
from .choices import Choices
from .picker import Picker
from .trades import fill, tighten
from .trials import GRANULAR, closest


def snap(
    budget: Budget,
    scores: np.ndarray,
    prunable: np.ndarray | None = None,
    choices: Choices | None = None,
    trade: bool = True,
) -> np.ndarray:
    """The channels to keep: the best-scored ones that fit into the budget.

    Args:
        budget: what the structure may cost.
        scores: float array (units,); the higher, the more a channel is worth keeping.
        prunable: bool array (groups,); the groups that may change, all prunable ones by default.
        choices: the widths that groups may have; any by default.
        trade: use the budget to the last; False is faster, for looks on the way.

    Returns:
        bool array (units,).

    Raises:
        MorphError: not even the smallest structure is within the budget.
    """
    picker = Picker(budget, scores, prunable, choices)
    within = _threshold(picker)
    levels = fill(picker, within)
    if trade:
        levels = tighten(picker, levels)
        if picker.used(levels) < 1 - GRANULAR:
            levels = closest(picker, levels)
    return picker.best_units(levels)


def check_feasible(budget: Budget, prunable: np.ndarray | None = None, choices: Choices | None = None) -> None:
    """Raise unless some structure is within the budget, naming the limit that none keeps and the layer to blame."""
    picker = Picker(budget, np.zeros(len(budget.graph.group_of)), prunable, choices)
    if picker.used(picker.smallest()) > 1:
        raise MorphError(_too_small(picker))


def smallest_used(budget: Budget, prunable: np.ndarray | None = None, choices: Choices | None = None) -> float:
    """How full the smallest structure leaves the fullest limit; above 1 there is none within the budget."""
    picker = Picker(budget, np.zeros(len(budget.graph.group_of)), prunable, choices)
    return picker.used(picker.smallest())


def round_up(
    graph: ChannelGraph, alive: np.ndarray, scores: np.ndarray, prunable: np.ndarray, choices: Choices
) -> np.ndarray:
    """These channels (bool array (units,)), and the next best ones up to a width that their group may have."""
    widths = np.bincount(graph.group_of, alive, len(graph.groups)).astype(np.int64)
    allowed = np.where(prunable, choices.at_least(widths), widths)
    kept = alive.copy()
    for group in np.flatnonzero(allowed > widths):
        units = np.flatnonzero((graph.group_of == group) & ~alive)
        kept[units[np.argsort(-scores[units], kind="stable")][: allowed[group] - widths[group]]] = True
    return kept


def room(budget: Budget, widths: np.ndarray, choices: Choices, prunable: np.ndarray | None = None) -> dict[str, Any]:
    """What a structure leaves of its budget, and why.

    Args:
        budget: what it was allowed.
        widths: of its groups, 0 for those that are gone: int array (groups,).
        choices: the widths that groups may have.
        prunable: bool array (groups,); the groups that may change.

    Returns:
        "binding", the cost that is used most, and "left", the share of its limit that is not used. Where that is more
        than one per cent, also "granularity": a sentence on the smallest step that would have been too much, or on why
        it was not taken.
    """
    picker = Picker(budget, np.zeros(len(budget.graph.group_of)), prunable, choices)
    levels = picker.levels_from(widths)
    costs = budget.costs(picker.widths(levels), picker.left(levels))
    binding = budget.binding(costs)
    found: dict[str, Any] = {
        "binding": budget.names[binding],
        "left": float(1 - (costs / budget.most)[binding]),
    }
    growing = picker.growing(levels)
    if found["left"] > GRANULAR and growing:
        steps = np.repeat(levels[None], len(growing), axis=0)
        steps[np.arange(len(growing)), growing] += 1
        used = budget.used(picker.widths(steps), picker.left(levels))
        least = int(np.argmin(used))
        group = growing[least]
        count = int((picker.widths(steps[least]) - picker.widths(levels))[group])
        left = f"{found['left']:.1%} of the limit on {found['binding']} is left"
        step = f"{count} more {'channel' if count == 1 else 'channels'} of '{budget.graph.groups[group].name}'"
        if used[least] > 1:
            why = f"because not one more step fits: the smallest, {step}, would be {used[least] - 1:.1%} over"
        else:
            why = (
                f"where {step} would fit: what was dropped when the network was narrowed, while channels closed, does "
                "not come back (fit(narrow=False) keeps it to the end)"
            )
        found["granularity"] = f"{left}, {why}"
    return found


def _threshold(picker: Picker) -> np.ndarray:
    """The levels of as many of the best-scored channels as the budget allows."""
    low, dead = 0, np.zeros(len(picker.top), dtype=bool)
    if picker.used(picker.of_best(0)) > 1:
        # What the scores would keep at the least is too much: only what is dear where there is a choice.
        smallest = picker.smallest()
        if picker.used(smallest) > 1:
            raise MorphError(_too_small(picker))
        dead = smallest == 0
    high = len(picker.order)
    if picker.used(picker.of_best(high, dead)) <= 1:
        return picker.of_best(high, dead)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if picker.used(picker.of_best(middle, dead)) <= 1 else (low, middle)
    return picker.of_best(low, dead)


def _too_small(picker: Picker) -> str:
    """The message for a budget that no structure meets; it names the layer that weighs most in the smallest one."""
    budget, graph = picker.budget, picker.graph
    alone = [picker.smallest(row) for row in range(len(budget.limits))]
    costs = [budget.costs(picker.widths(levels), picker.left(levels))[row] for row, levels in enumerate(alone)]
    missed = [row for row, cost in enumerate(costs) if cost > budget.most[row]]
    if missed:
        worst = max(missed, key=lambda row: costs[row] / budget.most[row])
        levels, together = alone[worst], ""
    else:
        levels, together = picker.smallest(), "Each limit could be kept alone, but not all together. "
        worst = budget.binding(budget.costs(picker.widths(levels), picker.left(levels)))
    limit = budget.limits[worst]
    smallest = float(budget.costs(picker.widths(levels), picker.left(levels))[worst])
    least = {
        (False, False): "one channel in every group",
        (True, False): "every group at its floor (min_channels)",
        (False, True): "one multiple in every group (multiple_of)",
        (True, True): "every group as narrow as min_channels and multiple_of allow",
    }[
        bool((picker.choices.floors[picker.prunable] > 1).any()),
        bool((picker.choices.multiples[picker.prunable] > 1).any()),
    ]
    return (
        f"No structure of model '{graph.name}' is within {limit.most:.6g} {limit.cost.unit} ({limit.share:.1%} of the "
        f"seed): with {least} it still costs {smallest:.6g} ({smallest / limit.seed:.1%}). {together}"
        f"{_heaviest(picker, levels, limit.cost)}"
        f"Ask for a target of at least {np.ceil(1e4 * smallest / limit.seed) / 1e4:g}."
    )


def _heaviest(picker: Picker, levels: np.ndarray, cost: Cost) -> str:
    if cost.of_call is None:
        return ""
    calls = picker.graph.call_widths(picker.widths(levels).astype(float), picker.left(levels))
    spent = [float(cost.of_call(call)) for call in calls]
    worst = int(np.argmax(spent))
    return f"What weighs most then is layer '{calls[worst].name}' ({calls[worst].kind}), with {spent[worst]:.6g}. "
