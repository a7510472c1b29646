"""What every kind of layer does with channels: one table, one row a kind.

A row says how channels flow through the layer (`flow`), which constructor argument is its width (`width`), along which
axes its weights follow the channels (`weights`), and at how many positions each kernel is applied (`kernels`), from
which its parameters and multiply-adds follow. The rest of the library never asks what kind a layer is. A layer without
a row is kept whole, and says so.

A flow function receives a `Flow` and returns the labels of the output. It records the label vectors of the layer's
named axes (`"in"`, `"out"`, ...) with `Flow.axis`, to which rows in `weights` refer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from .errors import MorphError
from .labels import Labels
from .trace import Call


@dataclasses.dataclass
class Flow:
    """One layer call, seen by its rule.

    Attributes:
        call: the call.
        labels: where labels are made and united.
        inputs: the labels of each tensor read: int arrays that broadcast to the shapes.
        shapes: of the tensors read, batch first, unknown sizes None.
        output_shape: of the tensor made.
        axes: the label vectors of the layer's own axes, by name; filled in by the rule.
    """

    call: Call
    labels: Labels
    inputs: list[np.ndarray]
    shapes: list[tuple[int | None, ...]]
    output_shape: tuple[int | None, ...]
    axes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def layer(self) -> Any:
        return self.call.layer

    def describe(self) -> str:
        return f"layer '{self.call.name}' ({self.call.kind})"

    def read(self, axis: int, index: int = 0) -> np.ndarray:
        """The labels of input `index` along `axis`: int array (size,); what varies along another axis is frozen."""
        labels, shape = self.inputs[index], self.shapes[index]
        axis %= len(shape)
        size = shape[axis]
        if size is None:
            raise MorphError(
                f"{self.describe()} reads axis {axis} of a tensor of shape {shape}, whose size is unknown; "
                "give keras.Input a shape with that size."
            )
        others = [length for position, length in enumerate(labels.shape) if position != axis]
        if not labels.any():
            return np.zeros(size, dtype=np.int64)
        if math.prod(others) != 1 or labels.shape[axis] != size:
            self.labels.freeze(labels, f"{self.describe()} reads axis {axis}, but the channels lie along another axis")
            return np.zeros(size, dtype=np.int64)
        return labels.reshape(-1)

    def place(self, vector: np.ndarray, axis: int) -> np.ndarray:
        """A label vector laid along `axis` of the output."""
        shape = [1] * len(self.output_shape)
        shape[axis] = len(vector)
        return vector.reshape(shape)

    def keep_whole(self, reason: str) -> np.ndarray:
        """Freeze everything this layer reads; its output has no channel that can go."""
        for labels in self.inputs:
            self.labels.freeze(labels, reason)
        return np.zeros([1] * len(self.output_shape), dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes:
        flow: labels of the inputs -> labels of the output.
        width: the constructor argument that sets the number of output channels, where the layer has one.
        weights: for each weight, by attribute name, the named axis that each of its last dimensions follows; None for
            one that does not follow channels.
        kernels: for each kernel, whether it is applied once per position of the layer's "input" or "output".
        mixes: every output channel depends on all inputs, so that this is where a closed gate must be felt.
        joins: how it merges tensors of which some are dead: "merge" leaves them out, and the last one left passes
            unchanged; "append" lays what is left end to end; "" cannot do without any.
    """

    flow: Callable[[Flow], np.ndarray]
    width: str | None = None
    weights: Mapping[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    kernels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mixes: bool = False
    joins: str = ""


# --- how channels flow ------------------------------------------------------------------------------------------------


def _channel_axis(layer: Any) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def _mix(flow: Flow) -> np.ndarray:
    """Reads all channels, makes as many new ones as it is wide (Dense, convolutions)."""
    axis = _channel_axis(flow.layer)
    flow.axes["in"] = flow.read(axis)
    made = flow.labels.fresh(_size(flow, axis))
    flow.axes["out"] = made
    if not _is_elementwise(getattr(flow.layer, "activation", None)):
        flow.labels.freeze(made, f"{flow.describe()} has an activation that compares channels with each other")
    return flow.place(made, axis)


def _mix_in_groups(flow: Flow) -> np.ndarray:
    """A convolution; with groups, the channels of equal place in every group are one, so that groups stay equal."""
    groups = getattr(flow.layer, "groups", 1)
    output = _mix(flow)
    for name, per_group in (("in", "in_per_group"), ("out", None)):
        table = flow.axes[name].reshape(groups, -1)
        for other in table[1:]:
            flow.labels.unite(table[0], other, f"{flow.describe()} needs equal groups")
        if per_group:
            flow.axes[per_group] = table[0]
    return output


def _depthwise(flow: Flow) -> np.ndarray:
    """Each input channel makes `depth_multiplier` outputs, next to each other."""
    axis = _channel_axis(flow.layer)
    flow.axes["in"] = flow.read(axis)
    flow.axes["out"] = np.repeat(flow.axes["in"], flow.layer.depth_multiplier)
    if not _is_elementwise(getattr(flow.layer, "activation", None)):
        return flow.keep_whole(f"{flow.describe()} has an activation that compares channels with each other")
    return flow.place(flow.axes["out"], axis)


def _separable(flow: Flow) -> np.ndarray:
    output = _mix(flow)
    flow.axes["between"] = np.repeat(flow.axes["in"], flow.layer.depth_multiplier)
    return output


def _carry(flow: Flow) -> np.ndarray:
    """Channel c of the output is channel c of the input."""
    return flow.inputs[0]


def _normalize(flow: Flow) -> np.ndarray:
    """As `_carry`; the weights follow the channels on the layer's own `axis`."""
    flow.axes["out"] = flow.read(flow.layer.axis)
    return flow.inputs[0]


def _activate(flow: Flow) -> np.ndarray:
    if _is_elementwise(flow.layer.activation):
        return flow.inputs[0]
    return flow.keep_whole(f"{flow.describe()} compares channels with each other, or its function is not known")


def _prelu(flow: Flow) -> np.ndarray:
    """Its slopes have a dimension for every axis but the batch, of size 1 where shared."""
    labels = flow.inputs[0]
    if any(length > 1 for length in labels.shape[1:-1]):
        return flow.keep_whole(f"{flow.describe()} has slopes along the last axis, but the channels lie along another")
    if flow.layer.alpha.shape[-1] > 1:
        flow.axes["out"] = flow.read(-1)
    return labels


def _pool_all(flow: Flow) -> np.ndarray:
    """Global pooling: the spatial axes go, or stay with size 1."""
    return flow.place(flow.read(_channel_axis(flow.layer)), 1 if _keeps_first(flow) else -1)


def _keeps_first(flow: Flow) -> bool:
    return _channel_axis(flow.layer) == 1 and flow.layer.keepdims


def _join(flow: Flow) -> np.ndarray:
    """Add and its kin: channels in the same place are one; a single channel spread over many is needed whole."""
    rank = len(flow.output_shape)
    united = None
    if any(len(shape) != rank for shape in flow.shapes):
        return flow.keep_whole(f"{flow.describe()} joins tensors of different rank")
    for labels, shape in zip(flow.inputs, flow.shapes, strict=True):
        if _spreads_channels(shape, flow):
            flow.labels.freeze(labels, f"{flow.describe()} spreads it over all channels of another tensor")
            continue
        if united is None:
            united = labels
            continue
        first, second = np.broadcast_arrays(united, labels)
        flow.labels.unite(first, second, f"{flow.describe()} joins it with channels that stay")
        united = np.where(first == 0, second, first)
    return np.zeros([1] * rank, dtype=np.int64) if united is None else united


def _spreads_channels(shape: tuple[int | None, ...], flow: Flow) -> bool:
    """Whether another input has channels along an axis on which this one has size 1."""
    for other in flow.inputs:
        for axis, length in enumerate(other.shape):
            if axis and length > 1 and shape[axis] == 1:
                return True
    return False


def _concatenate(flow: Flow) -> np.ndarray:
    axis = flow.layer.axis % len(flow.output_shape)
    parts = []
    along_channels = any(labels.shape[axis] > 1 for labels in flow.inputs)
    for labels, shape in zip(flow.inputs, flow.shapes, strict=True):
        size = shape[axis]
        if along_channels and size is not None:
            labels = np.broadcast_to(labels, [*labels.shape[:axis], size, *labels.shape[axis + 1 :]])
        parts.append(labels)
    if not along_channels:
        first = parts[0]
        for other in parts[1:]:
            one, two = np.broadcast_arrays(first, other)
            flow.labels.unite(one, two, f"{flow.describe()} lays it end to end with channels that stay")
            first = np.where(one == 0, two, one)
        return first
    widest = [max(sizes) for sizes in zip(*(labels.shape for labels in parts), strict=True)]
    parts = [np.broadcast_to(labels, [*widest[:axis], labels.shape[axis], *widest[axis + 1 :]]) for labels in parts]
    return np.concatenate(parts, axis=axis)


def _flatten(flow: Flow) -> np.ndarray:
    """Every position of a channel becomes a feature of its own, all with the channel's label."""
    labels, shape = flow.inputs[0], flow.shapes[0]
    if not labels.any():
        return np.zeros([1] * len(flow.output_shape), dtype=np.int64)
    if None in shape[1:]:
        return flow.keep_whole(f"{flow.describe()} flattens a tensor of unknown size {shape}")
    full = np.broadcast_to(labels, (1, *(size or 1 for size in shape[1:])))
    if _channel_axis(flow.layer) == 1 and full.ndim > 2:
        full = np.moveaxis(full, 1, -1)
    return full.reshape(1, -1)


def _rescale(flow: Flow) -> np.ndarray:
    if np.ndim(flow.layer.scale) or np.ndim(flow.layer.offset):
        return flow.keep_whole(f"{flow.describe()} has a scale for each channel in its configuration")
    return flow.inputs[0]


def _size(flow: Flow, axis: int) -> int:
    size = flow.output_shape[axis]
    if size is None:
        raise MorphError(f"{flow.describe()} has an unknown number of channels; give it a fixed width.")
    return size


# Activations of keras.activations that treat each number alone. The others (softmax, glu, ...) compare channels.
_ELEMENTWISE = frozenset(
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid mish relu "
    "relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink "
    "threshold".split()
)


def _is_elementwise(activation: Any) -> bool:
    if activation is None or isinstance(activation, _ELEMENTWISE_LAYERS):
        return True
    name = getattr(activation, "__name__", "")
    return name in _ELEMENTWISE and getattr(keras.activations, name, None) is activation


_ELEMENTWISE_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)

