"""Optimizers for gates: two as one, the user's for the weights and the gate's own, and one that only observes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from .arrays import as_numpy


class SplitOptimizer(keras.optimizers.Optimizer):
    """Hands each variable to the optimizer that is responsible for it.

    A gate learns at its own pace, whatever the network's optimizer and learning rate. To Keras, and to callbacks that
    set the learning rate, this looks like the user's optimizer.

    Args:
        inner: the user's optimizer.
        gate: the gate's optimizer.
        gate_variables: what the gate's optimizer updates; all else is the user's.
    """

    def __init__(
        self, inner: keras.optimizers.Optimizer, gate: keras.optimizers.Optimizer, gate_variables: Sequence[Any]
    ):
        super().__init__(learning_rate=0.0, name="split_optimizer")
        self.inner = inner
        self.gate = gate
        # By id: Keras would take variables kept here for the optimizer's own state, and JAX then sees them twice.
        self._gate_keys = {id(variable) for variable in gate_variables}

    def build(self, variables: Sequence[Any]) -> None:
        mine, theirs = self._split(variables, variables)
        self.gate.build([variable for _, variable in mine])
        self.inner.build([variable for _, variable in theirs])
        super().build(variables)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        if not self.built:
            self.build(variables)
        mine, theirs = self._split(grads, variables)
        self.gate.apply([grad for grad, _ in mine], [variable for _, variable in mine])
        self.inner.apply([grad for grad, _ in theirs], [variable for _, variable in theirs])

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        values = {
            id(variable): value for variable, value in zip(self._trainable_variables, trainable_variables, strict=True)
        }
        state = {id(variable): value for variable, value in zip(self.variables, optimizer_variables, strict=True)}
        mine, theirs = self._split(grads, self._trainable_variables)
        for optimizer, pairs in ((self.gate, mine), (self.inner, theirs)):
            updated, held = optimizer.stateless_apply(
                [state[id(variable)] for variable in optimizer.variables],
                [grad for grad, _ in pairs],
                [values[id(variable)] for _, variable in pairs],
            )
            values.update({id(variable): value for (_, variable), value in zip(pairs, updated, strict=True)})
            state.update({id(variable): value for variable, value in zip(optimizer.variables, held, strict=True)})
        return (
            [values[id(variable)] for variable in self._trainable_variables],
            [state[id(variable)] for variable in self.variables],
        )

    def _split(self, items: Sequence[Any], variables: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        pairs = list(zip(items, variables, strict=True))
        mine = [pair for pair in pairs if id(pair[1]) in self._gate_keys]
        return mine, [pair for pair in pairs if id(pair[1]) not in self._gate_keys]

    @property
    def variables(self) -> list[Any]:
        return [*self._variables, *self.gate.variables, *self.inner.variables]

    @property
    def learning_rate(self) -> Any:
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner.learning_rate = value

    @property
    def iterations(self) -> Any:
        return self.inner.iterations

    def scale_loss(self, loss: Any) -> Any:
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        self.inner.finalize_variable_values([variable for variable in var_list if id(variable) not in self._gate_keys])

    def get_config(self) -> dict[str, Any]:
        return self.inner.get_config()


class SquaredGradients(keras.optimizers.Optimizer):
    """Leaves variables as they are and keeps the running mean of their squared gradients.

    Args:
        decay: of the running mean, per step.
    """

    def __init__(self, decay: float = 0.98, name: str = "squared_gradients") -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.decay = decay

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        self._means = [self.add_variable_from_reference(variable, name="mean") for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        mean: Any = self._means[self._get_variable_index(variable)]
        square = keras.ops.square(keras.ops.cast(gradient, mean.dtype))
        self.assign(mean, self.decay * mean + (1 - self.decay) * square)

    def means(self, variable: Any) -> np.ndarray:
        """The running mean for a variable; zeros before the first step."""
        if not self.built:
            return np.zeros(tuple(variable.shape))
        return as_numpy(self._means[self._get_variable_index(variable)]).astype(float)

    def get_config(self) -> dict[str, Any]:
        return {"decay": self.decay, "name": self.name}
