"""Closing gates inside a layer, so that a closed gate is the same as a missing channel.

A gate sits where channels are read and mixed, at the input of convolutions and dense layers: there nothing can undo it
(a BatchNormalization after a closed gate would add its offset back). A layer that is linear in its input may as well
have the gate multiplied into its kernel, along the axis that follows those channels; a kernel is mostly smaller than
the tensor it is applied to, so this is what makes gates nearly free. Late in a network it is the other way round, and a
training step multiplies whichever is smaller. Layers that take statistics over channels need more
than a product: they leave closed channels out of their statistics.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from ..arrays import weight_of
from .channels import Channels

# Examples in a batch, for the choice of what to multiply, where a batch does not tell.
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Gated:
    """What the gates make of one call of a layer.

    Attributes:
        factors: for kernels, by attribute path, the gate of each channel along the axis that `Rule.gates` names; under
            `STATISTICS`, for a layer with statistics over channels, that of each channel.
        values: for other weights, by attribute path, what stands in their place.
    """

    factors: Mapping[str, Any]
    values: Mapping[str, Any]


STATISTICS = "statistics"
INPUT_AXES = frozenset({"in", "in_per_group"})
"""The axes that `Rule.gates` names for kernels that are linear in the layer's first input."""


def gated_call(channels: Channels, index: int, gated: Gated, args: tuple, kwargs: dict, cheapest: bool = False) -> Any:
    """Call layer `index` of a network with its channels' gates.

    Args:
        channels: of the network.
        index: of the call.
        gated: what the gates make of it (see `placement`).
        args, kwargs: for the layer.
        cheapest: multiply the input where it is smaller than the kernel; always the kernel otherwise.
    """
    layer: Any = channels.trace.calls[index].layer
    rule, axes = channels.rules[index], channels.axes[index]
    if STATISTICS in gated.factors and rule.masked is not None:
        return rule.masked(layer, gated.factors[STATISTICS], *args, **kwargs)
    if not gated.factors and not gated.values:
        return layer(*args, **kwargs)
    if gated.factors and set(gated_axes(channels, index).values()) <= INPUT_AXES:
        # Losses that a layer adds are lost in a stateless scope: multiply the input instead.
        if layer.activity_regularizer is not None or (cheapest and _is_smaller(args, layer, gated.factors)):
            factors = next(iter(gated.factors.values()))
            factors = ops.tile(factors, len(axes["in"]) // factors.shape[0])
            return layer(_gate_channels(args[0], factors, layer), *args[1:], **kwargs)
    values = {id(variable): variable.value for variable in layer.variables}
    values.update((id(weight_of(layer, path)), value) for path, value in gated.values.items())
    for path, factors in gated.factors.items():
        weight, follows = weight_of(layer, path), tuple(reversed(rule.weights[path]))
        shape = [1] * len(weight.shape)
        shape[-1 - follows.index(rule.gates[path])] = -1
        values[id(weight)] = weight.value * ops.cast(ops.reshape(factors, shape), weight.value.dtype)
    with keras.StatelessScope([(variable, values[id(variable)]) for variable in layer.variables]) as scope:
        outputs = layer(*args, **kwargs)
    # What the layer itself updates, such as statistics and the state of its random numbers.
    for variable in layer.non_trainable_variables:
        variable.assign(scope.get_current_value(variable))
    return outputs


def gated_axes(channels: Channels, index: int) -> dict[str, str]:
    """For each kernel of a call that mixes channels, the axis of those that have gates."""
    axes = channels.axes[index]
    return {
        path: axis for path, axis in channels.rules[index].gates.items() if axis in axes and (axes[axis] >= 0).any()
    }


def _is_smaller(args: tuple, layer: Any, kernels: Iterable[str]) -> bool:
    """Whether the input of a layer has fewer entries than its kernels."""
    sizes = getattr(args[0], "shape", None)
    if sizes is None or any(size is None for size in sizes[1:]):
        return False
    kernel = sum(math.prod(weight_of(layer, path).shape) for path in kernels)
    return math.prod(sizes[1:]) * (sizes[0] or _BATCH) < kernel


def without_dead(call: Any, live: Mapping[int, Any], args: tuple) -> tuple:
    """The arguments of a call where branches meet, with what changes nothing in the place of a dead branch.

    A dead branch still has a value, a constant, as long as its layers run: an offset of a BatchNormalization or a bias.
    In the rebuilt network it is gone, so it must not be seen here either. It is a product and no condition on the flag:
    around a condition TensorFlow keeps what a product is computed in place of, a quarter more memory for a ResNet-50.

    Args:
        call: of a layer or operation that adds or multiplies its inputs.
        live: for each tensor number that may be dead, a scalar tensor, 0 when it is and 1 when it is not.
        args: of the call.
    """

    def choose(leaf: Any, tensor: Any) -> Any:
        flag = live.get(getattr(leaf, "index", -1))
        if flag is None:
            return tensor
        flag = ops.cast(flag, tensor.dtype)
        return tensor * flag + (1 - flag) if call.kind == "Multiply" else tensor * flag

    return keras.tree.map_structure(choose, call.args, args)


def _gate_channels(tensor: Any, factors: Any, layer: Any) -> Any:
    if getattr(layer, "data_format", None) == "channels_first":
        factors = ops.reshape(factors, (-1, *[1] * (len(tensor.shape) - 2)))
    return tensor * ops.cast(factors, tensor.dtype)
