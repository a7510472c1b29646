"""Every structure tried: what is left to do where the steps of a small network are coarse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from ..network.topology import Topology
from .picker import Picker
from .trades import AT_ONCE

# From this share of the budget left on, all structures are tried.
GRANULAR = 0.01
# Structures that are tried at most.
_MOST_TRIED = 200_000


def closest(picker: Picker, levels: np.ndarray) -> np.ndarray:
    """The structure of all that is close enough and moves the fewest channels, or else the closest within.

    What has too many structures to try keeps its levels, unless one with the same groups left is closer.
    """
    best, best_used, best_moved = levels, picker.used(levels), 0.0
    for candidates, left in _all(picker, levels):
        used = picker.budget.used(picker.widths(candidates), left)
        moved = np.abs(picker.widths(candidates) - picker.widths(levels)).sum(axis=1)
        used = np.where(used <= 1, used, 0.0)
        enough = used >= 1 - GRANULAR
        if enough.any():
            pick = np.flatnonzero(enough)[np.argmin(moved[enough])]
            if best_used < 1 - GRANULAR or moved[pick] < best_moved:
                best, best_used, best_moved = candidates[pick], float(used[pick]), float(moved[pick])
        elif best_used < 1 - GRANULAR and used.max() > best_used:
            pick = int(np.argmax(used))
            best, best_used, best_moved = candidates[pick], float(used[pick]), float(moved[pick])
    return best


def _all(picker: Picker, levels: np.ndarray) -> Iterator[tuple[np.ndarray, Topology]]:
    """Structures, some thousand at once, each time with what is left; the ones with the same groups come first."""
    tried = 0
    for is_open in _patterns(picker, levels > 0):
        left = picker.survivors(is_open)
        if left is None or (left.groups[picker.prunable] != is_open[picker.prunable]).any():
            continue
        free = np.flatnonzero(is_open & picker.prunable)
        count = math.prod(int(picker.top[group]) for group in free)
        tried += count
        if tried > _MOST_TRIED:
            return
        base = np.where(is_open, picker.top, 0)
        shape = tuple(int(picker.top[group]) for group in free)
        for start in range(0, count, AT_ONCE):
            numbers = np.arange(start, min(start + AT_ONCE, count))
            candidates = np.repeat(base[None], len(numbers), axis=0)
            if len(free):
                candidates[:, free] = np.stack(np.unravel_index(numbers, shape), axis=1) + 1
            yield candidates, left


def _patterns(picker: Picker, is_open: np.ndarray) -> Iterator[np.ndarray]:
    """Which groups are left: as now, then with some more of them dead or alive."""
    free = np.flatnonzero(picker.prunable)
    for flips in range(len(free) + 1):
        for some in itertools.combinations(free, flips):
            pattern = is_open.copy()
            pattern[list(some)] ^= True
            yield pattern
