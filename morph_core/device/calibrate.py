"""Measuring what a network's operations take on this device, and writing it down as a calibration file.

Each operation is timed by itself at several widths (`grid`), and a few whole networks of random widths are timed to
learn how much of that time is left when the operations stand in a network (`timing` times, `fitting` learns).
"""

from __future__ import annotations

import datetime
import os
import pathlib
import warnings
from collections.abc import Callable

import keras

from ..cost.calibration import Calibration
from ..cost.devices import read_calibration
from ..cost.machine import this_machine
from ..errors import MorphError
from ..files import write_whole
from ..network.graph import ChannelGraph
from .fitting import fitted
from .grid import grids_of
from .record import Record
from .request import check_counts, check_name
from .runtimes import device_name, find_runtime, threads, versions
from .steps import steps_of
from .timing import CannotRun, Progress, Timing, measurements

# Worse than this, and more runs are asked for.
REPEATABLE = 0.10


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

    All that is compared is made ready, which takes minutes, and then timed in turn within seconds, so that a machine
    that is slower at times does not tell one width from another. What was timed is kept: a run that was killed goes on
    from there when it is started again with the same arguments, and loses five minutes at most.

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
    # The last tells records apart from those of a dozen operations at a time, whose times are of other minutes.
    asked = {"points": points, "networks": networks, "repeats": repeats, "timed": "in turn"}
    record = Record(target, {**measured_on, **asked})
    timing = Timing(graph, chosen, dtype, batch_size, repeats, record)
    try:
        timing.measure(measurements(grids, graph, networks, steps), notice or (lambda progress: None))
    except CannotRun:
        # The same arguments would end here again, and others would be told that this record is not theirs.
        record.remove()
        raise
    except BaseException:
        record.save()
        raise
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    calibration = fitted(
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
