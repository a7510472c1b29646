"""Measuring what a network's operations take on this device, and writing it down as a calibration file.

Each operation is timed by itself at several widths (`grid`), and a few whole networks of random widths are timed to
learn how much of that time is left when the operations stand in a network.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import pathlib
import statistics
import warnings
from collections.abc import Callable, Sequence

import keras
import numpy as np

from ..cost.calibration import Calibration, Estimate, Shares, Table, is_work
from ..cost.costs import elements_moved, flops, latency
from ..cost.devices import read_calibration
from ..cost.machine import this_machine
from ..errors import MorphError, first_line
from ..files import write_whole
from ..network.graph import ChannelGraph
from . import parts
from .grid import Grid, grids_of
from .record import Record
from .request import check_counts, check_name
from .runtimes import Runtime, device_name, find_runtime, lacking, threads, versions
from .steps import Steps, steps_of, waste
from .stopwatch import Stopwatch

# The least that is measured a second time, to tell the repeatability, and one in how many.
_FEWEST_AGAIN, _ONE_IN = 8, 12
# Whole networks are few, and all else rests on them.
_NETWORK_REPEATS = 2
# So many are timed in turn.
_IN_TURN = 12
# Worse than this, and more runs are asked for.
REPEATABLE = 0.10
# How firmly the two shares are held together where the networks do not tell them apart.
_HOLD = 0.1
_LEAST_MS = 1e-3


class _CannotRun(MorphError):
    """An operation of the network cannot be measured like this, however often it is tried."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a calibration is: `done` of `total` measurements, `what` comes next."""

    done: int
    total: int
    what: str


def calibrate(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    runtime: str = "tf.function",
    dtype: str = "float32",
    batch_size: int = 1,
    points: int = 6,
    networks: int = 8,
    repeats: int = 30,
    notice: Callable[[Progress], None] | None = None,
) -> Calibration:
    """Measure on this device what a network takes at any widths, for `cost="latency:FILE.json"`.

    A run that was killed goes on where it was when it is started again with the same arguments.

    Args:
        model: the seed. Its weights do not matter.
        path: of the file to write, ending in ".json"; its name without that is the device's name.
        runtime: "tf.function", "xla" or "litert".
        dtype: "float32", "bfloat16" or "float16", as Keras' dtype policies have it.
        batch_size: of the network when it runs; costs are milliseconds for such a batch, divided by its size.
        points: widths at which each operation is measured, in each of its dimensions.
        networks: whole networks of random widths that are measured besides.
        repeats: of each measurement; the lower quartile counts.
        notice: is told before every measurement how far this is.

    Returns:
        What the file holds.

    Raises:
        MorphError: an argument is wrong, the runtime is not there, an operation cannot run in it, or the file cannot be
            written.

    Warns:
        UserWarning: what was measured twice differs by more than 10 %, in the median.
    """
    target = pathlib.Path(path)
    _check(target, batch_size=batch_size, points=points, networks=networks, repeats=repeats)
    chosen = find_runtime(runtime, dtype)
    graph = ChannelGraph.from_model(model)
    grids, steps = grids_of(graph, points), steps_of(graph)
    measured_on = {
        "machine": this_machine(),
        "device": device_name(),
        "runtime": runtime,
        "dtype": dtype,
        "batch_size": batch_size,
        "threads": threads(runtime),
        "versions": versions(),
        "model": f"{graph.name} ({graph.fingerprint})",
    }
    asked = {"points": points, "networks": networks, "repeats": repeats}
    record = Record(target, {**measured_on, **asked})
    run = _Run(graph, chosen, dtype, batch_size, repeats, record)
    try:
        run.measure(_measurements(grids, graph, networks, steps), notice or (lambda progress: None))
    except _CannotRun:
        # The same arguments would end here again, and others would be told that this record is not theirs.
        record.remove()
        raise
    except BaseException:
        record.save()
        raise
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    calibration = _fitted(
        target.stem, {**measured_on, "date": today}, graph, grids, steps, networks, record.milliseconds
    )
    write_whole(target, calibration.to_json().encode())
    record.remove()
    if advice := unsteady(calibration):
        warnings.warn(advice, stacklevel=2)
    read = read_calibration(target)
    assert isinstance(read, Calibration)
    return read


