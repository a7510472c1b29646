"""What a search remembers beside its variables, so that a stopped one goes on where it was.

Variables are Keras' to save. What is none of them, the schedule, the gate's own numbers and the trajectory, is written
as JSON beside them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from .controller import Controller
from .gates import Gate

_LONGEST_TRAJECTORY = 2000


@dataclasses.dataclass
class Memory:
    """What a search has seen so far.

    Attributes:
        trajectory: what was seen at each look, as in `Structure.trajectory`.
        steps: training steps taken.
        seen: what the last look saw, for the logs of `fit`.
        widths: open channels of each group that can be pruned, at the last look.
        epoch_length: steps of an epoch, once they are known.
        rollbacks: how often the search has gone back to an earlier state because it diverged.
        all_closed: whether it was said that no channel is left open.
        incidents: sentences on what went wrong and what was done about it.
    """

    trajectory: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    steps: int = 0
    seen: dict[str, float] = dataclasses.field(default_factory=dict)
    widths: dict[str, int] = dataclasses.field(default_factory=dict)
    epoch_length: int | None = None
    rollbacks: int = 0
    all_closed: bool = False
    incidents: list[str] = dataclasses.field(default_factory=list)

    def tell(self, incident: str) -> None:
        """Keep a sentence on what went wrong, and warn of it."""
        self.incidents.append(incident)
        warnings.warn(incident, stacklevel=2)

    def record(self, row: dict[str, Any]) -> None:
        """Add a point to the trajectory, unless it is as long as anybody reads."""
        if len(self.trajectory) < _LONGEST_TRAJECTORY:
            self.trajectory.append(row)


def as_json(memory: Memory, controller: Controller | None, gate: Gate) -> dict[str, Any]:
    """All that a search knows and that is no variable, of kinds that JSON has."""
    return {
        "controller": None if controller is None else _plain(vars(controller)),
        "gate": _plain({name: getattr(gate, name) for name in gate.remembered}),
        "trajectory": list(memory.trajectory),
        "steps": memory.steps,
        "epoch_length": memory.epoch_length,
        "seen": dict(memory.seen),
        "rollbacks": memory.rollbacks,
        "all_closed": memory.all_closed,
        "incidents": list(memory.incidents),
    }


def take_up(told: Mapping[str, Any], memory: Memory, controller: Controller | None, gate: Gate) -> None:
    """Puts what `as_json` told, in this process or an earlier one, into a search of the same arguments."""
    if controller is not None:
        _assign(controller, told["controller"])
    _assign(gate, told["gate"])
    memory.trajectory = [dict(row) for row in told["trajectory"]]
    memory.steps = int(told["steps"])
    memory.epoch_length, memory.seen = told["epoch_length"], dict(told["seen"])
    # Files of an earlier version do not have them.
    memory.rollbacks, memory.incidents = int(told.get("rollbacks", 0)), list(told.get("incidents", ()))
    memory.all_closed = bool(told.get("all_closed", False))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for name, value in values.items()
    }


def _assign(target: Any, values: Mapping[str, Any]) -> None:
    """Sets attributes to what `_plain` made of them."""
    for name, value in values.items():
        setattr(target, name, np.array(value) if isinstance(value, list) else value)
