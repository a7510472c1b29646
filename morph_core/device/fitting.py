"""From what was timed to a calibration: its tables, its estimates, and what is left of both in a whole network."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Sequence

import numpy as np

from ..cost.calibration import Calibration, Estimate, Shares, Table, is_work
from ..cost.costs import elements_moved, flops, latency
from ..network.graph import ChannelGraph
from .grid import Grid
from .steps import Steps, waste
from .stopwatch import LEAST_MS
from .timing import again_key, point_key, step_key, widths_of_network

# How firmly the two shares are held together where the networks do not tell them apart.
_HOLD = 0.03


def fitted(
    name: str,
    measured_on: dict,
    graph: ChannelGraph,
    grids: Sequence[Grid],
    steps: Sequence[Steps],
    networks: int,
    found: dict[str, float],
) -> Calibration:
    """The calibration that follows from what was timed.

    Args:
        name: of the device, see `Calibration`.
        measured_on: likewise.
        graph: of the network.
        grids: of its calls, all of whose points were timed.
        steps: that were timed.
        networks: how many whole networks were timed.
        found: milliseconds of each measurement of `timing.measurements`, by its key.
    """
    tables, estimates = [], {}
    # Calls without a grid are estimated from those that have one.
    facts: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    batch, size = measured_on["batch_size"], 2 if measured_on["dtype"] in ("bfloat16", "float16") else 4
    for number, grid in enumerate(grids):
        times = tuple(found[point_key(number, point)] for point in range(len(grid.widths)))
        tables.append(Table(grid.signature, grid.has_kernels, grid.sizes, grid.grid, grid.tied, times))
        for widths, milliseconds in zip(grid.widths, times, strict=True):
            call = graph.call_widths(widths.astype(float))[grid.call]
            work = flops(call)
            moved = elements_moved(call, work) * size * batch / 1e9
            facts[grid.has_kernels].append((float(work * batch / 1e9), float(moved), milliseconds))
    for has_kernels, rows in facts.items():
        estimates[has_kernels] = _estimate(np.array(rows).reshape(-1, 3))
    calibration = Calibration(
        name=name,
        measured_on=measured_on,
        repeatability={"entries": _repeatability(found, "call"), "networks": _repeatability(found, "network")},
        kernels=estimates[True],
        rest=estimates[False],
        shares=Shares(1.0, 1.0),
        tables=tuple(tables),
        waste=waste(
            [(one, {width: found[step_key(number, width)] for width in one.widths}) for number, one in enumerate(steps)]
        ),
    )
    return dataclasses.replace(calibration, shares=_shares(calibration, graph, networks, found))


def _repeatability(found: dict[str, float], kind: str) -> float:
    """The median of the relative differences between what was measured twice; 0 where nothing was."""
    pairs = [(found[key], found[again_key(key)]) for key in found if key.startswith(kind) and again_key(key) in found]
    return statistics.median([abs(a - b) / max((a + b) / 2, LEAST_MS) for a, b in pairs]) if pairs else 0.0


def _estimate(rows: np.ndarray) -> Estimate:
    """Factors of GFLOPs, gigabytes and a constant, from rows of these two and milliseconds."""
    if not len(rows):
        return Estimate(0.0, 0.0, 0.0)
    times = np.maximum(rows[:, 2], LEAST_MS)
    return Estimate(*_least_squares(np.column_stack([rows[:, :2], np.ones(len(rows))]), times))


def _shares(calibration: Calibration, graph: ChannelGraph, networks: int, found: dict[str, float]) -> Shares:
    """How much of the time that its calls take alone a network takes, for those with kernels and for the rest."""
    of_call = latency(calibration).of_call
    assert of_call is not None
    sums, times = [], []
    batch = calibration.measured_on["batch_size"]
    for number in range(networks):
        parts_of = {True: 0.0, False: 0.0}
        for call in graph.call_widths(widths_of_network(graph, number).astype(float)):
            parts_of[is_work(call)] += float(of_call(call)) * batch
        sums.append((parts_of[True], parts_of[False]))
        times.append(found[f"network {number}"])
    if not networks or min(times) <= 0:
        return Shares(1.0, 1.0)
    columns = np.array(sums) / np.array(times)[:, None]
    (same,) = _nonnegative(columns.sum(axis=1, keepdims=True), np.ones(networks))
    # Further rows hold both at one common share, with the weight of a part of all networks.
    weight = _HOLD * np.sqrt(networks)
    rows = np.vstack([columns, weight * np.eye(2)])
    return Shares(*_nonnegative(rows, np.concatenate([np.ones(networks), np.full(2, weight * same)])))


def _least_squares(columns: np.ndarray, times: np.ndarray) -> list[float]:
    """Factors from 0 on with the least relative error."""
    return _nonnegative(columns / times[:, None], np.ones(len(times)))


def _nonnegative(columns: np.ndarray, wanted: np.ndarray) -> list[float]:
    """Least squares with factors from 0 on: the best of all choices of columns, of which there are few."""
    count = columns.shape[1]
    best, least = [0.0] * count, float(np.sum(wanted**2))
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(range(count), number) for number in range(1, count + 1)
    ):
        factors, *_ = np.linalg.lstsq(columns[:, chosen], wanted, rcond=None)
        error = float(np.sum((columns[:, chosen] @ factors - wanted) ** 2))
        if (factors >= 0).all() and error < least:
            best, least = [0.0] * count, error
            for place, factor in zip(chosen, factors, strict=True):
                best[place] = float(factor)
    return best