def described(calibration: Calibration) -> str:
    """What was measured, on what, and how well it repeats itself, in two lines."""
    on, worst = calibration.measured_on, calibration.repeatability
    return (
        f"Measured on {on['device']}: {on['runtime']}, {on['dtype']}, batch {on['batch_size']}, "
        f"{on['threads']} threads.\n"
        f"Measured twice, operations differ by {worst['entries']:.1%}, whole networks by {worst['networks']:.1%}."
    )


def unsteady(calibration: Calibration) -> str:
    """What to say of a calibration that does not repeat itself; "" of one that does."""
    worst = max(calibration.repeatability.values())
    if worst <= REPEATABLE:
        return ""
    return (
        f"Calibration '{calibration.name}' repeats itself only within {worst:.0%} (10 % is wanted): something else ran "
        "on this machine meanwhile. Measure again when it is quiet, with more repeats."
    )


def _check(target: pathlib.Path, **counts: int) -> None:
    if target.suffix != ".json":
        raise MorphError(f"A calibration file's name ends in .json, so that a cost can name it; received {target}.")
    check_name(target.stem)
    check_counts(**counts)


@dataclasses.dataclass(frozen=True)
class _Measurement:
    """Something to be timed: one call of a network (by its index), or all of it (None), at some widths."""

    key: str
    call: int | None
    widths: np.ndarray


