"""When a search looks: a callback of `fit` that takes a look at the cost every few steps.

Progress is the share of the whole search that is over, counted in epochs and steps of the number that `fit` was asked
for, so that it goes on where it was when a stopped search is continued at a later epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from .memory import Memory
from .recovery import Diverged, Recovery

# Steps between two looks at the cost; short searches look more often, so that there are enough of them to steer by.
_LOOK_EVERY, _LOOKS_AT_LEAST = 10, 100


class Looks(keras.callbacks.Callback):
    """Lets a search look at its cost while `fit` runs, and puts what it sees into everyone's logs.

    Args:
        memory: of the search.
        look: takes the progress, the step and the loss, and looks: `StructureSearch.update`.
        begin: takes the number of steps of the whole search, None while it is unknown.
        preface: lines to print when training starts.
        recovery: goes back to an earlier state when the search has diverged.
    """

    def __init__(
        self,
        memory: Memory,
        look: Callable[[float, int, float | None], Any],
        begin: Callable[[int | None], None],
        preface: Sequence[str],
        recovery: Recovery,
    ) -> None:
        super().__init__()
        self._memory = memory
        self._take_look = look
        self._begin = begin
        self._preface = preface
        self._recovery = recovery

    def on_train_begin(self, logs: dict | None = None) -> None:
        params: dict[str, Any] = self.params or {}
        self._epochs = max(params.get("epochs") or 1, 1)
        self._learn_length(params.get("steps") or self._memory.epoch_length)
        if self._length is None and self._epochs == 1:
            warnings.warn(
                "The data do not tell their length and epochs=1, so the search cannot follow a schedule: it shrinks at "
                "the very end only. Give fit steps_per_epoch=..., or more epochs.",
                stacklevel=2,
            )
        self._recovery.begin()
        for line in self._preface:
            print(line, flush=True)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._batch = epoch, 0
        self._looked_at = self._step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # With steps_per_execution, this is called once for several steps, the last time for more than there are.
        reached = min(batch + 1, self._length or batch + 1)
        taken, self._batch = reached - self._batch, reached
        self._memory.steps += taken
        length = self._length
        every = _LOOK_EVERY
        if length:
            every = max(1, min(_LOOK_EVERY, length * self._epochs // _LOOKS_AT_LEAST))
        if self._step // every > self._looked_at // every or not self._memory.seen:
            loss = (logs or {}).get("loss")
            within = self._batch / length if length else 0.0
            self._look((self._epoch + within) / self._epochs, None if loss is None else float(loss))
        if logs is not None:
            logs.update(self._memory.seen)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._length is None:
            self._learn_length(self._batch)
        loss = (logs or {}).get("loss")
        loss = None if loss is None else float(loss)
        if self._look((epoch + 1) / self._epochs, loss, all_weights=True):
            self._recovery.keep(loss)
        if logs is not None:
            logs.update(self._memory.seen)

    @property
    def _step(self) -> int:
        """Steps of the search so far; within the first epoch, when it is not known how long one is."""
        return self._epoch * (self._length or 0) + self._batch

    def _learn_length(self, steps: int | None) -> None:
        self._length = self._memory.epoch_length = steps or None
        self._begin(steps * self._epochs if steps else None)

    def _look(self, progress: float, loss: float | None, all_weights: bool = False) -> bool:
        """Whether the search was found well; if not, it is as it was when it was."""
        self._looked_at = self._step
        try:
            self._recovery.check(loss, self._memory.steps, all_weights)
            self._take_look(progress, self._memory.steps, loss)
        except Diverged as error:
            if progress >= 1:  # no step is left to do better
                raise
            self._recovery.roll_back(error)
            self._take_look(progress, self._memory.steps, None)
            return False
        return True
