"""Calibrations made up for tests, by which a GFLOP takes a second."""

from typing import Any

import pytest

import morph_core as morph
from morph_core.cost import costs
from morph_core.cost.calibration import Estimate, Shares
from morph_core.cost.machine import this_machine
from morph_core.device.stopwatch import Stopwatch

WIDTHS_OF_4 = {"1": 0.5, "2": 0.5, "4": 0.0, "8": 0.0, "16": 0.0}
"""The waste of a device that wants multiples of 4."""


def calibration(name: str, machine: str = "", batch_size: int = 1, **changes: Any) -> morph.Calibration:
    """One that was measured on this machine, or on another; `changes` are of its fields."""
    measured_on = {
        "machine": machine or this_machine(),
        "device": "made up", "runtime": "tf.function", "dtype": "float32", "batch_size": batch_size, "threads": 1,
        "versions": {}, "date": "2026-11-21", "model": "none",
    }  # fmt: skip
    fields: dict[str, Any] = {
        "measured_on": measured_on,
        "repeatability": {"entries": 0.0, "networks": 0.0},
        "kernels": Estimate(1000.0, 0.0, 0.0),
        "rest": Estimate(0.0, 0.0, 0.0),
        "shares": Shares(1.0, 1.0),
        "tables": (),
        "waste": {},
    }
    return morph.Calibration(name=name, **{**fields, **changes})


def forget_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a calibration is another machine's is told once in a process: let it be told again."""
    monkeypatch.setattr(costs, "_told", set())


def timed_by(monkeypatch, pace_of):
    """Takes what a call returns for its milliseconds, times what `pace_of()` says of the machine.

    Returns:
        How many calls each stretch has timed, which grows.
    """
    stretches = []

    def milliseconds(self, groups, notice):
        notice(0)
        stretches.append(sum(map(len, groups)))
        return [[pace_of() * call() for call in group] for group in groups]

    monkeypatch.setattr(Stopwatch, "milliseconds_of_groups", milliseconds)
    return stretches
