"""Where gates sit in a training step: at scales of BatchNormalization wherever that is the same, else at the consumers.

A closed gate must be felt where channels are mixed (see `gating`). But when all that a BatchNormalization makes reaches
those layers through operations that are positively homogeneous, such as ReLU, pooling and sums of such tensors, a gate
on its scale and offset gives the same outputs and the same gradients: `z relu(x) = relu(z x)` for every z >= 0. It is
then a product of two short vectors, where a product with a kernel or an input is one more tensor to keep for the
gradient, and one more operation for each layer. The rows of the table say what is homogeneous (`Rule.scales`); this
file only follows tensors.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import weight_of
from .gating import INPUT_AXES, STATISTICS, Gated, gated_axes
from .graph import ChannelGraph


class Placement:
    """Where each call of a network feels the gates.

    All products with scales are one product of two vectors, and all gates are gathered at once, so that a training step
    does not get more operations with each layer.

    Args:
        graph: of the network.
        at_scales: gate at scales of BatchNormalization where that is the same; else at consumers only.
    """

    def __init__(self, graph: ChannelGraph, at_scales: bool) -> None:
        self._calls = graph.trace.calls
        norms = [at_scales and _has_scale(graph, index) for index in range(len(self._calls))]
        scaled = _gated_at_scales(graph, norms)
        # Calls, attribute paths, and the unit of each channel along the axis that is gated.
        self._scales: list[tuple[int, str, np.ndarray]] = []
        self._factors: list[tuple[int, str, np.ndarray]] = []
        for index, call in enumerate(self._calls):
            axes, rule = graph.axes[index], graph.rules[index]
            felt = ~scaled[list(call.inputs)].any(axis=0)
            if norms[index]:
                units = _only(graph, axes["out"], scaled[call.outputs[0]])
                self._scales += [
                    (index, path, units) for path in ("gamma", "beta") if weight_of(call.layer, path) is not None
                ]
            elif rule.masked is not None:
                self._factors.append((index, STATISTICS, axes.get("out", np.zeros(0, dtype=np.int64))))
            else:
                self._factors += [
                    (index, path, _only(graph, axes[axis], felt) if axis in INPUT_AXES else axes[axis])
                    for path, axis in gated_axes(graph, index).items()
                ]
        self._scales = [place for place in self._scales if (place[2] >= 0).any()]
        self._factors = [place for place in self._factors if (place[2] >= 0).any()]

    def gated(self, gates: Any) -> list[Gated]:
        """What the gates, a tensor (units,), make of each call."""
        # Channels of no group, -1, have 1.
        padded = ops.concatenate([ops.cast(gates, "float32"), ops.ones((1,), dtype="float32")])
        factors_of: list[dict[str, Any]] = [{} for _ in self._calls]
        values_of: list[dict[str, Any]] = [{} for _ in self._calls]
        for (index, path, _), factors in zip(self._factors, _gathered(padded, self._factors), strict=True):
            factors_of[index][path] = factors
        weights = [weight_of(self._calls[index].layer, path).value for index, path, _ in self._scales]
        if weights:
            flat = ops.concatenate([ops.cast(weight, "float32") for weight in weights])
            sizes = [len(units) for _, _, units in self._scales]
            product = _split(flat * _take(padded, self._scales), sizes)
            for (index, path, _), weight, value in zip(self._scales, weights, product, strict=True):
                values_of[index][path] = ops.cast(value, weight.dtype)
        return [Gated(*both) for both in zip(factors_of, values_of, strict=True)]


def _take(padded: Any, places: list[tuple[int, str, np.ndarray]]) -> Any:
    units = np.concatenate([units for _, _, units in places])
    return ops.take(padded, np.where(units < 0, padded.shape[0] - 1, units), axis=0)


def _gathered(padded: Any, places: list[tuple[int, str, np.ndarray]]) -> list[Any]:
    return _split(_take(padded, places), [len(units) for _, _, units in places]) if places else []


def _split(flat: Any, sizes: list[int]) -> list[Any]:
    return [flat] if len(sizes) == 1 else list(ops.split(flat, np.cumsum(sizes)[:-1].tolist()))


def _has_scale(graph: ChannelGraph, index: int) -> bool:
    layer = graph.trace.calls[index].layer
    if not isinstance(layer, keras.layers.BatchNormalization) or "out" not in graph.axes[index]:
        return False
    # What a layer adds to the loss must see what it sees without gates.
    return layer.gamma is not None and layer.activity_regularizer is None


def _gated_at_scales(graph: ChannelGraph, norms: list[bool]) -> np.ndarray:
    """Which groups arrive at each tensor with their gate multiplied in: bool array (tensors, groups).

    Groups do not disturb each other, so each is followed as if all could be gated at every scale that needs it, and
    those for which that is not the same as a gate at the consumers are taken out again.
    """
    carried = _carried(graph)
    scales = [_scales(graph, index) for index in range(len(norms))]
    needed = np.zeros_like(carried)
    for index in reversed(range(len(norms))):
        call = graph.trace.calls[index]
        for number in call.inputs:
            # The scale of the next BatchNormalization would undo a gate before it, and has one of its own.
            if scales[index]:
                needed[number] |= carried[number] & needed[list(call.outputs)].any(axis=0)
            elif not norms[index]:
                needed[number] |= carried[number]
    scaled = np.zeros_like(carried)
    possible = graph.prunable.copy()
    for index, call in enumerate(graph.trace.calls):
        inputs, outputs = list(call.inputs), list(call.outputs)
        some = scaled[inputs].any(axis=0)
        if norms[index]:
            possible &= ~some
            scaled[outputs] = needed[outputs] & carried[outputs]
        elif scales[index]:
            # A sum scales with its terms; end to end, only those that hold the channel count.
            absent = ~carried[inputs] if graph.rules[index].joins == "append" else np.zeros_like(carried[inputs])
            possible &= ~some | (scaled[inputs] | absent).all(axis=0)
            scaled[outputs] = some & carried[outputs]
        elif not _mixes_one_input(graph, index):
            possible &= ~some
    return scaled & possible


def _scales(graph: ChannelGraph, index: int) -> bool:
    call, rule = graph.trace.calls[index], graph.rules[index]
    if rule.scales is None or getattr(call.layer, "activity_regularizer", None) is not None:
        return False
    return rule.scales(call)


def _mixes_one_input(graph: ChannelGraph, index: int) -> bool:
    """Whether a call needs no gate of its own for channels that arrive with theirs multiplied in."""
    if graph.rules[index].masked is not None or len(graph.trace.calls[index].inputs) != 1:
        return False
    return bool(set(gated_axes(graph, index).values()) & INPUT_AXES)


def _carried(graph: ChannelGraph) -> np.ndarray:
    """Which groups have channels on each tensor: bool array (tensors, groups)."""
    found = np.zeros((len(graph.tensors), len(graph.groups)), dtype=bool)
    for number, units in enumerate(graph.tensors):
        found[number, graph.group_of[units[units >= 0]]] = True
    return found


def _only(graph: ChannelGraph, units: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The units of some groups (a bool array), -1 in the place of all others."""
    return np.where((units >= 0) & groups[graph.group_of[units]], units, -1)
