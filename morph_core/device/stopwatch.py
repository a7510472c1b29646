"""How long calls take, on a machine that may have other things to do.

Calls are timed in turn, many short times each, and of each the lower quartile counts: what else runs on the machine can
only make a call slower, never faster. What an empty call takes is measured in the same turns, and left out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from . import parts
from .runtimes import Call, Runtime

# What is compared by its share counts as no shorter than this.
LEAST_MS = 1e-3
# A call shorter than this is timed several times at once, so that the clock's own resolution does not show.
_SHORTEST_SECONDS = 1e-3
_MOST_AT_ONCE = 200
_WARM_UP = 3
# So many calls of a group run before the first of them is timed in a turn.
_RUN_UP = 8
_QUANTILE = 0.25


@dataclasses.dataclass(frozen=True)
class Stopwatch:
    """Times calls against an empty one.

    Attributes:
        empty: what does nothing but being called.
        repeats: how often each call is timed.
    """

    empty: Call
    repeats: int

    def milliseconds(self, calls: Sequence[Call]) -> list[float]:
        """Of each call, less an empty one: 0 when the difference is lost in the noise."""
        return self.milliseconds_of_groups([calls])[0]

    def milliseconds_of_groups(
        self, groups: Sequence[Sequence[Call]], notice: Callable[[int], None] = lambda turn: None
    ) -> list[list[float]]:
        """Of each call of each group, less an empty one.

        How long a call takes depends on what ran before it: threads that small operations leave asleep make the first
        large networks after them slower. So a call is timed among those of its own group, in another order in each
        turn, and all groups in each turn. Before each turn `notice` is told how many are done.
        """
        timed = [[self.empty, *group] for group in groups]
        at_once = [[_at_once(call) for call in group] for group in timed]
        rng = np.random.default_rng(0)
        spent = [np.zeros((self.repeats, len(group))) for group in timed]
        for turn in range(self.repeats):
            notice(turn)
            for group, times, seconds in zip(timed, at_once, spent, strict=True):
                order = rng.permutation(len(group))
                for place in order[-_RUN_UP:]:
                    group[place]()
                for place in order:
                    seconds[turn, place] = _seconds(group[place], times[place])
        found = []
        for seconds in spent:
            nothing, *each = np.quantile(seconds, _QUANTILE, axis=0)
            found.append([1e3 * max(0.0, float(one - nothing)) for one in each])
        return found


def stopwatch_of(runtime: Runtime, repeats: int) -> Stopwatch:
    """A stopwatch for what this runtime runs; its empty call is one of that runtime."""
    nothing = parts.empty()
    return Stopwatch(runtime.compiled(nothing, [parts.random_inputs(nothing)]), repeats)


def _at_once(call: Call) -> int:
    """How many calls are timed as one."""
    for _ in range(_WARM_UP):
        call()
    return max(1, min(_MOST_AT_ONCE, int(_SHORTEST_SECONDS / max(_seconds(call, 1), 1e-7))))


def _seconds(call: Call, times: int) -> float:
    """Of one call, timed several at once, after one that brings what it needs into the caches."""
    call()
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times