def _measurements(
    grids: Sequence[Grid], graph: ChannelGraph, networks: int, steps: Sequence[Steps]
) -> list[_Measurement]:
    """All that is measured, in order; some of it twice."""
    points = [
        _Measurement(_key(number, point), grid.call, widths)
        for number, grid in enumerate(grids)
        for point, widths in enumerate(grid.widths)
    ]
    stepwise = [
        _Measurement(_step_key(number, width), one.call, one.of_all(graph, width))
        for number, one in enumerate(steps)
        for width in one.widths
    ]
    wholes = [_Measurement(f"network {number}", None, _widths(graph, number)) for number in range(networks)]
    count = min(len(points), max(_FEWEST_AGAIN, len(points) // _ONE_IN))
    # From the middle of each stretch: ends of the list are small networks' stems and heads.
    chosen = [points[int((place + 0.5) * len(points) / count)] for place in range(count)]
    again = [dataclasses.replace(one, key=_again(one.key)) for one in [*chosen, *wholes]]
    return [*points, *stepwise, *wholes, *again]


def _key(grid: int, point: int) -> str:
    return f"call {grid} {point}"


def _step_key(steps: int, width: int) -> str:
    return f"step {steps} {width}"


def _again(key: str) -> str:
    return f"{key} again"


def _widths(graph: ChannelGraph, number: int) -> np.ndarray:
    """The widths of whole network `number`: the seed's first, then random ones."""
    return graph.seed_widths if number == 0 else parts.random_widths(graph, number)


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """One calibration on its way."""

    graph: ChannelGraph
    runtime: Runtime
    dtype: str
    batch_size: int
    repeats: int
    record: Record

    def measure(self, measurements: Sequence[_Measurement], notice: Callable[[Progress], None]) -> None:
        """Time what is not in the record yet."""
        nothing = parts.empty()
        empty = self.runtime.compiled(nothing, [parts.random_inputs(nothing)])
        left = [one for one in measurements if one.key not in self.record.milliseconds]
        while left:
            notice(Progress(len(measurements) - len(left), len(measurements), self._name(left[0])))
            # Whole networks take their turns among themselves.
            alike = [one for one in left[:_IN_TURN] if (one.call is None) == (left[0].call is None)]
            stopwatch = Stopwatch(empty, self.repeats * (_NETWORK_REPEATS if alike[0].call is None else 1))
            copies = 1 if alike[0].call is None else self.runtime.copies
            calls = [self._compiled(one, copies) for one in alike]
            found = {
                one.key: milliseconds / copies
                for one, milliseconds in zip(alike, stopwatch.milliseconds(calls), strict=True)
            }
            self.record.add(found)
            left = [one for one in left if one.key not in found]
        notice(Progress(len(measurements), len(measurements), "done"))

    def _name(self, one: _Measurement) -> str:
        return "whole networks" if one.call is None else self.graph.trace.calls[one.call].name

    def _compiled(self, one: _Measurement, copies: int) -> Callable[[], object]:
        """What is to be timed, having run once."""
        try:
            if one.call is None:
                made = parts.whole(self.graph, one.widths, self.dtype, self.batch_size)
            else:
                made = parts.one_call(self.graph, one.call, one.widths, self.dtype, self.batch_size)
            call = self.runtime.compiled(made, [parts.random_inputs(made, seed) for seed in range(copies)])
            call()
        except MorphError as error:
            raise _CannotRun(str(error)) from error
        except Exception as error:
            kind = "" if one.call is None else f" ({self.graph.trace.calls[one.call].kind})"
            missing = lacking(str(error))
            reason = f"it has no operation {', '.join(missing)}" if missing else first_line(error).rstrip(".")
            raise _CannotRun(
                f"Runtime '{self.runtime.name}' cannot run {self._name(one)}{kind} in {self.dtype}: {reason}. Choose "
                "another runtime or dtype, or replace the layer."
            ) from error
        return call


# --- from measurements to a calibration -------------------------------------------------------------------------------


def _fitted(
    name: str,
    measured_on: dict,
    graph: ChannelGraph,
    grids: Sequence[Grid],
    steps: Sequence[Steps],
    networks: int,
    found: dict[str, float],
) -> Calibration:
    tables, estimates = [], {}
    # Calls without a grid are estimated from those that have one.
    facts: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    batch, size = measured_on["batch_size"], 2 if measured_on["dtype"] in ("bfloat16", "float16") else 4
    for number, grid in enumerate(grids):
        times = tuple(found[_key(number, point)] for point in range(len(grid.widths)))
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
            [
                (one, {width: found[_step_key(number, width)] for width in one.widths})
                for number, one in enumerate(steps)
            ]
        ),
    )
    return dataclasses.replace(calibration, shares=_shares(calibration, graph, networks, found))


def _repeatability(found: dict[str, float], kind: str) -> float:
    """The median of the relative differences between what was measured twice; 0 where nothing was."""
    pairs = [(found[key], found[_again(key)]) for key in found if key.startswith(kind) and _again(key) in found]
    return statistics.median([abs(a - b) / max((a + b) / 2, _LEAST_MS) for a, b in pairs]) if pairs else 0.0


def _estimate(rows: np.ndarray) -> Estimate:
    """Factors of GFLOPs, gigabytes and a constant, from rows of these two and milliseconds."""
    if not len(rows):
        return Estimate(0.0, 0.0, 0.0)
    times = np.maximum(rows[:, 2], _LEAST_MS)
    return Estimate(*_least_squares(np.column_stack([rows[:, :2], np.ones(len(rows))]), times))


def _shares(calibration: Calibration, graph: ChannelGraph, networks: int, found: dict[str, float]) -> Shares:
    """How much of the time that its calls take alone a network takes, for those with kernels and for the rest."""
    of_call = latency(calibration).of_call
    assert of_call is not None
    sums, times = [], []
    batch = calibration.measured_on["batch_size"]
    for number in range(networks):
        parts_of = {True: 0.0, False: 0.0}
        for call in graph.call_widths(_widths(graph, number).astype(float)):
            parts_of[is_work(call)] += float(of_call(call)) * batch
        sums.append((parts_of[True], parts_of[False]))
        # What else ran can only have made it slower.
        times.append(min(found[f"network {number}"], found[_again(f"network {number}")]))
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
