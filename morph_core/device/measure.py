"""What a network takes on this device, by the clock: the check of what a calibration has promised."""

from __future__ import annotations

import dataclasses
import statistics
import time

import keras

from ..cost.calibration import Calibration
from ..cost.costs import latency
from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..structure.structure import MEASURED_LATENCY, Structure
from . import parts
from .runtimes import find_runtime
from .stopwatch import stopwatch_of

_TURNS, _LEAST_REPEATS, _MOST_REPEATS = 3, 30, 3000
# What a turn takes, unless that is more or fewer repeats: so long that what runs beside it for a moment does not show.
_TURN_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """Milliseconds for one example, of a seed and of a structure.

    Attributes:
        predicted: what the calibration says of the structure.
        structure: the same by the clock, the median of several turns.
        seed: the seed's, by the clock.
        repeatability: how far turns are apart, as a share of the median: the larger of seed's and structure's.
        on: runtime, number format, batch size and machine.
    """

    predicted: float
    structure: float
    seed: float
    repeatability: float
    on: str

    def noted_in(self, structure: Structure) -> Structure:
        """The structure with this among its settings, from where reports take it."""
        noted = {
            "predicted_ms": self.predicted,
            "measured_ms": self.structure,
            "seed_ms": self.seed,
            "repeatability": self.repeatability,
            "on": self.on,
        }
        return dataclasses.replace(structure, settings={**structure.settings, MEASURED_LATENCY: noted})


def measure(model: keras.Model, structure: Structure, calibration: Calibration) -> Measured:
    """Time the seed and the network of a structure, as the calibration was measured: same runtime, dtype, batch size.

    Args:
        model: the seed. Weights do not matter.
        structure: of that seed.
        calibration: made on this machine.

    Raises:
        MorphError: the calibration is of another machine, or its runtime is not there.
    """
    if elsewhere := calibration.elsewhere():
        raise MorphError(f"{elsewhere} A measurement here would say nothing about it.")
    how = calibration.measured_on
    runtime, batch = find_runtime(how["runtime"], how["dtype"]), how["batch_size"]
    graph = ChannelGraph.from_model(model)
    calls = []
    for widths in (graph.seed_widths, structure.widths_in(graph)):
        made = parts.whole(graph, widths, how["dtype"], batch)
        calls.append(runtime.compiled(made, [parts.random_inputs(made)]))
    stopwatch = stopwatch_of(runtime, _LEAST_REPEATS)
    started = time.monotonic()
    stopwatch.milliseconds(calls)
    repeats = int(_TURN_SECONDS / (time.monotonic() - started + 1e-6) * _LEAST_REPEATS)
    stopwatch = dataclasses.replace(stopwatch, repeats=min(max(repeats, _LEAST_REPEATS), _MOST_REPEATS))
    turns = list(zip(*(stopwatch.milliseconds(calls) for _ in range(_TURNS)), strict=True))
    seed, small = (statistics.median(times) for times in turns)
    apart = [(max(times) - min(times)) / max(statistics.median(times), 1e-9) for times in turns]
    return Measured(
        predicted=float(graph.cost(latency(calibration), structure)),
        structure=small / batch,
        seed=seed / batch,
        repeatability=max(apart),
        on=f"{how['runtime']}, {how['dtype']}, batch {batch}, {how['device']}",
    )
