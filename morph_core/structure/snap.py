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

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cost.costs import Cost
from ..errors import MorphError
from ..network.topology import Topology
from .budget import Budget
from .choices import Choices, choices_of

if TYPE_CHECKING:
    from ..network.graph import ChannelGraph

# A structure is close enough when it leaves this share of the budget; from the second on, all others are tried.
_CLOSE_ENOUGH, _GRANULAR = 0.002, 0.01
# Groups give up to so many steps at once in a trade, and trades stop after so many rounds.
_STEPS_GIVEN, _ROUNDS = 8, 6
# Structures that are tried at most; a hundred thousand of a small network take a second.
_MOST_TRIED, _AT_ONCE = 200_000, 20_000


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
    picker = _Picker(budget, scores, prunable, choices)
    within = picker.threshold()
    levels = picker.fill(within)
    if trade:
        levels = picker.tighten(levels)
        if picker.used(levels) < 1 - _GRANULAR:
            levels = picker.closest(levels)
    return picker.best_units(levels)


def check_feasible(budget: Budget, prunable: np.ndarray | None = None, choices: Choices | None = None) -> None:
    """Raise unless some structure is within the budget, naming the limit that none keeps and the layer to blame."""
    picker = _Picker(budget, np.zeros(len(budget.graph.group_of)), prunable, choices)
    if picker.used(picker.smallest()) > 1:
        raise MorphError(_too_small(picker))


