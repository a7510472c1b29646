"""How long calls take, on a machine that may have other things to do.

Calls are timed in turn, many short times each, and of each the lower quartile counts: what else runs on the machine can
only make a call slower, never faster. What an empty call takes is measured in the same turns, and left out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from .runtimes import Call

# A call shorter than this is timed several times at once, so that the clock's own resolution does not show.
_SHORTEST_SECONDS = 1e-3
_MOST_AT_ONCE = 200
_WARM_UP = 3
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
        timed = [self.empty, *calls]
        at_once = []
        for call in timed:
            for _ in range(_WARM_UP):
                call()
            at_once.append(max(1, min(_MOST_AT_ONCE, int(_SHORTEST_SECONDS / max(_seconds(call, 1), 1e-7)))))
        spent = np.array(
            [[_seconds(call, times) for call, times in zip(timed, at_once, strict=True)] for _ in range(self.repeats)]
        )
        nothing, *found = np.quantile(spent, _QUANTILE, axis=0)
        return [1e3 * max(0.0, float(seconds - nothing)) for seconds in found]


def _seconds(call: Call, times: int) -> float:
    """Of one call, timed several at once, after one that brings what it needs into the caches."""
    call()
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times