# --- the table --------------------------------------------------------------------------------------------------------

_AFFINE: dict[str, tuple[str | None, ...]] = dict.fromkeys(
    ("gamma", "beta", "moving_mean", "moving_variance"), ("out",)
)
_CARRY = Rule(_carry)
_JOIN = Rule(_join, joins="merge")
_CONVOLUTION = Rule(
    _mix_in_groups,
    width="filters",
    weights={"kernel": ("in_per_group", "out"), "bias": ("out",)},
    kernels={"kernel": "output"},
    mixes=True,
)
_TRANSPOSED = Rule(
    _mix,
    width="filters",
    weights={"kernel": ("out", "in"), "bias": ("out",)},
    kernels={"kernel": "input"},
    mixes=True,
)
_DEPTHWISE = Rule(
    _depthwise,
    weights={"kernel": ("in", None), "bias": ("out",)},
    kernels={"kernel": "output"},
)
_SEPARABLE = Rule(
    _separable,
    width="filters",
    weights={"depthwise_kernel": ("in", None), "pointwise_kernel": ("between", "out"), "bias": ("out",)},
    kernels={"depthwise_kernel": "output", "pointwise_kernel": "output"},
    mixes=True,
)

RULES: dict[type, Rule] = {
    layers.Dense: Rule(
        _mix,
        width="units",
        weights={"kernel": ("in", "out"), "bias": ("out",)},
        kernels={"kernel": "output"},
        mixes=True,
    ),
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), _CONVOLUTION),
    **dict.fromkeys((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _TRANSPOSED),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _DEPTHWISE),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _SEPARABLE),
    layers.BatchNormalization: Rule(_normalize, weights=_AFFINE),
    layers.Activation: Rule(_activate),
    layers.PReLU: Rule(_prelu, weights={"alpha": ("out",)}),
    layers.Rescaling: Rule(_rescale),
    **dict.fromkeys((layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity), _CARRY),
    **dict.fromkeys(
        (layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D), _CARRY
    ),
    **dict.fromkeys((layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout), _CARRY),
    **dict.fromkeys((layers.ActivityRegularization,), _CARRY),
    **dict.fromkeys((layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D), _CARRY),
    **dict.fromkeys((layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D), _CARRY),
    **dict.fromkeys((layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D), _CARRY),
    **dict.fromkeys((layers.Cropping1D, layers.Cropping2D, layers.Cropping3D), _CARRY),
    **dict.fromkeys((layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D), _CARRY),
    **dict.fromkeys(
        (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D), Rule(_pool_all)
    ),
    **dict.fromkeys((layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D), Rule(_pool_all)),
    layers.Flatten: Rule(_flatten),
    layers.Concatenate: Rule(_concatenate, joins="append"),
    **dict.fromkeys((layers.Add, layers.Multiply), _JOIN),
    **dict.fromkeys((layers.Subtract, layers.Average, layers.Maximum, layers.Minimum), Rule(_join)),
}


def keep_unknown_whole(flow: Flow) -> np.ndarray:
    """What happens at a layer without a row."""
    return flow.keep_whole(
        f"{flow.describe()} has no rule, so it is not known how it treats channels; "
        "add a row for it to make this prunable"
    )


UNKNOWN = Rule(keep_unknown_whole)


def rule_for(layer: Any) -> Rule:
    """The row of a layer's exact class: a subclass may do anything in `call`, so it needs a row of its own."""
    return RULES.get(type(layer), UNKNOWN)