def smallest_used(budget: Budget, prunable: np.ndarray | None = None, choices: Choices | None = None) -> float:
    """How full the smallest structure leaves the fullest limit; above 1 there is none within the budget."""
    picker = _Picker(budget, np.zeros(len(budget.graph.group_of)), prunable, choices)
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
        than one per cent, also "granularity": a sentence on the smallest step that would have been too much.
    """
    picker = _Picker(budget, np.zeros(len(budget.graph.group_of)), prunable, choices)
    levels = picker.levels_from(widths)
    costs = budget.costs(picker.widths(levels), picker.left(levels))
    binding = budget.binding(costs)
    found: dict[str, Any] = {
        "binding": budget.names[binding],
        "left": float(1 - (costs / budget.most)[binding]),
    }
    growing = picker.growing(levels)
    if found["left"] > _GRANULAR and growing:
        steps = np.repeat(levels[None], len(growing), axis=0)
        steps[np.arange(len(growing)), growing] += 1
        used = budget.used(picker.widths(steps), picker.left(levels))
        least = int(np.argmin(used))
        group = growing[least]
        count = int((picker.widths(steps[least]) - picker.widths(levels))[group])
        found["granularity"] = (
            f"{found['left']:.1%} of the limit on {found['binding']} is left, because not one more step fits: the "
            f"smallest, {count} more {'channel' if count == 1 else 'channels'} of '{budget.graph.groups[group].name}', "
            f"would be {used[least] - 1:.1%} over"
        )
    return found


def _too_small(picker: _Picker) -> str:
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


def _heaviest(picker: _Picker, levels: np.ndarray, cost: Cost) -> str:
    if cost.of_call is None:
        return ""
    calls = picker.graph.call_widths(picker.widths(levels).astype(float), picker.left(levels))
    spent = [float(cost.of_call(call)) for call in calls]
    worst = int(np.argmax(spent))
    return f"What weighs most then is layer '{calls[worst].name}' ({calls[worst].kind}), with {spent[worst]:.6g}. "


class _Picker:
    """Structures of the best-scored channels. A structure is its groups' levels: 0 is dead, 1 the lowest rung."""

    def __init__(
        self, budget: Budget, scores: np.ndarray, prunable: np.ndarray | None, choices: Choices | None
    ) -> None:
        self.budget = budget
        self.graph = graph = budget.graph
        self.choices = choices_of(graph, floor=0.0) if choices is None else choices
        self.prunable = graph.prunable if prunable is None else prunable
        scores = np.asarray(scores, dtype=float)
        rungs = [
            ladder if free else ladder[-1:] for ladder, free in zip(self.choices.ladders, self.prunable, strict=True)
        ]
        self.top = np.array([len(ladder) for ladder in rungs])
        self._ladder = np.zeros((len(rungs), int(self.top.max(initial=0)) + 1), dtype=np.int64)
        for index, ladder in enumerate(rungs):
            self._ladder[index, 1 : len(ladder) + 1] = ladder
            self._ladder[index, len(ladder) + 1 :] = ladder[-1]
        self._rows = np.arange(len(rungs))
        # Equal scores are kept in the order of the network, so that a run is repeatable.
        units = np.lexsort((np.arange(len(scores)), -scores, graph.group_of))
        self._ranked = np.split(units, np.cumsum(np.bincount(graph.group_of, minlength=len(rungs)))[:-1])
        self._sums = [np.concatenate([[0.0], np.cumsum(scores[ranked])]) for ranked in self._ranked]
        free_units = np.flatnonzero(self.prunable[graph.group_of])
        self._order = free_units[np.argsort(-scores[free_units], kind="stable")]
        best = np.array([scores[ranked[0]] if len(ranked) else -np.inf for ranked in self._ranked])
        self._by_need = [int(group) for group in np.argsort(-best, kind="stable") if self.prunable[group]]
        self._topologies: dict[bytes, Topology | None] = {}

    # --- structures and what they cost ---

    def widths(self, levels: np.ndarray) -> np.ndarray:
        """Channels of each group: int array like `levels`, (groups,) or (structures, groups)."""
        return self._ladder[self._rows, levels]

    def levels_from(self, widths: np.ndarray) -> np.ndarray:
        """The highest levels that these widths, int array (groups,), reach; a group that is left has 1 at least."""
        reached = (self._ladder[:, 1:] <= widths[:, None]).sum(axis=1)
        return np.where(widths > 0, np.clip(reached, 1, self.top), 0)

    def left(self, levels: np.ndarray) -> Topology:
        found = self._survivors(levels > 0)
        assert found is not None, "only structures that work are priced"
        return found

    def _survivors(self, is_open: np.ndarray) -> Topology | None:
        """What is left when these groups are open; None when an output would be dead."""
        key = np.packbits(is_open).tobytes()
        if key not in self._topologies:
            try:
                self._topologies[key] = self.graph.survivors(is_open)
            except MorphError:
                self._topologies[key] = None
        return self._topologies[key]

    def used(self, levels: np.ndarray) -> float:
        """How full one structure makes the fullest limit."""
        return float(self.budget.used(self.widths(levels), self.left(levels))[0])

    def _normal(self, levels: np.ndarray) -> np.ndarray:
        """Groups that nothing needs any more are dead, too."""
        return np.where(self.left(levels).groups, levels, 0)

    # --- the threshold ---

    def threshold(self) -> np.ndarray:
        """The levels of as many of the best-scored channels as the budget allows."""
        low, dead = 0, np.zeros(len(self.top), dtype=bool)
        if self.used(self.of_best(0)) > 1:
            # What the scores would keep at the least is too much: only what is dear where there is a choice.
            smallest = self.smallest()
            if self.used(smallest) > 1:
                raise MorphError(_too_small(self))
            dead = smallest == 0
        high = len(self._order)
        if self.used(self.of_best(high, dead)) <= 1:
            return self.of_best(high, dead)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.used(self.of_best(middle, dead)) <= 1 else (low, middle)
        return self.of_best(low, dead)

    def of_best(self, count: int, dead: np.ndarray | None = None) -> np.ndarray:
        """Levels when the `count` best channels are kept and the `dead` groups are none; what must live has level 1."""
        kept = np.bincount(self.graph.group_of[self._order[:count]], minlength=len(self.top))
        levels = self.levels_from(np.where(self.prunable, kept, self.graph.seed_widths))
        if dead is not None and dead.any():
            levels = np.where(dead, 0, np.maximum(levels, 1))
            return self._normal(levels)
        reopened = []
        for group in self._by_need:
            if self._survivors(levels > 0) is not None:
                break
            if not levels[group]:
                levels[group] = 1
                reopened.append(group)
        # Some of the groups reopened on the way may not have been the ones needed.
        for group in reversed(reopened):
            levels[group] = 0
            if self._survivors(levels > 0) is None:
                levels[group] = 1
        return self._normal(levels)

    def smallest(self, limit: int | None = None) -> np.ndarray:
        """The levels of the smallest structure: every branch gone that can go, the lowest rung in what is left.

        Where one of several branches has to stay, the dearer ones go first.

        Args:
            limit: the one to judge by; the fullest by default.
        """
        lowest = np.where(self.prunable, 1, self.top)
        candidates = range(len(self.budget.limits)) if limit is None else [limit]
        marginal = self.budget.marginal(self.widths(lowest).astype(float)) / self.budget.most[:, None]
        dear = [marginal[row] * self.widths(lowest) for row in candidates]
        if len(dear) > 1:
            dear.append(np.sum(dear, axis=0))
        found = []
        for each in dear:
            levels = lowest.copy()
            for group in np.argsort(-each, kind="stable"):
                if self.prunable[group] and levels[group]:
                    levels[group] = 0
                    if self._survivors(levels > 0) is None:
                        levels[group] = 1
                    else:
                        levels = self._normal(levels)
            found.append(levels)
        if limit is not None:
            return found[0]
        return min(found, key=self.used)

    # --- using what is left ---

    def growing(self, levels: np.ndarray) -> list[int]:
        """The groups that are left and could be wider."""
        return [group for group in self._by_need if 0 < levels[group] < self.top[group]]

    def fill(self, levels: np.ndarray, without: int | None = None) -> np.ndarray:
        """Give steps back, best score first, until no more fits; none to the group `without`."""
        levels, left = levels.copy(), self.left(levels)
        growing = [group for group in self.growing(levels) if group != without]
        while growing:
            steps = np.repeat(levels[None], len(growing), axis=0)
            steps[np.arange(len(growing)), growing] += 1
            fits = self.budget.used(self.widths(steps), left) <= 1
            growing = [group for group, fit in zip(growing, fits, strict=True) if fit]
            if growing:
                levels[max(growing, key=lambda group: self._worth(group, levels[group]))] += 1
                growing = [group for group in growing if levels[group] < self.top[group]]
        return levels

    def _worth(self, group: int, level: int) -> float:
        """The mean score of the channels that the next step up would bring."""
        low, high = self._ladder[group, level : level + 2]
        return float(self._sums[group][high] - self._sums[group][low]) / int(high - low)

    def tighten(self, levels: np.ndarray) -> np.ndarray:
        """Take steps from one group and give the room to another, and the rest to all, while that is closer."""
        used = self.used(levels)
        for _ in range(_ROUNDS):
            if used >= 1 - _CLOSE_ENOUGH:
                break
            traded = self._trades(levels)
            if traded is None:
                break
            candidates, moved = traded
            closeness = self.budget.used(self.widths(candidates), self.left(levels))
            enough = closeness >= 1 - _CLOSE_ENOUGH
            if enough.any():
                pick = np.flatnonzero(enough)[np.argmin(moved[enough])]
            else:
                pick = np.argmax(closeness)
            if closeness[pick] <= used:
                break
            levels = self.fill(candidates[pick])
            used = self.used(levels)
        return levels

    def _trades(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Every pair of groups: one gives steps, the other takes as many as fit.

        Returns:
            Levels (trades, groups), all within the budget, and how many channels each moves; None without any.
        """
        giving = [group for group in self._by_need if levels[group] > 1]
        taking = self.growing(levels)
        pairs = [
            (giver, taker, steps)
            for giver in giving
            for taker in taking
            if giver != taker
            for steps in range(1, min(_STEPS_GIVEN, int(levels[giver]) - 1) + 1)
        ]
        if not pairs:
            return None
        givers, takers, given = (np.array(column) for column in zip(*pairs, strict=True))
        rows, left = np.arange(len(pairs)), self.left(levels)
        base = np.repeat(levels[None], len(pairs), axis=0)
        base[rows, givers] -= given
        low, high = levels[takers], self.top[takers] + 1
        # What fits at `low` and not at `high`; costs rise with every width.
        while (high - low > 1).any():
            middle = (low + high) // 2
            trial = base.copy()
            trial[rows, takers] = np.minimum(middle, self.top[takers])
            fits = self._used_of_many(trial, left) <= 1
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        base[rows, takers] = low
        moved = np.abs(self.widths(base) - self.widths(levels)).sum(axis=1)
        return base, moved

    def _used_of_many(self, levels: np.ndarray, left: Topology) -> np.ndarray:
        parts = range(0, len(levels), _AT_ONCE)
        return np.concatenate([self.budget.used(self.widths(levels[part : part + _AT_ONCE]), left) for part in parts])

    # --- all structures ---

    def closest(self, levels: np.ndarray) -> np.ndarray:
        """The structure of all that is close enough and moves the fewest channels, or else the closest within.

        What has too many structures to try keeps its levels, unless one with the same groups left is closer.
        """
        best, best_used, best_moved = levels, self.used(levels), 0.0
        for candidates, left in self._all(levels):
            used = self.budget.used(self.widths(candidates), left)
            moved = np.abs(self.widths(candidates) - self.widths(levels)).sum(axis=1)
            used = np.where(used <= 1, used, 0.0)
            enough = used >= 1 - _GRANULAR
            if enough.any():
                pick = np.flatnonzero(enough)[np.argmin(moved[enough])]
                if best_used < 1 - _GRANULAR or moved[pick] < best_moved:
                    best, best_used, best_moved = candidates[pick], float(used[pick]), float(moved[pick])
            elif best_used < 1 - _GRANULAR and used.max() > best_used:
                pick = int(np.argmax(used))
                best, best_used, best_moved = candidates[pick], float(used[pick]), float(moved[pick])
        return best

    def _all(self, levels: np.ndarray) -> Iterator[tuple[np.ndarray, Topology]]:
        """Structures, some thousand at once, each time with what is left; the ones with the same groups come first."""
        tried = 0
        for is_open in self._patterns(levels > 0):
            left = self._survivors(is_open)
            if left is None or (left.groups[self.prunable] != is_open[self.prunable]).any():
                continue
            free = np.flatnonzero(is_open & self.prunable)
            count = math.prod(int(self.top[group]) for group in free)
            tried += count
            if tried > _MOST_TRIED:
                return
            base = np.where(is_open, self.top, 0)
            shape = tuple(int(self.top[group]) for group in free)
            for start in range(0, count, _AT_ONCE):
                numbers = np.arange(start, min(start + _AT_ONCE, count))
                candidates = np.repeat(base[None], len(numbers), axis=0)
                if len(free):
                    candidates[:, free] = np.stack(np.unravel_index(numbers, shape), axis=1) + 1
                yield candidates, left

    def _patterns(self, is_open: np.ndarray) -> Iterator[np.ndarray]:
        """Which groups are left: as now, then with some more of them dead or alive."""
        free = np.flatnonzero(self.prunable)
        for flips in range(len(free) + 1):
            for some in itertools.combinations(free, flips):
                pattern = is_open.copy()
                pattern[list(some)] ^= True
                yield pattern

    def best_units(self, levels: np.ndarray) -> np.ndarray:
        """The best-scored channels of each group at these levels: bool array (units,)."""
        kept = np.ones(len(self.graph.group_of), dtype=bool)
        widths = self.widths(levels)
        for group in self._by_need:
            kept[self._ranked[group][widths[group] :]] = False
        return kept
