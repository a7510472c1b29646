"""Steps in latency: which widths a device wastes time on, because it pads them or has no fast way for them.

Matrix units and vector registers take a fixed number of channels at once. Such a device needs as long for 33 channels
as for 40, or longer than for 64. So the dearest calls of a network are timed at widths just above a multiple of 32: one
channel more, two, four, eight and sixteen. What they take beyond a line through the multiples of 32 is waste.
`Calibration.multiple_of` draws the conclusion.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from ..cost.calibration import STEPS, is_work, signature
from ..cost.costs import flops
from ..network.graph import ChannelGraph
from .stopwatch import LEAST_MS

# Multiples of this lie on the line; every width that a device prefers divides it, or it shows at none of `STEPS`.
_WHOLE = 2 * STEPS[-1]
# So many calls are timed.
_CALLS = 3


@dataclasses.dataclass(frozen=True)
class Steps:
    """One call, and the widths of one group of its channels at which it is timed.

    Attributes:
        call: its index.
        group: the index of the group.
        widths: in channels of that group, rising.
    """

    call: int
    group: int
    widths: tuple[int, ...]

    def of_all(self, graph: ChannelGraph, width: int) -> np.ndarray:
        """The widths of all groups where this one has `width`, int array (groups,)."""
        widths = graph.seed_widths.copy()
        widths[self.group] = width
        return widths


def steps_of(graph: ChannelGraph) -> list[Steps]:
    """What is to be timed of a network; nothing where no group that can be pruned has 64 channels."""
    wide = np.flatnonzero(graph.prunable & (graph.seed_widths >= 2 * _WHOLE))
    rows = np.repeat(graph.seed_widths[None].astype(float), len(wide) + 1, axis=0)
    rows[np.arange(1, len(rows)), wide] -= 1
    dearest: dict[tuple[str, int], tuple[float, int, int]] = {}
    for index, call in enumerate(graph.call_widths(rows)):
        if not (call.makes and call.reads and is_work(call)):
            continue
        work = np.broadcast_to(flops(call), len(rows))
        for row, group in enumerate(wide, start=1):
            saved = float(work[0] - work[row]) * int(graph.seed_widths[group])
            key = (signature(call), int(graph.seed_widths[group]))
            if saved > dearest.get(key, (0.0,))[0]:
                dearest[key] = (saved, index, int(group))
    chosen = sorted(dearest.values(), key=lambda one: (-one[0], *one[1:]))[:_CALLS]
    return [Steps(index, group, _widths(int(graph.seed_widths[group]))) for _, index, group in chosen]


def _widths(size: int) -> tuple[int, ...]:
    top = size // _WHOLE * _WHOLE
    found = {top}
    for whole in (top - _WHOLE, top - 2 * _WHOLE):
        if whole > 0:
            found |= {whole, *(whole + step for step in STEPS)}
    return tuple(sorted(found))


def waste(timed: Sequence[tuple[Steps, Mapping[int, float]]]) -> dict[str, float]:
    """How much longer widths take than the multiples of 32 promise, by how far above a multiple of 32 they are.

    Args:
        timed: what was timed, with the milliseconds at each width.

    Returns:
        For each of `STEPS`, as text, the median over calls and widths, as a share; empty where nothing was timed.
    """
    found: dict[str, list[float]] = {}
    for steps, milliseconds in timed:
        whole = [width for width in steps.widths if width % _WHOLE == 0]
        slope, start = np.polyfit(whole, [milliseconds[width] for width in whole], 1)
        for width in steps.widths:
            if width % _WHOLE:
                expected = max(start + slope * width, LEAST_MS)
                found.setdefault(str(width % _WHOLE), []).append(milliseconds[width] / expected - 1)
    return {step: statistics.median(shares) for step, shares in found.items()}
