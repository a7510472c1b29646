"""Structures made of the best-scored channels, told as one level a group, and what they cost."""

from __future__ import annotations

import numpy as np

from ..errors import MorphError
from ..network.channels import as_bits
from ..network.topology import Topology
from .budget import Budget
from .choices import Choices, choices_of


class Picker:
    """Structures of the best-scored channels. A structure is its groups' levels: 0 is dead, 1 the lowest rung.

    Args:
        budget: what a structure may cost.
        scores: float array (units,); the higher, the more a channel is worth keeping.
        prunable: bool array (groups,); the groups that may change, all prunable ones by default.
        choices: the widths that groups may have; any by default.

    Attributes:
        top: the highest level of each group: int array (groups,).
        order: the channels that may go, best score first: int array of units.
        by_need: the groups that may change, the one with the best channel first.
    """

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
        self.order = free_units[np.argsort(-scores[free_units], kind="stable")]
        best = np.array([scores[ranked[0]] if len(ranked) else -np.inf for ranked in self._ranked])
        self.by_need = [int(group) for group in np.argsort(-best, kind="stable") if self.prunable[group]]
        self._topologies: dict[bytes, Topology | None] = {}
        self._needed = graph.needed_groups()

    # --- structures and what they cost ---

    def widths(self, levels: np.ndarray) -> np.ndarray:
        """Channels of each group: int array like `levels`, (groups,) or (structures, groups)."""
        return self._ladder[self._rows, levels]

    def levels_from(self, widths: np.ndarray) -> np.ndarray:
        """The highest levels that these widths, int array (groups,), reach; a group that is left has 1 at least."""
        reached = (self._ladder[:, 1:] <= widths[:, None]).sum(axis=1)
        return np.where(widths > 0, np.clip(reached, 1, self.top), 0)

    def left(self, levels: np.ndarray) -> Topology:
        found = self.survivors(levels > 0)
        assert found is not None, "only structures that work are priced"
        return found

    def survivors(self, is_open: np.ndarray) -> Topology | None:
        """What is left when these groups are open; None when an output would be dead."""
        if self._needed & ~as_bits(is_open):
            return None
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

    def normal(self, levels: np.ndarray) -> np.ndarray:
        """Groups that nothing needs any more are dead, too."""
        return np.where(self.left(levels).groups, levels, 0)

    def of_best(self, count: int, dead: np.ndarray | None = None) -> np.ndarray:
        """Levels when the `count` best channels are kept and the `dead` groups are none; what must live has level 1."""
        kept = np.bincount(self.graph.group_of[self.order[:count]], minlength=len(self.top))
        levels = self.levels_from(np.where(self.prunable, kept, self.graph.seed_widths))
        if dead is not None and dead.any():
            levels = np.where(dead, 0, np.maximum(levels, 1))
            return self.normal(levels)
        reopened = []
        for group in self.by_need:
            if self.survivors(levels > 0) is not None:
                break
            if not levels[group]:
                levels[group] = 1
                reopened.append(group)
        # Some of the groups reopened on the way may not have been the ones needed.
        for group in reversed(reopened):
            levels[group] = 0
            if self.survivors(levels > 0) is None:
                levels[group] = 1
        return self.normal(levels)

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
                    if self.survivors(levels > 0) is None:
                        levels[group] = 1
                    else:
                        levels = self.normal(levels)
            found.append(levels)
        if limit is not None:
            return found[0]
        return min(found, key=self.used)

    def growing(self, levels: np.ndarray) -> list[int]:
        """The groups that are left and could be wider."""
        return [group for group in self.by_need if 0 < levels[group] < self.top[group]]

    def worth(self, group: int, level: int) -> float:
        """The mean score of the channels that the next step up would bring."""
        low, high = self._ladder[group, level : level + 2]
        return float(self._sums[group][high] - self._sums[group][low]) / int(high - low)

    def best_units(self, levels: np.ndarray) -> np.ndarray:
        """The best-scored channels of each group at these levels: bool array (units,)."""
        kept = np.ones(len(self.graph.group_of), dtype=bool)
        widths = self.widths(levels)
        for group in self.by_need:
            kept[self._ranked[group][widths[group] :]] = False
        return kept
