"""Using what a budget still has: steps given back where they fit, and traded between groups."""

from __future__ import annotations

import numpy as np

from ..network.topology import Topology
from .filling import filled
from .picker import Picker

# Using all but this share of the budget is close enough.
CLOSE_ENOUGH = 0.002
# Groups give up to so many steps at once in a trade, and trades stop after so many rounds.
_STEPS_GIVEN, _ROUNDS = 8, 6
# Structures that are priced at once; a hundred thousand of a small network take a second.
AT_ONCE = 20_000


def fill(picker: Picker, levels: np.ndarray) -> np.ndarray:
    """Give steps back, best score first, until no more fits."""
    left = picker.left(levels)
    return filled(
        levels,
        picker.growing(levels),
        lambda levels: np.minimum(levels + 1, picker.top),
        lambda group, level: -picker.worth(group, level),
        lambda structures: picker.budget.used(picker.widths(structures), left),
    )


def tighten(picker: Picker, levels: np.ndarray) -> np.ndarray:
    """Take steps from one group and give the room to another, and the rest to all, while that is closer."""
    used = picker.used(levels)
    for _ in range(_ROUNDS):
        if used >= 1 - CLOSE_ENOUGH:
            break
        traded = _trades(picker, levels)
        if traded is None:
            break
        candidates, moved = traded
        closeness = picker.budget.used(picker.widths(candidates), picker.left(levels))
        enough = closeness >= 1 - CLOSE_ENOUGH
        if enough.any():
            pick = np.flatnonzero(enough)[np.argmin(moved[enough])]
        else:
            pick = np.argmax(closeness)
        if closeness[pick] <= used:
            break
        levels = fill(picker, candidates[pick])
        used = picker.used(levels)
    return levels


def _trades(picker: Picker, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Every pair of groups: one gives steps, the other takes as many as fit.

    Returns:
        Levels (trades, groups), all within the budget, and how many channels each moves; None without any.
    """
    giving = [group for group in picker.by_need if levels[group] > 1]
    taking = picker.growing(levels)
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
    rows, left = np.arange(len(pairs)), picker.left(levels)
    base = np.repeat(levels[None], len(pairs), axis=0)
    base[rows, givers] -= given
    low, high = levels[takers], picker.top[takers] + 1
    # What fits at `low` and not at `high`; costs rise with every width.
    while (high - low > 1).any():
        middle = (low + high) // 2
        trial = base.copy()
        trial[rows, takers] = np.minimum(middle, picker.top[takers])
        fits = _used_of_many(picker, trial, left) <= 1
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    base[rows, takers] = low
    moved = np.abs(picker.widths(base) - picker.widths(levels)).sum(axis=1)
    return base, moved


def _used_of_many(picker: Picker, levels: np.ndarray, left: Topology) -> np.ndarray:
    parts = range(0, len(levels), AT_ONCE)
    return np.concatenate([picker.budget.used(picker.widths(levels[part : part + AT_ONCE]), left) for part in parts])
