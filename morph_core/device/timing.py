"""Timing: what a calibration measures, in which order, and what is compared within the same seconds."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..cost.costs import elements_moved, flops
from ..errors import MorphError, first_line
from ..network.graph import ChannelGraph
from . import parts
from .grid import Grid
from .record import Record
from .runtimes import Call, Runtime, lacking
from .steps import Steps
from .stopwatch import LEAST_MS, stopwatch_of

# The least that is measured a second time, to tell the repeatability, and one in how many.
_FEWEST_AGAIN, _ONE_IN = 8, 12
# What is timed in turn is made ready first. A stretch of it ends when so much is held, or so long was spent on it: that
# is what a run that is killed can lose.
_HELD_BYTES, _STRETCH_SECONDS = 1 << 30, 300.0
# Whole networks that are timed in every stretch, to tell how fast the machine is in each.
_PACERS = (0, 1)
# Ends the keys of what is measured a second time.
_AGAIN = " again"


class CannotRun(MorphError):
    """An operation of the network cannot be measured like this, however often it is tried."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a calibration is: `done` of `total` measurements are ready to be timed, or were; `what` comes next."""

    done: int
    total: int
    what: str


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Something to be timed: one call of a network (by its index), or all of it (None), at some widths.

    Attributes:
        key: of its milliseconds in a record.
        call: the index of the call.
        widths: of all groups, int array (groups,).
    """

    key: str
    call: int | None
    widths: np.ndarray

    @property
    def is_again(self) -> bool:
        return self.key.endswith(_AGAIN)


def measurements(
    grids: Sequence[Grid], graph: ChannelGraph, networks: int, steps: Sequence[Steps]
) -> list[Measurement]:
    """All that is measured, in order; some of it twice."""
    points = [
        Measurement(point_key(number, point), grid.call, widths)
        for number, grid in enumerate(grids)
        for point, widths in enumerate(grid.widths)
    ]
    stepwise = [
        Measurement(step_key(number, width), one.call, one.of_all(graph, width))
        for number, one in enumerate(steps)
        for width in one.widths
    ]
    wholes = [Measurement(f"network {number}", None, widths_of_network(graph, number)) for number in range(networks)]
    count = min(len(points), max(_FEWEST_AGAIN, len(points) // _ONE_IN))
    # From the middle of each stretch: ends of the list are small networks' stems and heads.
    chosen = [points[int((place + 0.5) * len(points) / count)] for place in range(count)]
    again = [dataclasses.replace(one, key=again_key(one.key)) for one in [*chosen, *wholes]]
    return [*points, *stepwise, *wholes, *again]


def point_key(grid: int, point: int) -> str:
    return f"call {grid} {point}"


def step_key(steps: int, width: int) -> str:
    return f"step {steps} {width}"


def again_key(key: str) -> str:
    return f"{key}{_AGAIN}"


def widths_of_network(graph: ChannelGraph, number: int) -> np.ndarray:
    """The widths of whole network `number`: the seed's first, then random ones."""
    return graph.seed_widths if number == 0 else parts.random_widths(graph, number)


