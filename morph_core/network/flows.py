"""How channels flow through layers: the functions that the table of rules is made of.

A flow function receives a `Flow`, one layer call with the labels of its inputs, and returns the labels of its output.
On the way it records the label vectors of the layer's own axes (`"in"`, `"out"`, `"heads"`, ...), which the table's
columns refer to, makes new labels, and unites those that must come and go together. Where it cannot tell, it keeps
things whole and says why: a channel too many is a cost, a channel too few is an error that nobody sees.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from ..arrays import as_numpy
from ..errors import MorphError
from .labels import Labels
from .resize import indexed_axes
from .standins import flat_terms
from .trace import Call, Ref

# A reshape is followed on a tensor of labels; above this many elements it is not followed (128 MiB of int64).
_LARGEST_LABEL_TENSOR = 1 << 24


@dataclasses.dataclass
class Flow:
    """One layer call, seen by its rule.

    Attributes:
        call: the call.
        labels: where labels are made and united.
        inputs: the labels of each tensor read: int arrays that broadcast to the shapes.
        shapes: of the tensors read, batch first, unknown sizes None.
        output_shapes: of the tensors made.
        axes: the label vectors of the layer's own axes, by name; filled in by the flow function.
        makes: names of the axes whose channels this call makes; filled in likewise.
        learned_weights: for a layer without a row, along which axes its weights follow the channels.
        dtypes: of the tensors read; [] for floats.
        keeps_first: which way out where channels come to lie along two axes, see `move`.
        lays_along_several: whether they do; filled in.
        reads_data: whether it reads what depends on the model's inputs; axis 0 is no batch's where it does not.
        table_axis: for a table of numbers, the axis along which they belong to channels; see `tables`.
        rows: places along the open axis of the batch that belong to one example, in the first tensor read; 0
            where only the first axis can be the batch's.
        note: what the user should know of this layer, though no group stays because of it.
        is_refused: whether the probe could not tell what this layer does.
    """

    call: Call
    labels: Labels
    inputs: list[np.ndarray]
    shapes: list[tuple[int | None, ...]]
    output_shapes: list[tuple[int | None, ...]]
    axes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    makes: set[str] = dataclasses.field(default_factory=set)
    learned_weights: dict[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    dtypes: list[str] = dataclasses.field(default_factory=list)
    rows: int = 0
    note: str = ""
    is_refused: bool = False
    keeps_first: bool = False
    lays_along_several: bool = False
    reads_data: bool = True
    table_axis: int | None = None

    @property
    def layer(self) -> Any:
        return self.call.layer

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        return self.output_shapes[0]

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

    def make(self, name: str, count: int | None) -> np.ndarray:
        """New channels on the axis `name`: int array (count,)."""
        if count is None:
            raise MorphError(f"{self.describe()} has an unknown number of channels; give it a fixed width.")
        self.axes[name] = self.labels.fresh(count)
        self.makes.add(name)
        return self.axes[name]

    def place(self, vector: np.ndarray, axis: int) -> np.ndarray:
        """A label vector laid along `axis` of the output."""
        shape = [1] * len(self.output_shape)
        shape[axis] = len(vector)
        return vector.reshape(shape)

    def keep_whole(self, reason: str) -> list[np.ndarray]:
        """Freeze everything this layer reads; its outputs have no channel that can go."""
        for labels in self.inputs:
            self.labels.freeze(labels, reason)
        return self.nothing()

    def nothing(self) -> list[np.ndarray]:
        """Labels of outputs that have no channel that can go."""
        return [np.zeros([1] * len(shape), dtype=np.int64) for shape in self.output_shapes]


Labelled = np.ndarray | list[np.ndarray]


def channel_axis(layer: Any) -> int:
    """The axis of a layer's channels, by its data format."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


# --- layers that mix --------------------------------------------------------------------------------------------------


def mix(flow: Flow) -> Labelled:
    """Reads all channels, makes as many new ones as it is wide (Dense, convolutions)."""
    axis = channel_axis(flow.layer)
    flow.axes["in"] = flow.read(axis)
    made = flow.make("out", flow.output_shape[axis])
    if reason := _activation_reason(flow, getattr(flow.layer, "activation", None)):
        flow.labels.freeze(made, reason)
    return flow.place(made, axis)


