"""Optimizers for gates: two as one, the user's for the weights and the gate's own, and one that only observes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy


def split_between(
    inner: keras.optimizers.Optimizer, gate: keras.optimizers.Optimizer | None, gate_variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """An optimizer that leaves `gate_variables` to `gate` and all else to the user's, `inner`.

    A `LossScaleOptimizer` of the user's ends up outside: it must unscale the gradients of the gates, too, and look for
    overflow in all of them. Optimizers that are split already are taken apart first, so that a model can be compiled
    again with its own optimizer.

    Args:
        inner: the user's.
        gate: the gate's; None where a gate has nothing to learn of its own.
        gate_variables: what the gate's optimizer updates.
    """
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        within = inner.inner_optimizer
        split = split_between(within, gate, gate_variables)
        if split is within:
            return inner
        return keras.optimizers.LossScaleOptimizer(
            split, initial_scale=inner.initial_scale, dynamic_growth_steps=inner.dynamic_growth_steps, name=inner.name
        )
    while isinstance(inner, SplitOptimizer):
        inner = inner.inner
    return inner if gate is None else SplitOptimizer(inner, gate, gate_variables)


def users_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that `split_between` was given, or one of the same settings."""
    return split_between(optimizer, None, [])


class SplitOptimizer(keras.optimizers.Optimizer):
    """Hands each variable to the optimizer that is responsible for it.

    A gate learns at its own pace, whatever the network's optimizer and learning rate. To Keras, and to callbacks that
    set the learning rate or swap averaged weights in, this looks like the user's optimizer.

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
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not self.built:
            self.build(variables)
        mine, theirs = self._split(grads, variables)
        self.gate.apply(self._unscaled(mine), [variable for _, variable in mine])
        self.inner.apply([grad for grad, _ in theirs], [variable for _, variable in theirs])

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        values = {
            id(variable): value for variable, value in zip(self._trainable_variables, trainable_variables, strict=True)
        }
        # LossScaleOptimizer hands over variables, whose values its own scope knows, where others hand over values.
        state = {
            id(variable): value.value if isinstance(value, keras.Variable) else value
            for variable, value in zip(self.variables, optimizer_variables, strict=True)
        }
        mine, theirs = self._split(grads, self._trainable_variables)
        for optimizer, pairs, given in (
            (self.gate, mine, self._unscaled(mine)),
            (self.inner, theirs, [grad for grad, _ in theirs]),
        ):
            updated, held = optimizer.stateless_apply(
                [state[id(variable)] for variable in optimizer.variables],
                given,
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

    def _unscaled(self, pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
        """The gates' gradients without the user's constant loss scale, which `inner` takes out of its own."""
        scale = self.loss_scale_factor
        return [grad if scale is None or grad is None else grad / scale for grad, _ in pairs]

    @property
    def variables(self) -> list[Any]:
        return [*self._variables, *self.gate.variables, *self.inner.variables]

    def save_own_variables(self, store: Any) -> None:
        """Only what neither `inner` nor `gate` saves, which Keras visits by itself."""
        for index, variable in enumerate(self._variables):
            store[str(index)] = as_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])

    @property
    def learning_rate(self) -> Any:
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner.learning_rate = value

    @property
    def iterations(self) -> Any:
        return self.inner.iterations

    @property
    def loss_scale_factor(self) -> float | None:
        inner = getattr(self, "inner", None)
        return None if inner is None else inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, value: float | None) -> None:
        # Keras' constructor sets it before there is an `inner`, whose own it is; LossScaleOptimizer sets it later.
        if hasattr(self, "inner"):
            self.inner.loss_scale_factor = value

    @property
    def _model_variables_moving_average(self) -> list[Any]:
        """The average of each variable, as `SwapEMAWeights` reads it; that of a gate is the gate itself."""
        # Without averages the AttributeError of `inner` goes on, from which that callback knows.
        averages = iter(self.inner._model_variables_moving_average)
        return [
            variable if id(variable) in self._gate_keys else next(averages) for variable in self._trainable_variables
        ]

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

    def take_over(self, before: SquaredGradients, places: np.ndarray) -> None:
        """Takes the means of another one's only variable, from these places; 0 where a place is below 0.

        Both are built.
        """
        (mine,), (theirs,) = self._means, before._means
        mine.assign(np.where(places < 0, 0.0, as_numpy(theirs)[places]))
        self.iterations.assign(as_numpy(before.iterations))

    def get_config(self) -> dict[str, Any]:
        return {"decay": self.decay, "name": self.name}