@dataclasses.dataclass(frozen=True, eq=False)
class Timing:
    """How a calibration times what it measures.

    Attributes:
        graph: of the network.
        runtime: that runs what is timed.
        dtype: in which that computes.
        batch_size: of its inputs.
        repeats: how often each is timed; the lower quartile counts.
        record: holds what was timed, now and before.
    """

    graph: ChannelGraph
    runtime: Runtime
    dtype: str
    batch_size: int
    repeats: int
    record: Record

    def measure(self, measurements: Sequence[Measurement], notice: Callable[[Progress], None]) -> None:
        """Time what is not in the record yet.

        A machine is not equally fast from one minute to the next, and what is compared has to be timed in the same one.
        So everything is made ready first, which takes minutes, and then timed in turn, which takes seconds. Where one
        such stretch cannot hold everything, whole networks that are timed in each tell how fast the machine was.

        Args:
            measurements: in the order in which they are timed.
            notice: is told before each is made ready how far this is.

        Raises:
            CannotRun: the runtime does not run one of them.
        """
        left = [one for one in measurements if one.key not in self.record.milliseconds]
        stopwatch = stopwatch_of(self.runtime, self.repeats)
        pacers: dict[str, Call] = {}
        while left:
            stretch: list[Measurement] = []
            operations: dict[str, Call] = {}
            networks: dict[str, Call] = {}
            for one in self._stretch(left):
                done = len(measurements) - len(left) + len(stretch)
                notice(Progress(done, len(measurements), self._name(one)))
                (networks if one.call is None else operations)[one.key] = self._compiled(one)
                stretch.append(one)
            left = left[len(stretch) :]
            # Only now: a layer that cannot run is named by its own measurement.
            pacers = pacers or self._pacers()
            done = len(measurements) - len(left)

            def in_turn(turn: int, done: int = done) -> None:
                notice(Progress(done, len(measurements), f"all that is ready, in turn {turn + 1} of {self.repeats}"))

            groups = [operations, pacers | networks]
            each = stopwatch.milliseconds_of_groups([list(group.values()) for group in groups], in_turn)
            times = dict(zip(itertools.chain(*groups), itertools.chain(*each), strict=True))
            paces = {key: times[key] for key in pacers}
            # What is measured again tells how far the machine is from itself, its pace included.
            pace = 1.0 if stretch[0].is_again else _pace(paces, self.record.milliseconds)
            found = {one.key: times[one.key] / self._copies(one) / pace for one in stretch}
            self.record.add({**found, **paces, **self.record.milliseconds})
        notice(Progress(len(measurements), len(measurements), "done"))

    def _pacers(self) -> dict[str, Call]:
        made = [Measurement(f"pacer {number}", None, widths_of_network(self.graph, number)) for number in _PACERS]
        return {one.key: self._compiled(one) for one in made}

    def _stretch(self, left: Sequence[Measurement]) -> Iterator[Measurement]:
        """What is made ready before it is timed; to be asked for the next one when one is ready."""
        started, held = time.monotonic(), 0.0
        for one in left:
            full = held > _HELD_BYTES or time.monotonic() - started > _STRETCH_SECONDS
            if one is not left[0] and (full or one.is_again != left[0].is_again):
                return
            held += self._bytes(one)
            yield one

    def _bytes(self, one: Measurement) -> float:
        """What it reads and writes when it runs, its weights among that."""
        calls = self.graph.call_widths(one.widths.astype(float))
        chosen = calls if one.call is None else [calls[one.call]]
        return sum(float(elements_moved(call, flops(call))) for call in chosen) * 4 * self.batch_size

    def _copies(self, one: Measurement) -> int:
        return 1 if one.call is None else self.runtime.copies

    def _name(self, one: Measurement) -> str:
        return "whole networks" if one.call is None else self.graph.trace.calls[one.call].name

    def _compiled(self, one: Measurement) -> Call:
        """What is to be timed, having run once."""
        try:
            if one.call is None:
                made = parts.whole(self.graph, one.widths, self.dtype, self.batch_size)
            else:
                made = parts.one_call(self.graph, one.call, one.widths, self.dtype, self.batch_size)
            call = self.runtime.compiled(made, [parts.random_inputs(made, seed) for seed in range(self._copies(one))])
            call()
        except MorphError as error:
            raise CannotRun(str(error)) from error
        except Exception as error:
            kind = "" if one.call is None else f" ({self.graph.trace.calls[one.call].kind})"
            missing = lacking(str(error))
            reason = f"it has no operation {', '.join(missing)}" if missing else first_line(error).rstrip(".")
            raise CannotRun(
                f"Runtime '{self.runtime.name}' cannot run {self._name(one)}{kind} in {self.dtype}: {reason}. Choose "
                "another runtime or dtype, or replace the layer."
            ) from error
        return call


def _pace(times: Mapping[str, float], first: Mapping[str, float]) -> float:
    """How much longer the same networks take than in the first stretch."""
    ratios = [max(times[key], LEAST_MS) / max(first.get(key, times[key]), LEAST_MS) for key in times]
    return statistics.geometric_mean(ratios)
