"""Normalisation over the open channels only: what a layer with statistics over channels does while some are closed.

A product is not enough there, since closed channels would still count in the mean and the variance. Each function
stands in a row of the table (`Rule.masked`) and computes what the layer would, were the closed channels not there.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def masked_layer_normalization(layer: Any, factors: Any, inputs: Any, **_: Any) -> Any:
    """LayerNormalization over the open channels of the last axis."""
    x, weights = _as_float32(inputs), _as_float32(factors)
    total = ops.maximum(ops.sum(weights), 1e-6)
    mean = ops.sum(x * weights, axis=-1, keepdims=True) / total
    variance = ops.sum(ops.square(x - mean) * weights, axis=-1, keepdims=True) / total
    return _scaled(layer, (x - mean) * ops.rsqrt(variance + layer.epsilon), inputs)


def masked_rms_normalization(layer: Any, factors: Any, inputs: Any, **_: Any) -> Any:
    """RMSNormalization over the open channels of the last axis."""
    x, weights = _as_float32(inputs), _as_float32(factors)
    square = ops.sum(ops.square(x) * weights, axis=-1, keepdims=True) / ops.maximum(ops.sum(weights), 1e-6)
    return ops.cast(x * ops.rsqrt(square + layer.epsilon) * ops.cast(layer.scale, x.dtype), inputs.dtype)


def masked_group_normalization(layer: Any, factors: Any, inputs: Any, **_: Any) -> Any:
    """GroupNormalization over the open channels of each group, on the last axis."""
    x, weights = _as_float32(inputs), _as_float32(factors)
    shape = list(ops.shape(x))
    per_group = shape[-1] // layer.groups
    grouped = ops.reshape(x, [-1, *shape[1:-1], layer.groups, per_group])
    weights = ops.reshape(weights, [layer.groups, per_group])
    axes = [*range(1, len(shape) - 1), len(shape)]
    positions = ops.cast(ops.prod(ops.convert_to_tensor(shape[1:-1])) if len(shape) > 2 else 1, x.dtype)
    total = ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-6) * positions
    mean = ops.sum(grouped * weights, axis=axes, keepdims=True) / total
    variance = ops.sum(ops.square(grouped - mean) * weights, axis=axes, keepdims=True) / total
    normal = ops.reshape((grouped - mean) * ops.rsqrt(variance + layer.epsilon), [-1, *shape[1:]])
    return _scaled(layer, normal, inputs)


def masked_unit_normalization(layer: Any, factors: Any, inputs: Any, **_: Any) -> Any:
    """UnitNormalization of the open channels."""
    return layer(inputs * ops.cast(factors, inputs.dtype))


def masked_mean(operation: Any, factors: Any, inputs: Any) -> Any:
    """A mean that runs over the last axis, among others, of the open channels."""
    share = ops.maximum(ops.sum(factors), 1e-6) / factors.shape[0]
    mean = operation(_as_float32(inputs) * factors) / share
    return ops.cast(mean, keras.backend.result_type(inputs.dtype, float))


def masked_sum(operation: Any, factors: Any, inputs: Any) -> Any:
    """A sum that runs over the last axis, among others, of the open channels."""
    return operation(inputs * ops.cast(factors, inputs.dtype))


def _scaled(layer: Any, normal: Any, inputs: Any) -> Any:
    if layer.scale:
        normal = normal * ops.cast(layer.gamma, normal.dtype)
    if layer.center:
        normal = normal + ops.cast(layer.beta, normal.dtype)
    return ops.cast(normal, inputs.dtype)


def _as_float32(tensor: Any) -> Any:
    return ops.cast(tensor, "float32")
