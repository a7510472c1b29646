"""What a budget still has, given out step by step: to the group that needs one most, until not one more step fits.

A step is tried by what the network would then cost, and to price many networks at once takes hardly longer than to
price one. So not each step is tried by itself: a row of them is, in the order in which they would be given, and as many
are taken as fit. It gives the same as one by one, since costs rise with every width: what does not fit once never will.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np


def filled(
    sizes: np.ndarray,
    growing: Sequence[int],
    wider: Callable[[np.ndarray], np.ndarray],
    urgency: Callable[[int, int], float],
    used: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Sizes with as many more steps as fit, the most urgent first.

    Args:
        sizes: what groups have: int array (groups,). What it counts, widths or levels, is the functions' matter.
        growing: the groups that may get more; of equally urgent ones the first comes first.
        wider: the sizes that are one step more, for all groups at once; those of a group that cannot grow stay.
        urgency: of the next step of a group at its size; the lowest comes first.
        used: how full each of several networks, int array (networks, groups), is; at most 1 fits.

    Returns:
        Int array (groups,). Not one more step of the growing groups fits.
    """
    sizes = sizes.copy()
    more = wider(sizes)
    growing = [group for group in growing if more[group] > sizes[group]]
    while growing:
        single = np.repeat(sizes[None], len(growing), axis=0)
        single[np.arange(len(growing)), growing] = more[growing]
        growing = [group for group, fits in zip(growing, used(single) <= 1, strict=True) if fits]
        given, rows = _in_turn(sizes, growing, wider, urgency)
        if not given:
            break
        fits = used(rows) <= 1
        taken = len(given) if fits.all() else int(np.argmin(fits))
        if taken:
            sizes = rows[taken - 1]
        full, more = given[taken : taken + 1], wider(sizes)
        growing = [group for group in growing if group not in full and more[group] > sizes[group]]
    return sizes


def _in_turn(
    sizes: np.ndarray,
    growing: Sequence[int],
    wider: Callable[[np.ndarray], np.ndarray],
    urgency: Callable[[int, int], float],
) -> tuple[list[int], np.ndarray]:
    """The next steps if all of them fitted, as many as there are groups: which group each goes to, and what is then."""
    trial, given, rows = sizes.copy(), list[int](), list[np.ndarray]()
    queue = [(urgency(group, int(trial[group])), rank, group) for rank, group in enumerate(growing)]
    heapq.heapify(queue)
    while queue and len(given) < len(growing):
        _, rank, group = heapq.heappop(queue)
        trial[group] = wider(trial)[group]
        given.append(group)
        rows.append(trial.copy())
        if wider(trial)[group] > trial[group]:
            heapq.heappush(queue, (urgency(group, int(trial[group])), rank, group))
    return given, np.array(rows)
