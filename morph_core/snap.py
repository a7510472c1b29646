"""From scores to a structure that is within a budget: the last step of every search.

One threshold on all channels' scores, as low as the budget allows; then single channels are given back where they still
fit, best first, and traded between layers where that uses the budget better. The result is never over the budget, and
not one more channel of a layer that is left would fit. A
group whose channels all fall below the threshold dies with its branch, unless the model's output would die too.
"""

from __future__ import annotations

import numpy as np

from .budget import Budget
from .costs import Cost
from .errors import MorphError

# Trades stop when the cost is this close under the budget, or after so many.
_CLOSE_ENOUGH, _TRADES = 0.002, 100


def snap(
    budget: Budget,
    scores: np.ndarray,
    prunable: np.ndarray | None = None,
    trade: bool = True,
) -> np.ndarray:
    """The channels to keep: the best-scored ones that fit into the budget.

    Args:
        budget: what the structure may cost.
        scores: float array (units,); the higher, the more a channel is worth keeping.
        prunable: bool array (groups,); the groups that may change, all prunable ones by default.
        trade: use the budget to the last; False is faster, for looks on the way.

    Returns:
        bool array (units,).

    Raises:
        MorphError: not even the smallest structure is within the budget.
    """
    picker = _Picker(budget, scores, budget.graph.prunable if prunable is None else prunable)
    low, high = 0, len(picker.order)
    if picker.used(picker.widths_of_best(low)) > 1:
        raise MorphError(_too_small(picker))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if picker.used(picker.widths_of_best(middle)) <= 1 else (low, middle)
    if picker.used(picker.widths_of_best(high)) <= 1:
        low = high
    widths = picker.fill(picker.widths_of_best(low))
    return picker.best_units(picker.tighten(widths) if trade else widths)


def check_feasible(budget: Budget, prunable: np.ndarray | None = None) -> None:
    """Raise unless some structure is within the budget, naming the limit that none keeps and the layer to blame."""
    graph = budget.graph
    picker = _Picker(budget, np.zeros(len(graph.group_of)), graph.prunable if prunable is None else prunable)
    if picker.used(picker.widths_of_best(0)) > 1:
        raise MorphError(_too_small(picker))


def _too_small(picker: _Picker) -> str:
    """The message for a budget that no structure meets; it names the layer that weighs most in the smallest one."""
    budget, graph = picker.budget, picker.graph
    widths = picker.widths_of_best(0)
    costs = budget.costs(widths, graph.survivors(widths > 0))
    limit = budget.limits[budget.binding(costs)]
    smallest = float(costs[budget.binding(costs)])
    return (
        f"No structure of model '{graph.name}' is within {limit.most:.6g} {limit.cost.unit} ({limit.share:.1%} of the "
        f"seed): with one channel in every group it still costs {smallest:.6g} ({smallest / limit.seed:.1%}). "
        f"{_heaviest(picker, limit.cost)}"
        f"Ask for a target of at least {np.ceil(1e4 * smallest / limit.seed) / 1e4:g}."
    )


def _heaviest(picker: _Picker, cost: Cost) -> str:
    if cost.of_call is None:
        return ""
    graph = picker.graph
    widths = picker.widths_of_best(0)
    calls = graph.call_widths(widths.astype(float), graph.survivors(widths > 0))
    spent = [float(cost.of_call(call)) for call in calls]
    worst = int(np.argmax(spent))
    return f"What weighs most then is layer '{calls[worst].name}' ({calls[worst].kind}), with {spent[worst]:.6g}. "


class _Picker:
    """Widths and prices of the best-scored channels."""

    def __init__(self, budget: Budget, scores: np.ndarray, prunable: np.ndarray) -> None:
        self.budget, self.scores, self.prunable = budget, np.asarray(scores, dtype=float), prunable
        self.graph = graph = budget.graph
        free = np.flatnonzero(prunable[graph.group_of])
        # Equal scores are kept in the order of the network, so that a run is repeatable.
        self.order = free[np.argsort(-self.scores[free], kind="stable")]
        best = np.full(len(graph.groups), -np.inf)
        np.maximum.at(best, graph.group_of, self.scores)
        self.by_need = [int(group) for group in np.argsort(-best, kind="stable") if prunable[group]]

    def widths_of_best(self, count: int) -> np.ndarray:
        """Widths when the `count` best channels are kept; groups without which nothing works keep one."""
        graph = self.graph
        kept = np.bincount(graph.group_of[self.order[:count]], minlength=len(graph.groups))
        widths = np.where(self.prunable, kept, graph.seed_widths)
        for group in [None, *self.by_need]:
            if group is not None:
                if widths[group]:
                    continue
                widths[group] = 1
            if self._works(widths):
                break
        # Some of the groups reopened on the way may not have been the ones needed.
        for group in reversed(self.by_need):
            if widths[group] == 1 and kept[group] == 0:
                widths[group] = 0
                if not self._works(widths):
                    widths[group] = 1
        return np.where(graph.survivors(widths > 0).groups, widths, 0)

    def _works(self, widths: np.ndarray) -> bool:
        try:
            self.graph.survivors(widths > 0)
        except MorphError:
            return False
        return True

    def used(self, widths: np.ndarray) -> float:
        return float(self.budget.used(widths, self.graph.survivors(widths > 0))[0])

    def fill(self, widths: np.ndarray, without: int | None = None) -> np.ndarray:
        """Give channels back, best score first, until no more fits; none to the group `without`."""
        widths = widths.copy()
        left = self.graph.survivors(widths > 0)
        ranked = {group: self._ranked(group) for group in self.by_need}
        growing = [group for group in self.by_need if 0 < widths[group] < self.graph.groups[group].size]
        growing = [group for group in growing if group != without]
        while growing:
            growing.sort(key=lambda group: -self.scores[ranked[group][widths[group]]])
            for group in list(growing):
                widths[group] += 1
                if self.budget.fits(widths, left):
                    if widths[group] == self.graph.groups[group].size:
                        growing.remove(group)
                    break
                widths[group] -= 1
                growing.remove(group)
        return widths

    def tighten(self, widths: np.ndarray) -> np.ndarray:
        """Take up to three channels from one group and give the room to others, while that uses the budget better."""
        left = self.graph.survivors(widths > 0)
        best, used = widths, self.budget.used(widths, left)[0]
        tries = 0
        for taken in (1, 2, 3):
            for group in self.by_need:
                if used >= 1 - _CLOSE_ENOUGH or tries >= _TRADES:
                    return best
                if widths[group] <= taken:
                    continue
                tries += 1
                candidate = widths.copy()
                candidate[group] -= taken
                candidate = self.fill(candidate, without=group)
                closer = self.budget.used(candidate, left)[0]
                if closer > used:
                    best, used = candidate, closer
        return self.fill(best)

    def best_units(self, widths: np.ndarray) -> np.ndarray:
        kept = np.ones(len(self.graph.group_of), dtype=bool)
        for group in self.by_need:
            ranked = self._ranked(group)
            kept[ranked[widths[group] :]] = False
        return kept

    def _ranked(self, group: int) -> np.ndarray:
        units = np.flatnonzero(self.graph.group_of == group)
        return units[np.argsort(-self.scores[units], kind="stable")]
