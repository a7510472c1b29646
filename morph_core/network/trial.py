"""Running one layer on test data: what a probe asks of a layer that it knows nothing about."""

from __future__ import annotations

import functools
import inspect
import math
import time
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from .flows import Flow
from .trace import Ref

# Positions are tried on few places; a layer that only works at its true size is tried there, up to this many elements.
_PLACES, _LARGEST = 5, 1 << 22
# Of computing; waiting counts a sixth, so that a busy machine does not change what is found.
_SECONDS, _WAITING = 10.0, 6


class Doubt(Exception):
    """The probe cannot tell; the text says why."""


class Trial:
    """One layer under test, with random weights of its own, which it does not keep.

    Args:
        flow: the layer's call.
        axes: for each input, the axis of its channels; None for an input without any.
        output_axis: that of the output.

    Attributes:
        size: channels of the output.
        dtypes: of the inputs.
    """

    def __init__(self, flow: Flow, axes: list[int | None], output_axis: int) -> None:
        self.flow, self.axes, self.layer, self.output_axis = flow, axes, flow.layer, output_axis
        self.size = flow.output_shape[output_axis] or 0
        self.dtypes = flow.dtypes or ["float32"] * len(flow.inputs)
        self._rng = np.random.default_rng(0)
        self._deadline = time.process_time() + _SECONDS
        self._latest = time.monotonic() + _WAITING * _SECONDS

    @functools.cached_property
    def values(self) -> list[tuple[Any, Any]]:
        """The random weights, as pairs of variable and value."""
        return [(variable, self._random_like(variable)) for variable in getattr(self.layer, "variables", [])]

    def candidate_shapes(self) -> list[list[tuple[int, ...]]]:
        """Shapes of all inputs to try, batch included: with few places first, then the true ones."""
        small, true = [], []
        for axis, shape in zip(self.axes, self.flow.shapes, strict=True):
            last = len(shape) - 1 if axis is None else axis
            full = [size if size is not None else _PLACES for size in shape[1:]]
            true.append((2, *full))
            small.append((2, *(size if place == last else min(size, _PLACES) for place, size in enumerate(full, 1))))
        fitting = [shapes for shapes in (small, true) if sum(math.prod(shape) for shape in shapes) <= _LARGEST]
        return fitting[:1] if len(fitting) == 2 and fitting[0] == fitting[1] else fitting

    def inputs(self, shapes: list[tuple[int, ...]], scale: float, sign: float) -> list[np.ndarray]:
        """Random values for all inputs, each of its own type; numbers are of one sign (both for 0) and of some scale.

        Those of both signs are also small, and some are zero, so that both sides of a comparison are seen.
        """
        return [self._numbers(shape, kind, scale, sign) for shape, kind in zip(shapes, self.dtypes, strict=True)]

    def moved(self, values: np.ndarray, scale: float, sign: float) -> np.ndarray:
        """Other values of the same kind, each of them another one where there are but two."""
        return ~values if values.dtype == bool else self._numbers(values.shape, str(values.dtype), scale, sign)

    def _numbers(self, shape: tuple[int, ...], kind: str, scale: float, sign: float) -> np.ndarray:
        if kind == "bool":
            return self._rng.random(shape) < 0.5
        numbers = self._rng.uniform(0.2, 1.0, shape)
        if sign == 0:
            small = 10.0 ** self._rng.integers(-3, 1, shape) * (self._rng.random(shape) < 0.9)
            signs = np.sign(self._rng.normal(size=shape))
            numbers = numbers * np.where(self._rng.random(shape) < 0.5, small, 1.0) * signs
        else:
            numbers = numbers * sign
        if keras.backend.is_int_dtype(kind):
            return np.rint(10 * scale * (np.abs(numbers) if kind.startswith("u") else numbers)).astype(kind)
        return (scale * numbers).astype("float32")

    def _random_like(self, variable: Any) -> Any:
        if not keras.backend.is_float_dtype(variable.dtype):
            return variable.value
        return keras.ops.convert_to_tensor(self._rng.uniform(0.3, 1.0, tuple(variable.shape)).astype(variable.dtype))

    def run(self, inputs: list[np.ndarray], again: bool = False) -> np.ndarray:
        """The layer's output, with other random numbers when asked `again`, and nothing of that left behind."""
        return self.run_other(self.layer, inputs, self.values, again)

    def run_other(self, layer: Any, inputs: list[np.ndarray], values: list, again: bool = False) -> np.ndarray:
        """As `run`, for another layer that is called in the same way, with these values for its variables."""
        if time.process_time() > self._deadline or time.monotonic() > self._latest:
            raise Doubt(f"probing it takes longer than {_SECONDS:g} s")
        tensors = [keras.ops.convert_to_tensor(array) for array in inputs]
        args, kwargs = self.arguments(tensors)
        if isinstance(layer, keras.Layer) and "training" in inspect.signature(layer.call).parameters:
            kwargs = {**kwargs, "training": False}
        if again:
            # Integers are the states of random numbers: another state must not matter.
            values = [
                (variable, value + 1 if keras.backend.is_int_dtype(variable.dtype) else value)
                for variable, value in values
            ]
        with keras.StatelessScope(values):
            if again:
                keras.random.uniform((1,))
            return as_numpy(keras.tree.flatten(layer(*args, **kwargs))[0]).astype("float64")

    def arguments(self, tensors: list[Any]) -> tuple[tuple, dict]:
        """The call's arguments, with these tensors for its inputs."""
        numbers = dict(zip(self.flow.call.inputs, tensors, strict=True))
        return keras.tree.map_structure(
            lambda leaf: numbers[leaf.index] if isinstance(leaf, Ref) else leaf,
            (self.flow.call.args, self.flow.call.kwargs),
        )