def mix_in_groups(flow: Flow) -> Labelled:
    """A convolution; with groups, the channels of equal place in every group are one, so that groups stay equal.

    With a group for each channel it is a depthwise convolution, whose groups come and go with the channels.
    """
    groups, axis = flow.layer.groups, channel_axis(flow.layer)
    if groups > 1 and groups == flow.shapes[0][axis] and is_elementwise(flow.layer.activation):
        flow.axes["in"] = flow.read(axis)
        flow.axes["out"] = np.repeat(flow.axes["in"], flow.layer.filters // groups)
        return flow.place(flow.axes["out"], axis)
    output = mix(flow)
    flow.axes["in_per_group"] = _tie_rows(flow, flow.axes["in"].reshape(groups, -1))
    _tie_rows(flow, flow.axes["out"].reshape(groups, -1))
    return output


def _tie_rows(flow: Flow, table: np.ndarray) -> np.ndarray:
    """Unite the rows of a table of labels; the first of them."""
    first = np.broadcast_to(table[0], table[1:].shape)
    flow.labels.unite(first, table[1:], f"{flow.describe()} needs equal groups")
    return table[0]


def separable(flow: Flow) -> Labelled:
    """A depthwise convolution, then one over channels."""
    output = mix(flow)
    flow.axes["between"] = np.repeat(flow.axes["in"], flow.layer.depth_multiplier)
    return output


def embed(flow: Flow) -> Labelled:
    """Looks numbers up: makes channels, reads none."""
    if flow.inputs[0].any():
        return flow.keep_whole(f"{flow.describe()} looks their values up")
    return flow.place(flow.make("out", flow.output_shape[-1]), -1)


def recur(flow: Flow) -> Labelled:
    """LSTM, GRU, SimpleRNN: every step reads the input's and its own channels; kernels hold all gates in a row."""
    layer = flow.layer
    flow.axes["in"] = flow.read(-1)
    made = flow.make("out", layer.units)
    gates = layer.cell.kernel.shape[-1] // layer.units
    flow.axes["gates"] = np.tile(made, gates)
    for name in ("activation", "recurrent_activation"):
        if reason := _activation_reason(flow, getattr(layer, name, None)):
            flow.labels.freeze(made, reason)
    named = dict(zip(("sequences", "initial_state"), flow.call.args, strict=False)) | flow.call.kwargs
    for state in (leaf for leaf in keras.tree.flatten(named.get("initial_state")) if isinstance(leaf, Ref)):
        vector = flow.read(-1, flow.call.inputs.index(state.index))
        flow.labels.unite(vector, made, f"{flow.describe()} starts from a state that stays")
    return [made.reshape([1] * (len(shape) - 1) + [-1]) for shape in flow.output_shapes]


def recur_both_ways(flow: Flow) -> Labelled:
    """Bidirectional: a layer for each direction, whose outputs are laid end to end or merged place by place."""
    layer = flow.layer
    widths = (layer.forward_layer.units, layer.backward_layer.units)
    if layer.merge_mode in ("concat", None) and widths[0] != widths[1]:
        raise MorphError(
            f"{flow.describe()} has {widths[0]} units forward and {widths[1]} backward. Keras takes the first for both "
            "when it says how wide the output is, so what comes next does not fit. Give both directions as many units, "
            "or call two recurrent layers, one with go_backwards=True, and concatenate what they return."
        )
    if len(flow.output_shapes) != (2 if layer.merge_mode is None else 1) or "initial_state" in flow.call.kwargs:
        return flow.keep_whole(f"{flow.describe()} takes or gives states, which is not followed")
    ways = []
    for name in ("forward", "backward"):
        way = dataclasses.replace(
            flow,
            call=dataclasses.replace(flow.call, layer=getattr(layer, f"{name}_layer")),
            output_shapes=flow.output_shapes[:1],
            axes={},
            makes=set(),
        )
        ways += recur(way)
        flow.axes.update({f"{name}_{axis}": vector for axis, vector in way.axes.items()})
        flow.makes.update(f"{name}_{axis}" for axis in way.makes)
    # Laid end to end they need not be one, but Keras takes the forward width for the backward one as well.
    forward, backward = ways
    flow.labels.unite(forward, backward, f"{flow.describe()} has as many units in both directions")
    if layer.merge_mode is None:
        return ways
    return np.concatenate(ways, axis=-1) if layer.merge_mode == "concat" else forward


def each_step(inner: Callable[[Flow], Labelled]) -> Callable[[Flow], Labelled]:
    """TimeDistributed: the flow of the layer inside, at every step alike."""

    def flow_of_a_step(flow: Flow) -> Labelled:
        layer = flow.layer.layer
        if flow.inputs[0].shape[1] > 1 or channel_axis(layer) == 1:
            return flow.keep_whole(f"{flow.describe()} has its channels on axis 1; the last is followed")
        step = dataclasses.replace(
            flow,
            call=dataclasses.replace(flow.call, layer=layer),
            inputs=[labels[:, 0] for labels in flow.inputs[:1]],
            shapes=[(shape[0], *shape[2:]) for shape in flow.shapes[:1]],
            output_shapes=[(shape[0], *shape[2:]) for shape in flow.output_shapes],
        )
        made = inner(step)
        return [np.expand_dims(labels, 1) for labels in ([made] if isinstance(made, np.ndarray) else made)]

    return flow_of_a_step


def attend(flow: Flow) -> Labelled:
    """MultiHeadAttention: reads query, value and key; whole heads come and go; makes its output's channels."""
    layer = flow.layer
    if layer._attention_axes is not None and len(layer._attention_axes) != 1:
        return flow.keep_whole(f"{flow.describe()} attends over several axes")
    if len(layer._output_shape or ()) > 1:
        return flow.keep_whole(f"{flow.describe()} has an output of several axes")
    given = _attention_inputs(flow)
    if given is None:
        return flow.keep_whole(f"{flow.describe()} is called with a mask of channels or in a way that is not followed")
    for name, index in given.items():
        flow.axes[f"in_{name}"] = flow.read(-1, index)
    flow.make("heads", layer.num_heads)
    output = flow.place(flow.make("out", flow.output_shape[-1]), -1)
    return [output, *_scores(flow, flow.axes["heads"])]


def attend_in_groups(flow: Flow) -> Labelled:
    """GroupedQueryAttention: a key-value head goes with its query heads; the output has the query's own channels."""
    layer = flow.layer
    given = _attention_inputs(flow)
    if given is None:
        return flow.keep_whole(f"{flow.describe()} is called with a mask of channels or in a way that is not followed")
    for name, index in given.items():
        flow.axes[f"in_{name}"] = flow.read(-1, index)
    heads = flow.make("heads", layer.num_key_value_heads)
    flow.axes["query_heads"] = np.repeat(heads, layer.num_query_heads // layer.num_key_value_heads)
    return [flow.place(flow.axes["in_query"], -1), *_scores(flow, flow.axes["query_heads"])]


def _scores(flow: Flow, heads: np.ndarray) -> list[np.ndarray]:
    """The labels of attention scores (batch, heads, queries, keys), if the call returns them."""
    return [heads.reshape(1, -1, 1, 1) for _ in flow.output_shapes[1:]]


def _attention_inputs(flow: Flow) -> dict[str, int] | None:
    """Which of the call's tensors is query, value and key; None when channels are in a mask, too."""
    call = flow.call
    named = dict(zip(("query", "value", "key"), call.args, strict=False)) | call.kwargs
    refs = {name: named[name] for name in ("query", "value", "key") if isinstance(named.get(name), Ref)}
    if "query" not in refs or "value" not in refs or len(call.args) > 3:
        return None
    found = {name: call.inputs.index(ref.index) for name, ref in refs.items()}
    read = {ref.index for ref in refs.values()}
    masks = [labels for number, labels in zip(call.inputs, flow.inputs, strict=True) if number not in read]
    return None if any(labels.any() for labels in masks) else {"key": found["value"], **found}


# --- layers that carry ------------------------------------------------------------------------------------------------


def carry(flow: Flow) -> Labelled:
    """Channel c of the output is channel c of the input."""
    return flow.inputs[0]


def depthwise(flow: Flow) -> Labelled:
    """Each input channel makes `depth_multiplier` outputs, next to each other."""
    axis = channel_axis(flow.layer)
    flow.axes["in"] = flow.read(axis)
    flow.axes["out"] = np.repeat(flow.axes["in"], flow.layer.depth_multiplier)
    if reason := _activation_reason(flow, getattr(flow.layer, "activation", None)):
        return flow.keep_whole(reason)
    return flow.place(flow.axes["out"], axis)


def normalize(flow: Flow) -> Labelled:
    """As `carry`; the weights follow the channels on the layer's own `axis`."""
    axis = flow.layer.axis
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if not isinstance(axis, int):
        return flow.keep_whole(f"{flow.describe()} normalises over several axes {tuple(axis)}")
    flow.axes["out"] = flow.read(axis)
    return flow.inputs[0]


def normalize_last(flow: Flow) -> Labelled:
    """As `normalize`, for layers whose statistics run over the channels: only along the last axis."""
    axis = flow.layer.axis
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if axis not in (-1, len(flow.shapes[0]) - 1):
        return flow.keep_whole(f"{flow.describe()} normalises over other axes than the last, {axis}")
    return normalize(flow)


def normalize_groups(flow: Flow) -> Labelled:
    """GroupNormalization: as `normalize_last`; the groups of statistics lose equally."""
    layer = flow.layer
    if layer.axis not in (-1, len(flow.shapes[0]) - 1):
        return flow.keep_whole(f"{flow.describe()} has its channels on axis {layer.axis}; the last is followed")
    vector = flow.axes["out"] = flow.read(-1)
    if layer.groups < len(vector):
        _tie_rows(flow, vector.reshape(layer.groups, -1))
    return flow.inputs[0]


def normalize_data(flow: Flow) -> Labelled:
    """Normalization by statistics of the data: for the model's inputs."""
    if flow.inputs[0].any():
        return flow.keep_whole(f"{flow.describe()} holds statistics of the data for each channel")
    return flow.nothing()


def compare(flow: Flow) -> Labelled:
    """Masking: whether all channels of a place have some value."""
    return flow.keep_whole(f"{flow.describe()} compares all channels of a place with a value")


def follow_last(flow: Flow) -> Labelled:
    """As `carry`, for a layer with a weight for each channel of the last axis."""
    flow.axes["out"] = flow.read(-1)
    return flow.inputs[0]


def activate(flow: Flow) -> Labelled:
    """Activation, by its function."""
    if is_elementwise(flow.layer.activation):
        return flow.inputs[0]
    return flow.keep_whole(f"{flow.describe()} compares channels with each other, or its function is not known")


def slope(flow: Flow) -> Labelled:
    """PReLU: its slopes have a dimension for every axis but the batch, of size 1 where shared."""
    labels = flow.inputs[0]
    if any(length > 1 for length in labels.shape[1:-1]):
        return flow.keep_whole(f"{flow.describe()} has slopes along the last axis, but the channels lie along another")
    if flow.layer.alpha.shape[-1] > 1:
        flow.axes["out"] = flow.read(-1)
    return labels


def clip(flow: Flow) -> Labelled:
    """Clipping between two numbers."""
    if np.ndim(flow.layer.x_min) or np.ndim(flow.layer.x_max) or len(flow.inputs) > 1:
        return flow.keep_whole(f"{flow.describe()} has a bound for each channel")
    return flow.inputs[0]


def rescale(flow: Flow) -> Labelled:
    """Rescaling by one number."""
    if np.ndim(flow.layer.scale) or np.ndim(flow.layer.offset):
        return flow.keep_whole(f"{flow.describe()} has a scale for each channel in its configuration")
    return flow.inputs[0]


def pool_all(flow: Flow) -> Labelled:
    """Global pooling: the spatial axes go, or stay with size 1."""
    first = channel_axis(flow.layer) == 1 and flow.layer.keepdims
    return flow.place(flow.read(channel_axis(flow.layer)), 1 if first else -1)


def reduce(flow: Flow) -> Labelled:
    """A mean, sum or maximum over axes: of positions, channels stay; over channels, it mixes them."""
    labels, rank = flow.inputs[0], len(flow.shapes[0])
    axes = getattr(flow.layer, "axis", None)
    axes = tuple(range(rank)) if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
    axes = {axis % rank for axis in axes}
    if (0 in axes and not _has_batch_elsewhere(flow)) or any(labels.shape[axis] > 1 for axis in axes):
        return flow.keep_whole(f"{flow.describe()} reduces over the channels")
    if getattr(flow.layer, "keepdims", False):
        return labels
    return labels.reshape([length for axis, length in enumerate(labels.shape) if axis not in axes])


def _has_batch_elsewhere(flow: Flow) -> bool:
    """Whether the open size is that of another axis than the first, as of examples behind experts."""
    first, *others = flow.shapes[0]
    return first is not None and None in others


def summarise(flow: Flow) -> Labelled:
    """As `reduce`; over channels on the last axis it is the mean or sum of those that are there."""
    labels, rank = flow.inputs[0], len(flow.shapes[0])
    axes = getattr(flow.layer, "axis", None)
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    axes = {axis % rank for axis in axes}
    if 0 in axes or rank - 1 not in axes or labels.size < 2 or labels.shape[-1] != labels.size or not labels.any():
        return reduce(flow)
    flow.axes["out"] = flow.read(-1)
    return flow.nothing()


def compete(flow: Flow) -> Labelled:
    """Softmax: numbers along its axis are compared; channels along another stay."""
    axes, rank = flow.layer.axis, len(flow.shapes[0])
    axes = range(rank) if axes is None else (axes,) if isinstance(axes, int) else axes
    if any(labels.any() for labels in flow.inputs[1:]):
        return flow.keep_whole(f"{flow.describe()} has channels in its mask")
    if any(flow.inputs[0].shape[axis] > 1 or flow.shapes[0][axis] == 1 for axis in axes) and flow.inputs[0].any():
        return flow.keep_whole(f"{flow.describe()} compares channels with each other")
    return flow.inputs[0]


# --- products of tensors ----------------------------------------------------------------------------------------------


def contract(flow: Flow) -> Labelled:
    """Einsum of tensors: an axis with the same letter is one; channels along an axis that is summed over stay."""
    return _contract(flow, flow.layer.subscripts)


def multiply_matrices(flow: Flow) -> Labelled:
    """Matmul of two tensors of one rank: the axes before the last two are one in both."""
    rank = len(flow.output_shape)
    if rank < 2 or any(len(shape) != rank for shape in flow.shapes):
        return _whole_if_any(flow, f"{flow.describe()} multiplies tensors of different rank")
    before = "".join(chr(ord("A") + axis) for axis in range(rank - 2))
    return _contract(flow, f"{before}ij,{before}jk->{before}ik")


def attend_by_operation(flow: Flow) -> Labelled:
    """dot_product_attention of query, key and value (batch, places, heads, features): heads come and go."""
    if not any(labels.any() for labels in flow.inputs):
        return flow.nothing()
    names = ("query", "key", "value")
    named = dict(zip(names, flow.call.args, strict=False)) | flow.call.kwargs
    if not all(isinstance(named.get(name), Ref) for name in names) or len(flow.call.args) > 3:
        return flow.keep_whole(f"{flow.describe()} is called in a way that is not followed")
    places = [flow.call.inputs.index(named[name].index) for name in names]
    if any(labels.any() for place, labels in enumerate(flow.inputs) if place not in places):
        return flow.keep_whole(f"{flow.describe()} has channels in its mask")
    query, key, value = (flow.read(2, place) for place in places)
    reason = f"{flow.describe()} attends with heads that stay"
    repeats, rest = divmod(len(query), len(key))
    if rest or len(key) != len(value):
        return flow.keep_whole(f"{flow.describe()} has other numbers of heads than are followed")
    flow.labels.unite(key, value, reason)
    flow.labels.unite(query, np.repeat(key, repeats), reason)
    flow.axes["heads"] = query
    return flow.place(query, 2)


def mix_by_equation(flow: Flow) -> Labelled:
    """EinsumDense: reads along one axis that its kernel sums over, makes channels along one axis of its output."""
    roles = einsum_roles(flow.layer)
    if roles is None or flow.layer.lora_enabled:
        return flow.keep_whole(f"{flow.describe()} has an equation that is not followed ({flow.layer.equation})")
    read, _, made = einsum_terms(flow.layer)
    flow.axes["read"] = flow.read(read.index(roles.read))
    channels = flow.make("out", flow.output_shape[made.index(roles.made)])
    if reason := _activation_reason(flow, flow.layer.activation):
        flow.labels.freeze(channels, reason)
    return flow.place(channels, made.index(roles.made))


@dataclasses.dataclass(frozen=True)
class EinsumRoles:
    """Letters of an EinsumDense: the axis whose channels are read and summed over, and that of those made."""

    read: str
    made: str


def einsum_terms(layer: Any) -> tuple[str, str, str]:
    """The letters of an EinsumDense's input, kernel and output."""
    return flat_terms(layer.equation)


def einsum_roles(layer: Any) -> EinsumRoles | None:
    """What the letters of an EinsumDense are; None for an equation that is not followed."""
    if "..." in layer.equation:
        return None
    read, kernel, made = einsum_terms(layer)
    if any(len(set(term)) != len(term) for term in (read, kernel, made)):
        return None
    summed = [letter for letter in kernel if letter in read and letter not in made]
    new = [letter for letter in kernel if letter not in read and letter in made]
    if not new or not summed or (set(kernel) & set(read) & set(made)) or set(kernel) - set(summed) - set(new):
        return None
    # Of a head's two axes the first counts the heads: heads go, their features stay.
    return EinsumRoles(min(summed, key=read.index), min(new, key=made.index))


@dataclasses.dataclass(frozen=True)
class KernelRoles:
    """Letters of a product with a weight: the axis that is read and summed over, and those that are made."""

    read: str
    made: tuple[str, ...]


def kernel_roles(equation: str) -> KernelRoles | None:
    """What the letters of a product of a tensor and a weight are; None for an equation that is not followed.

    A letter of the weight that stands in the tensor and in the product, too, such as that of experts, is neither.
    """
    read, kernel, made = flat_terms(equation)
    if any(len(set(term)) != len(term) for term in (read, kernel, made)):
        return None
    if set(kernel) - set(read) - set(made) or set(read) - set(kernel) - set(made):
        return None
    summed = [letter for letter in read if letter in kernel and letter not in made]
    # Along the first axis lies the batch, where there is one.
    new = [letter for letter in made[1:] if letter in kernel and letter not in read]
    return KernelRoles(summed[0], tuple(new)) if summed and new else None


def multiply_by_kernel(flow: Flow) -> Labelled:
    """A product with a weight: reads along one axis that is summed over, makes channels along one of its output.

    Where the weight brings several axes, such as those of experts or heads and of their units, channels are those of
    the last, or, where `flow.keeps_first`, of the first of them.
    """
    roles = kernel_roles(flow.layer.equation)
    read, _, made = flat_terms(flow.layer.equation)
    if roles is None or flow.shapes[0][read.index(roles.read)] is None:
        return flow.keep_whole(f"{flow.describe()} has an equation that is not followed ({flow.layer.equation})")
    flow.axes["read"] = flow.read(read.index(roles.read))
    flow.lays_along_several = len(roles.made) > 1
    letter = roles.made[0 if flow.keeps_first else -1]
    place = made.index(letter)
    return flow.place(flow.make(f"made {letter}", flow.output_shape[place]), place)


def _contract(flow: Flow, equation: str) -> Labelled:
    if not any(labels.any() for labels in flow.inputs):
        return flow.nothing()
    given, arrow, made = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if not arrow or "." in equation or len(terms) != len(flow.inputs) or any(len(set(one)) < len(one) for one in terms):
        return flow.keep_whole(f"{flow.describe()} has an equation that is not followed ({equation})")
    found: dict[str, np.ndarray] = {}
    for term, labels, shape in zip(terms, flow.inputs, flow.shapes, strict=True):
        if not labels.any():
            continue
        varying = [axis for axis, length in enumerate(labels.shape) if length > 1]
        if len(varying) != 1:
            return flow.keep_whole(f"{flow.describe()} multiplies tensors whose channels lie along several axes")
        (axis,) = varying
        letter, vector = term[axis], labels.reshape(-1)
        if letter not in made or shape[axis] != len(vector):
            flow.labels.freeze(labels, f"{flow.describe()} sums over the channels")
            continue
        if letter in found:
            flow.labels.unite(found[letter], vector, f"{flow.describe()} multiplies it with channels that stay")
        found.setdefault(letter, vector)
    for letter, vector in found.items():
        others = zip(terms, flow.inputs, flow.shapes, strict=True)
        for term, labels, shape in others:
            if letter in term and labels.shape[term.index(letter)] == 1 and shape[term.index(letter)] != 1:
                flow.labels.freeze(vector, f"{flow.describe()} multiplies it with channels that stay")
            elif letter in term and shape[term.index(letter)] == 1:
                flow.labels.freeze(vector, f"{flow.describe()} multiplies it with a single channel")
    if len(found) > 1:
        return flow.keep_whole(f"{flow.describe()} makes channels along several axes")
    if not found:
        return flow.nothing()
    ((letter, vector),) = found.items()
    flow.axes["shared"] = vector
    return flow.place(vector, made.index(letter))


def _whole_if_any(flow: Flow, reason: str) -> Labelled:
    return flow.keep_whole(reason) if any(labels.any() for labels in flow.inputs) else flow.nothing()


# --- layers that join and move ----------------------------------------------------------------------------------------


def join(flow: Flow) -> Labelled:
    """Add and its kin: channels in the same place are one; a single channel spread over many is needed whole."""
    rank = len(flow.output_shape)
    if not flow.inputs or any(np.ndim(leaf) for leaf in _constants(flow.call)):
        return flow.keep_whole(f"{flow.describe()} joins a constant with a number for each channel")
    if any(len(shape) != rank for shape in flow.shapes):
        # Keras' merging layers put missing axes behind the batch, its operations in front of all, as NumPy does.
        if isinstance(flow.layer, keras.Layer):
            return flow.keep_whole(f"{flow.describe()} joins tensors of different rank")
        flow = _of_one_rank(flow, rank)
    united = None
    for labels, shape in zip(flow.inputs, flow.shapes, strict=True):
        if _spreads_channels(shape, flow):
            flow.labels.freeze(labels, f"{flow.describe()} spreads it over all channels of another tensor")
            continue
        if united is None:
            united = labels
            continue
        if _lies_across(united, labels):
            return flow.keep_whole(f"{flow.describe()} joins channels along one axis with channels along another")
        first, second = np.broadcast_arrays(united, labels)
        flow.labels.unite(first, second, f"{flow.describe()} joins it with channels that stay")
        united = np.where(first == 0, second, first)
    return flow.nothing() if united is None else united


def _lies_across(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether channels of two tensors lie along different axes."""
    return any(a > 1 == b and one.any() and other.any() for a, b in zip(one.shape, other.shape, strict=True)) and any(
        b > 1 == a for a, b in zip(one.shape, other.shape, strict=True)
    )


def _of_one_rank(flow: Flow, rank: int) -> Flow:
    """The same call, with axes of size 1 before those of each input of lower rank."""
    return dataclasses.replace(
        flow,
        inputs=[labels.reshape([1] * (rank - labels.ndim) + list(labels.shape)) for labels in flow.inputs],
        shapes=[(*[1] * (rank - len(shape)), *shape) for shape in flow.shapes],
    )


def _constants(call: Call) -> list[Any]:
    """Arguments of a call that are numbers, alone or in arrays."""
    return [
        leaf
        for leaf in keras.tree.flatten((call.args, call.kwargs))
        if leaf is not None and not isinstance(leaf, (Ref, str, bool))
    ]


def _spreads_channels(shape: tuple[int | None, ...], flow: Flow) -> bool:
    """Whether another input has channels along an axis on which this one has size 1."""
    for other in flow.inputs:
        for axis, length in enumerate(other.shape):
            if axis and length > 1 and shape[axis] == 1:
                return True
    return False


def concatenate(flow: Flow) -> Labelled:
    """Lays tensors end to end, along channels or along positions."""
    rank = len(flow.output_shape)
    axis = flow.layer.axis % rank
    if len(flow.inputs) != sum(1 for leaf in keras.tree.flatten(flow.call.args) if leaf is not None):
        return flow.keep_whole(f"{flow.describe()} joins a constant")
    # A tensor of one channel has it along the last axis, as a convolution makes it.
    if any(
        labels.shape[axis] > 1 or (labels.any() and labels.size == 1 and axis == rank - 1) for labels in flow.inputs
    ):
        parts = []
        for labels, shape in zip(flow.inputs, flow.shapes, strict=True):
            parts.append(np.broadcast_to(labels, [*labels.shape[:axis], shape[axis] or 1, *labels.shape[axis + 1 :]]))
        widest = [max(sizes) for sizes in zip(*(labels.shape for labels in parts), strict=True)]
        parts = [np.broadcast_to(part, [*widest[:axis], part.shape[axis], *widest[axis + 1 :]]) for part in parts]
        return np.concatenate(parts, axis=axis)
    first = flow.inputs[0]
    for other in flow.inputs[1:]:
        one, two = np.broadcast_arrays(first, other)
        flow.labels.unite(one, two, f"{flow.describe()} lays it end to end with channels that stay")
        first = np.where(one == 0, two, one)
    return first


def stack(flow: Flow) -> Labelled:
    """Lays tensors side by side along a new axis: channels in the same place are one."""
    united = np.asarray(join(dataclasses.replace(flow, output_shapes=flow.shapes[:1])))
    return np.expand_dims(united, flow.layer.axis % len(flow.output_shape)) if united.any() else flow.nothing()


def flatten(flow: Flow) -> Labelled:
    """Every position of a channel becomes a feature of its own, all with the channel's label."""
    labels, shape = flow.inputs[0], flow.shapes[0]
    if not labels.any():
        return flow.nothing()
    if None in shape[1:]:
        return flow.keep_whole(f"{flow.describe()} flattens a tensor of unknown size {shape}")
    full = np.broadcast_to(labels, (1, *(size or 1 for size in shape[1:])))
    if channel_axis(flow.layer) == 1 and full.ndim > 2:
        full = np.moveaxis(full, 1, -1)
    return full.reshape(1, -1)


def move(flow: Flow) -> Labelled:
    """Moves numbers about without changing any (reshape, split, slice): so it moves labels, by running on them.

    Where channels come to lie along two axes, as in the first half of a channel shuffle, those that differ only along
    the first are tied, so that what is left is a full block again; or, where `flow.keeps_first`, as for features of
    heads, those that differ only along the last. Each part of a split, or a slice, is recorded as an
    axis, so that its channels are groups of their own: their number says where the next part begins.
    """
    labels, shape = flow.inputs[0], flow.shapes[0]
    if len(flow.inputs) != 1:
        return flow.keep_whole(f"{flow.describe()} is called with positions that are tensors")
    if not labels.any():
        return flow.nothing()
    sizes = [max(flow.rows, 1) if size is None else size for size in shape]
    if (None in shape[1:] and (shape[0] is None or not flow.rows)) or math.prod(sizes) > _LARGEST_LABEL_TENSOR:
        return flow.keep_whole(f"{flow.describe()} moves a tensor of unknown or very large size {shape}")
    full = np.ascontiguousarray(np.broadcast_to(labels, sizes), dtype=np.int32)
    args, kwargs = keras.tree.map_structure(
        lambda leaf: keras.ops.convert_to_tensor(full) if isinstance(leaf, Ref) else leaf,
        (flow.call.args, flow.call.kwargs),
    )
    moved = [as_numpy(tensor).astype(np.int64) for tensor in keras.tree.flatten(flow.layer(*args, **kwargs))]
    parts = [_one_axis(flow, _without_repeats(tensor), labels.size) for tensor in moved]
    flow.axes.update({f"part {place}": part.reshape(-1) for place, part in enumerate(parts)})
    return parts


def _without_repeats(labels: np.ndarray) -> np.ndarray:
    """The smallest array that broadcasts to `labels`; for an empty part of a split an empty one."""
    if not labels.size:
        return labels[(slice(1),) * labels.ndim]
    for axis in range(labels.ndim):
        first = labels.take([0], axis=axis)
        if (labels == first).all():
            labels = first
    return labels


def _one_axis(flow: Flow, labels: np.ndarray, known: int) -> np.ndarray:
    """Tie labels so that they vary along one axis alone."""
    varying = [axis for axis, length in enumerate(labels.shape) if length > 1]
    if not varying and known > 1:
        flow.labels.freeze(labels, f"{flow.describe()} picks one channel by its number")
        return np.zeros_like(labels)
    if 0 in varying and flow.reads_data:
        flow.labels.freeze(labels, f"{flow.describe()} moves channels into the batch")
        return np.zeros([1] * labels.ndim, dtype=np.int64)
    if len(varying) < 2:
        return labels
    flow.lays_along_several = True
    kept = varying[0 if flow.keeps_first else -1]
    table = np.moveaxis(labels, kept, 0).reshape(labels.shape[kept], -1)
    first = np.broadcast_to(table[:, :1], table[:, 1:].shape)
    flow.labels.unite(first, table[:, 1:], f"{flow.describe()} lays channels along several axes")
    shape = [1] * labels.ndim
    shape[kept] = -1
    return table[:, 0].reshape(shape)


def repeat(flow: Flow) -> Labelled:
    """As `move`, for ops.repeat: each place as often as the others."""
    if not isinstance(flow.layer.repeats, int) or flow.layer.axis is None:
        return _whole_if_any(flow, f"{flow.describe()} repeats some places more often than others")
    return move(flow)


def look_up(flow: Flow) -> Labelled:
    """ops.take along an axis of places: channels along the other axes stay."""
    labels, axis = flow.inputs[0], flow.layer.axis
    is_called_plainly = flow.call.args and isinstance(flow.call.args[0], Ref)
    for places in flow.inputs[1:]:
        flow.labels.freeze(places, f"{flow.describe()} looks up what lies there")
    if not is_called_plainly or axis is None:
        return _whole_if_any(flow, f"{flow.describe()} is called in a way that is not followed")
    axis %= labels.ndim
    if labels.shape[axis] > 1 or labels.size == 1:
        return _whole_if_any(flow, f"{flow.describe()} takes channels by their number")
    added = len(flow.output_shape) - labels.ndim + 1
    return labels.reshape([*labels.shape[:axis], *[1] * added, *labels.shape[axis + 1 :]])


def hold(flow: Flow) -> Labelled:
    """A weight by itself has its channels along its last axis, as a table of positions has; whole numbers have none."""
    shape = flow.output_shape
    if not shape or shape[-1] == 1 < len(shape) or flow.layer.weight_dtype is not None:
        return flow.nothing()
    return flow.place(flow.make("out", shape[-1]), len(shape) - 1)


def tabulate(flow: Flow) -> Labelled:
    """A table of numbers: those of a channel go with it, where what reads the table asks for that (see `tables`)."""
    if flow.table_axis is None:
        return flow.nothing()
    flow.axes["rows"] = flow.labels.fresh(flow.output_shape[flow.table_axis] or 0)
    return flow.place(flow.axes["rows"], flow.table_axis)


def lead_to_loss(flow: Flow) -> Labelled:
    """Passes its first tensor on; what a loss is made of stays."""
    flow.labels.freeze(flow.inputs[1], f"{flow.describe()} adds it to the losses")
    return flow.inputs[0]


def stay(flow: Flow) -> Labelled:
    """What needs all that it reads: nothing can go."""
    return _whole_if_any(flow, f"{flow.describe()} needs the size of what it reads")


def spread(flow: Flow) -> Labelled:
    """An operation on sizes of the batch: what repeats a tensor for each example leaves channels on their axis.

    Its first input is read for its sizes only.
    """
    if len(flow.inputs) == 2 and type(flow.layer.operation).__name__ in ("BroadcastTo", "Tile"):
        labels, rank = flow.inputs[1], len(flow.output_shape)
        along = [axis - labels.ndim for axis, length in enumerate(labels.shape) if length == labels.size > 1]
        if labels.any() and along and rank + along[0] > 0:
            if flow.shapes[1][along[0]] == labels.size == flow.output_shape[along[0]]:
                flow.axes["part 0"] = labels.reshape(-1)
                return flow.place(labels.reshape(-1), rank + along[0])
    return stay(flow)


def cut_out(flow: Flow) -> Labelled:
    """ops.slice of a block: channels on the last axis stay when all of that axis is taken."""
    labels = flow.inputs[0]
    if not labels.any():
        return flow.nothing()
    is_plain = len(flow.inputs) == 1 and labels.shape[-1] == labels.size > 1
    if not is_plain or flow.shapes[0][-1] != flow.output_shape[-1]:
        return flow.keep_whole(f"{flow.describe()} cuts channels apart, or is called in a way that is not followed")
    flow.axes["part 0"] = labels.reshape(-1)
    return labels


def slice_evenly(flow: Flow) -> Labelled:
    """As `move`, for x[...]: slices in steps of one, of which a part that is left can be told by its ends."""
    keys = flow.call.args[1] if len(flow.call.args) > 1 else flow.call.kwargs.get("key")
    keys = keys if isinstance(keys, tuple) else (keys,)
    if not all(isinstance(key, (slice, int)) or key is Ellipsis or key is None for key in keys):
        return flow.keep_whole(f"{flow.describe()} takes channels by a list")
    for axis, key in indexed_axes(keys, len(flow.shapes[0])):
        is_stepped = isinstance(key, slice) and key.step not in (None, 1) and flow.inputs[0].shape[axis] > 1
        if is_stepped and not _ties_blocks(flow, axis, key):
            return flow.keep_whole(f"{flow.describe()} takes channels in steps")
    return move(flow)


def _ties_blocks(flow: Flow, axis: int, key: slice) -> bool:
    """Tie the channels of each block of which a slice in steps takes one, so that its steps stay as they are."""
    labels, size = flow.inputs[0], flow.shapes[0][axis]
    if size is None or labels.size != size or key.step < 0 or size % key.step:
        return False
    if not 0 <= (key.start or 0) < key.step or not (key.stop is None or key.stop >= size):
        return False
    _tie_rows(flow, labels.reshape(-1, key.step).T)
    return True


# Activations of keras.activations that treat each number alone. The others (softmax, glu, ...) compare channels.
_ELEMENTWISE = frozenset(
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid mish relu "
    "relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink "
    "threshold".split()
)
_ELEMENTWISE_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)


def is_elementwise(activation: Any) -> bool:
    """Whether an activation function is known to treat each number alone."""
    if activation is None or isinstance(activation, _ELEMENTWISE_LAYERS):
        return True
    name = getattr(activation, "__name__", "")
    if getattr(keras.activations, name, None) is activation:
        return name in _ELEMENTWISE
    return inspect.isfunction(activation) and _treats_numbers_alone(activation)


@functools.lru_cache(maxsize=128)
def _treats_numbers_alone(function: Callable) -> bool:
    """Whether a function gives each number the same answer in any company, as far as trying can tell.

    It is tried once: every block of a transformer has the same function.
    """
    rng = np.random.default_rng(0)
    for scale in (0.1, 1.0, 10.0):
        numbers = (scale * rng.uniform(-1, 1, (3, 7))).astype("float32")
        try:
            whole, again = (as_numpy(function(keras.ops.convert_to_tensor(numbers))) for _ in range(2))
            parts = [as_numpy(function(keras.ops.convert_to_tensor(part))) for part in (numbers[:, :4], numbers[:, 4:])]
            singles = [as_numpy(function(keras.ops.convert_to_tensor(numbers[:1, [place]]))) for place in range(7)]
        except Exception:  # noqa: BLE001 -- a function that fails on some shape is not one of single numbers
            return False
        if whole.shape != numbers.shape or not np.array_equal(whole, again, equal_nan=True):
            return False
        if any(part.ndim != 2 for part in (*parts, *singles)):
            return False
        for other in (np.concatenate(parts, axis=1), np.concatenate(singles, axis=1)):
            if not np.allclose(whole[: len(other)], other, rtol=1e-5, atol=1e-6, equal_nan=True):
                return False
    return True


def _activation_reason(flow: Flow, activation: Any) -> str:
    """Why the channels behind an activation must stay; empty when it treats each number alone."""
    if is_elementwise(activation):
        return ""
    name = getattr(activation, "__name__", type(activation).__name__)
    if getattr(keras.activations, name, None) is activation:
        return f"{flow.describe()} has an activation that compares channels with each other ({name})"
    return (
        f"{flow.describe()} has an activation ({name}) that is none of keras.activations and may compare channels with "
        "each other; make it a layer of its own, which is examined"
    )
