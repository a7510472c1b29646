"""A search that diverges goes back to where it was well, with a lower learning rate, a few times and no more.

At the start and after each epoch that went well, a copy of all variables is kept, with what the search knows beside
them. When weights or gates are no numbers any more, or (under a budget) the loss has exploded, the copy is put back,
the learning rate divided by four, and the same `fit` goes on from there: at most the steps of one epoch are lost, and
the schedule stays where it is. What is wrong with the data comes back with every step, so after three times the search
gives up.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from ..errors import MorphError
from .checkpoint import distribution_scope
from .memory import Memory

MOST_ROLLBACKS = 3
_SLOWER = 0.25
# Of the loss of the last good epoch, and of 1 where that is less. Spikes from which a training comes back are smaller.
_EXPLODED = 100.0


class Diverged(MorphError):
    """A training whose numbers are none any more, or whose loss has exploded."""


@keras.saving.register_keras_serializable("morph_core")
class Slowed(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule with all its rates multiplied by a factor.

    Args:
        schedule: the user's.
        factor: above 0.
    """

    def __init__(self, schedule: Any, factor: float) -> None:
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: Any) -> Any:
        return self.factor * self.schedule(step)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Slowed:
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["factor"])


class Recovery:
    """Keeps the last good state of a search in one call of `fit`, and goes back to it.

    Args:
        search: compiled; with `memory` and `remember`.
        memory: of that search.
        is_task: whether the loss that is reported is that of the task alone. What channels cost may grow by any factor
            as their price comes, and is no explosion.
    """

    def __init__(self, search: Any, memory: Memory, is_task: bool) -> None:
        self._search, self._memory, self._is_task = search, memory, is_task
        self._kept: tuple[list[np.ndarray], dict[str, Any]] | None = None
        self._good_loss: float | None = None
        self._numbers: list[Any] = []

    def begin(self) -> None:
        """Keeps the state that `fit` begins with; a continued search goes on as slowly as it had become."""
        optimizer = self._search.optimizer
        with distribution_scope(self._search.seed):
            if not optimizer.built:
                optimizer.build(self._search.trainable_variables)
        rate = _users(optimizer)._learning_rate
        if self._memory.rollbacks and not isinstance(rate, keras.Variable | Slowed):
            self._slow_down(0)
        # A constant of the user's, such as a mask, may be infinite from the start.
        self._numbers = [weight for weight in self._search.seed.weights if np.isfinite(_floats(weight)).all()]
        self.keep()

    def keep(self, loss: float | None = None) -> None:
        """Keeps the state as it is now, if it is good: nothing is kept of an epoch whose loss is no number."""
        if loss is not None and not math.isfinite(loss):
            return
        self._good_loss = self._good_loss if loss is None else loss
        self._kept = [as_numpy(variable).copy() for variable in self._variables()], self._search.memory()

    def check(self, loss: float | None, step: int, all_weights: bool) -> None:
        """Raises Diverged when the loss has exploded since the last good epoch.

        Args:
            loss: the mean of the epoch so far.
            step: of the search, for what is said.
            all_weights: whether to look at every weight: a network that normalises may answer well with some that are
                no numbers any more.
        """
        for weight in self._numbers if all_weights else ():
            if not np.isfinite(_floats(weight)).all():
                raise Diverged(
                    f"The search diverged before step {step}: the weights '{weight.path}' are not numbers any more. "
                    "Lower the learning rate, clip gradients (clipnorm), or check the data for NaN."
                )
        if loss is None or not math.isfinite(loss) or not self._is_task:
            return
        if self._good_loss is None:
            self._good_loss = loss
        limit = _EXPLODED * max(abs(self._good_loss), 1.0)
        if abs(loss) > limit:
            raise Diverged(
                f"The search diverged before step {step}: the loss has exploded from {self._good_loss:.4g} to "
                f"{loss:.4g}. Lower the learning rate, clip gradients (clipnorm), or check the data for outliers."
            )

    def roll_back(self, error: Diverged) -> None:
        """Goes back to the state that was kept, with a lower learning rate, and says so.

        Args:
            error: what has happened.

        Raises:
            Diverged: it has happened too often; the error, with what was tried.
        """
        if self._kept is None:
            raise error
        tried = self._memory.rollbacks
        if tried >= MOST_ROLLBACKS:
            raise Diverged(
                f"{error} It was rolled back {tried} times, each time with a quarter of the learning rate, and "
                "diverged again."
            ) from error
        arrays, memory = self._kept
        for variable, array in zip(self._variables(), arrays, strict=True):
            variable.assign(array)
        # What was seen and decided goes back as well; how many steps were taken does not, nor what was said.
        steps, incidents = self._memory.steps, list(self._memory.incidents)
        self._search.remember(memory)
        self._memory.steps, self._memory.incidents = steps, incidents
        self._memory.rollbacks = tried + 1
        self._slow_down(memory["rollbacks"])
        self._search.reset_metrics()
        self._memory.tell(
            f"{str(error).partition(' Lower the')[0]} The search goes back to its last good state, with the learning "
            f"rate times {_SLOWER:g} ({tried + 1} of at most {MOST_ROLLBACKS} times)."
        )

    def _slow_down(self, already: int) -> None:
        """Makes the learning rate what it is after so many rollbacks.

        Args:
            already: how many of them are in the value of its variable, which went back with all others.
        """
        optimizer = _users(self._search.optimizer)
        rate = optimizer._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            schedule = rate.schedule if isinstance(rate, Slowed) else rate
            optimizer.learning_rate = Slowed(schedule, _SLOWER**self._memory.rollbacks)
            self._search.make_train_function(force=True)  # the old schedule is part of the traced step
        elif isinstance(rate, keras.Variable):
            optimizer.learning_rate = float(as_numpy(rate)) * _SLOWER ** (self._memory.rollbacks - already)
        # Else it is a function of the user's, which nobody but the user can slow down.

    def _variables(self) -> list[Any]:
        return [*self._search.variables, *self._search.optimizer.variables]


def _floats(weight: Any) -> np.ndarray:
    """A weight's values; of a state of whole numbers, none."""
    return as_numpy(weight) if keras.backend.is_float_dtype(weight.dtype) else np.zeros(0)


def _users(optimizer: Any) -> Any:
    """The optimizer that the user gave, inside of what a search wraps around it; not a copy."""
    while True:
        inner = getattr(optimizer, "inner_optimizer", None) or getattr(optimizer, "inner", None)
        if inner is None:
            return optimizer
        optimizer = inner
