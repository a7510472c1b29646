"""How many multiply-adds a layer or operation takes that is no plain kernel: one formula a kind, over sizes of tensors.

A formula reads a `CallWidths`: the sizes of the tensors at the widths that are asked for, and weights. It counts matrix
products and convolutions for one example; sums, and products of one number with one number, are elementwise work and
left out, as in AdditiveAttention's scores. What has no formula is counted by what its own code runs (`by_running`), and
where that cannot be told either, `Uncounted` says why.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from ..cost.calls import CallWidths, Shape, Uncounted
from .flows import einsum_terms
from .standins import flat_terms

Formula = Callable[[CallWidths], Any]


def nothing(call: CallWidths) -> float:
    """No multiply-adds: the layer looks up, moves, or treats each number alone."""
    return 0.0


def unknown(call: CallWidths) -> Any:
    raise Uncounted(f"what {call.kind} multiplies is not known")


# --- products of two tensors ------------------------------------------------------------------------------------------


def matrix_product(one: Sequence[Any], other: Sequence[Any]) -> Any:
    """Multiply-adds of `one @ other`, from their sizes; leading axes are broadcast."""
    one = (1, *one) if len(one) == 1 else tuple(one)
    other = (*other, 1) if len(other) == 1 else tuple(other)
    rank = max(len(one), len(other))
    leading = zip(_padded(one[:-2], rank - 2), _padded(other[:-2], rank - 2), strict=True)
    batch = math.prod(right if _is_one(left) else left for left, right in leading)
    return batch * one[-2] * other[-2] * other[-1]


def einsum_product(equation: str, operands: Sequence[Sequence[Any]]) -> Any:
    """Multiply-adds of an einsum of two operands: the product of the sizes of all its letters."""
    read = equation.replace(" ", "").split("->")[0].split(",")
    if len(read) < 2:
        return 0.0
    if len(read) > 2:
        raise Uncounted("an einsum of more than two tensors is multiplied in an order that is not known")
    sizes: dict[str, Any] = {}
    dots: list[tuple] = []
    for letters, shape in zip(read, operands, strict=True):
        before, found, after = letters.partition("...")
        if not found and len(letters) != len(shape):
            raise Uncounted(f"the tensors of its einsum '{equation}' are not those of its letters")
        last = len(shape) - len(after)
        sizes.update(zip(before, shape, strict=False))
        sizes.update(zip(after, shape[last:], strict=False))
        dots.append(tuple(shape[len(before) : last]) if found else ())
    rank = max(map(len, dots))
    leading = zip(*(_padded(one, rank) for one in dots), strict=True)
    return math.prod(sizes.values()) * math.prod(right if _is_one(left) else left for left, right in leading)


def _padded(sizes: Sequence[Any], rank: int) -> tuple:
    return (1,) * (rank - len(sizes)) + tuple(sizes)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _contracted(call: CallWidths, axes: Callable[[int, int], Sequence[int]]) -> Any:
    """Multiply-adds of two tensors summed over some axes of the second; `axes` gets both ranks."""
    one, other = _operands(call, "x1", "x2")
    if not one or not other:
        return 0.0
    return math.prod(one) * math.prod(other) / math.prod(other[axis] for axis in axes(len(one), len(other)))


def _matmul(call: CallWidths) -> Any:
    return matrix_product(*_operands(call, "x1", "x2")) / call.batch


def _dot(call: CallWidths) -> Any:
    return _contracted(call, lambda _, rank: [max(rank - 2, 0)]) / call.batch


def _inner(call: CallWidths) -> Any:
    return _contracted(call, lambda *_: [-1]) / call.batch


def _vdot(call: CallWidths) -> Any:
    return _contracted(call, lambda _, rank: range(rank)) / call.batch


def _tensordot(call: CallWidths) -> Any:
    axes = call.layer.axes

    def second(_: int, rank: int) -> Sequence[int]:
        if isinstance(axes, int):
            return range(axes)
        return [axes[1]] if isinstance(axes[1], int) else axes[1]

    if axes == 0:
        return 0.0
    return _contracted(call, second) / call.batch


def _einsum(call: CallWidths) -> Any:
    return einsum_product(call.layer.subscripts, _all_sizes(call.arguments()["operands"])) / call.batch


def _convolution(call: CallWidths) -> Any:
    (kernel,) = _operands(call, "kernel")
    return math.prod(_known(call.made())) * math.prod(kernel[:-1]) / call.batch


def _depthwise_convolution(call: CallWidths) -> Any:
    (kernel,) = _operands(call, "kernel")
    return math.prod(_known(call.made())) * math.prod(kernel[:-2]) / call.batch


def _separable_convolution(call: CallWidths) -> Any:
    depthwise, pointwise = _operands(call, "depthwise_kernel", "pointwise_kernel")
    places = math.prod(_known(call.made())) / pointwise[-1]
    return places * (math.prod(depthwise) + math.prod(pointwise)) / call.batch


def _transposed_convolution(call: CallWidths) -> Any:
    inputs, kernel = _operands(call, "inputs", "kernel")
    return math.prod(inputs) * math.prod(kernel[:-1]) / call.batch


def _scaled_attention(call: CallWidths) -> Any:
    """keras.ops.dot_product_attention: (batch, length, heads, width) each; keys may have fewer heads."""
    query, key, value = _operands(call, "query", "key", "value")
    return query[0] * query[1] * key[1] * query[2] * (query[3] + value[3]) / call.batch


# --- layers -----------------------------------------------------------------------------------------------------------


def attention_products(call: CallWidths) -> Any:
    """MultiHeadAttention and its kin: queries with keys and scores with values, at the layer's own places."""
    layer = call.layer
    query, value = _operands(call, "query", "value")
    named = call.arguments()
    key = _known(named["key"]) if isinstance(named.get("key"), Shape) else value
    heads = call.axes.get("query_heads", call.axes.get("heads", getattr(layer, "num_query_heads", None)))
    heads = layer._num_heads if heads is None else heads
    widths = (layer._key_dim + layer._value_dim) if hasattr(layer, "_key_dim") else 2 * layer.head_dim
    # Places that are no axis of attention stand beside each other, as examples do.
    attended = getattr(layer, "_attention_axes", None) or tuple(range(1, len(query) - 1))
    places = math.prod(query[:-1]) * math.prod(key[axis] for axis in attended)
    return heads * places * widths / call.batch


def _dot_attention(call: CallWidths) -> Any:
    """Attention: scores are a matrix product or, in mode "concat" and in AdditiveAttention, elementwise work."""
    query, value, *rest = _all_sizes(call.arguments()["inputs"])
    key = rest[0] if rest else value
    scores = (*query[:-1], key[-2])
    spent = matrix_product(scores, value)
    # AdditiveAttention inherits the mode "dot" and does not use it.
    if not isinstance(call.layer, layers.AdditiveAttention) and call.layer.score_mode == "dot":
        spent = spent + matrix_product(query, (*key[:-2], key[-1], key[-2]))
    return spent / call.batch


def _dot_layer(call: CallWidths) -> Any:
    one, other = _all_sizes(call.arguments()["inputs"])
    axes = call.layer.axes
    summed = other[axes if isinstance(axes, int) else axes[1]]
    # Examples stand beside each other, so they count once.
    return math.prod(one[1:]) * math.prod(other[1:]) / summed * (one[0] / call.batch)


def of_equation(call: CallWidths) -> Any:
    """EinsumDense: its kernel, at every place of the input that the kernel does not sum over."""
    layer = call.layer
    if getattr(layer, "lora_enabled", False):
        raise Uncounted("it has a low-rank addition")
    read, kernel, _ = einsum_terms(layer)
    whole = tuple(layer.kernel.shape)
    places = einsum_product(f"{kernel},{read}", [whole, _seed_of(call, "inputs")]) / math.prod(whole)
    return (call.weight_size("kernel") if call.rule.weights else math.prod(whole)) * places / call.batch


def of_kernel(call: CallWidths) -> Any:
    """A product with a weight: each of its numbers, at every place of the tensor that the weight does not share."""
    read, kernel, _ = flat_terms(call.layer.equation)
    whole = tuple(call.layer.shape)
    places = einsum_product(f"{kernel},{read}", [whole, _seed_of(call, "inputs")]) / math.prod(whole)
    return (call.weight_size("weight") if call.rule.weights else math.prod(whole)) * places / call.batch


def _recurrent(call: CallWidths) -> Any:
    """RNN: each step calls its cells one after the other."""
    sequences = _seed_of(call, "sequences")
    spent, width = 0.0, sequences[-1]
    for cell in getattr(call.layer.cell, "cells", [call.layer.cell]):
        spent += _of_cell(call, cell, width)
        width = getattr(cell, "output_size", None) or np.nan
    return _at_widths(call, spent * math.prod(sequences[:2]) / call.batch)


_CELLS = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)


def _of_cell(call: CallWidths, cell: Any, width: Any) -> Any:
    if type(cell) in _CELLS:
        return math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape)
    states = keras.tree.map_structure(
        lambda size: Shape.of_seed(1, size),
        list(cell.state_size) if isinstance(cell.state_size, (list, tuple)) else [cell.state_size],
    )
    names = _parameters_of(cell)
    return call.inside(cell, {names[0]: Shape.of_seed(1, width), names[1]: states}, False)


def _convolutional_recurrent(call: CallWidths) -> Any:
    """ConvLSTM: each step convolves the input and its own state, both at the places of the output."""
    layer, made = call.layer, call.made().sizes
    first = layer.data_format == "channels_first"
    rank = layer.cell.rank
    places = math.prod(made[-rank:] if first else made[-rank - 1 : -1])
    kernels = math.prod(layer.cell.kernel.shape) + math.prod(layer.cell.recurrent_kernel.shape)
    (sequences,) = _operands(call, "sequences")
    return math.prod(sequences[:2]) * places * kernels / call.batch


def _each_step(call: CallWidths) -> Any:
    """TimeDistributed: what the layer inside takes at one step, at every step."""
    inputs, inner = _seed_of(call, "inputs"), call.layer.layer
    step = {_parameters_of(inner)[0]: Shape.of_seed(1, *inputs[2:])}
    return _at_widths(call, math.prod(inputs[:2]) * call.inside(inner, step, False) / call.batch)


def _both_directions(call: CallWidths) -> Any:
    sequences = _seed_of(call, "sequences")
    given = {"sequences": Shape.of_seed(1, *sequences[1:])}
    ways = (call.layer.forward_layer, call.layer.backward_layer)
    spent = sum(call.inside(layer, given, False) for layer in ways)
    return _at_widths(call, sequences[0] / call.batch * spent)


def _reversible_embedding(call: CallWidths) -> Any:
    """Looks up, or, called with reverse=True, multiplies with the table."""
    if not call.arguments().get("reverse"):
        return 0.0
    (inputs,) = _operands(call, "inputs")
    return math.prod(inputs) * call.layer.input_dim / call.batch


def by_running(call: CallWidths) -> Any:
    """What the layer's own code multiplies, seen by running it on symbolic tensors of one example."""
    given = keras.tree.map_structure(
        lambda leaf: Shape.of_seed(*_one_example(leaf.seed, call.batch)) if isinstance(leaf, Shape) else leaf,
        call.arguments(),
    )
    return _at_widths(call, call.inside(call.layer, given, True))


def _one_example(sizes: tuple, batch: int) -> tuple:
    return (1, *sizes[1:]) if batch > 1 and sizes[:1] == (batch,) else sizes


def _at_widths(call: CallWidths, seed: Any) -> Any:
    """What is known of the seed, at these widths.

    A probed layer of one input that can be pruned makes each channel of one other, alike for all of them (see `probe`),
    so it takes less as it makes less.
    """
    shapes = [leaf for leaf in keras.tree.flatten(call.arguments()) if isinstance(leaf, Shape)]
    if not seed or not any(shape.varies for shape in shapes):
        return seed
    if len(shapes) > 1:
        raise Uncounted("it multiplies several tensors of which some can be pruned, without a rule")
    made = call.made()
    return seed * math.prod(made.sizes) / math.prod(made.seed)


# --- reading arguments ------------------------------------------------------------------------------------------------


def _parameters_of(layer: Any) -> list[str]:
    return list(inspect.signature(layer.call).parameters)


def _seed_of(call: CallWidths, name: str) -> tuple:
    """The sizes of an argument in the seed."""
    given = call.arguments().get(name)
    return _known(Shape.of_seed(*given.seed) if isinstance(given, Shape) else given)


def _operands(call: CallWidths, *names: str) -> list[tuple]:
    given = call.arguments()
    return [_known(given.get(name)) for name in names]


def _all_sizes(tensors: Any) -> list[tuple]:
    return [_known(tensor) for tensor in tensors]


def _known(tensor: Any) -> tuple:
    """The sizes of a tensor, of a weight or of a constant."""
    sizes = tensor.sizes if isinstance(tensor, Shape) else tuple(np.shape(tensor)) if np.ndim(tensor) else ()
    if any(np.isnan(size).any() for size in sizes):
        raise Uncounted("a tensor that it multiplies has an unknown size; give keras.Input a shape without None")
    return sizes


# --- the tables -------------------------------------------------------------------------------------------------------

OF_OPERATIONS: dict[str, Formula] = {
    "Matmul": _matmul,
    "Dot": _dot,
    "Inner": _inner,
    "Vdot": _vdot,
    "Tensordot": _tensordot,
    "Einsum": _einsum,
    "Conv": _convolution,
    "DepthwiseConv": _depthwise_convolution,
    "SeparableConv": _separable_convolution,
    "ConvTranspose": _transposed_convolution,
    "DotProductAttention": _scaled_attention,
    **dict.fromkeys(
        "Cholesky CholeskyInverse Correlate Det Eig Eigh FFT FFT2 IFFT2 Inv IRFFT ISTFT Logdet Lstsq LuFactor Pinv Qr "
        "RFFT Solve SolveTriangular STFT SVD JVP Map Scan AssociativeScan WhileLoop ForiLoop Cond Switch "
        "VectorizedMap".split(),
        unknown,
    ),
}
"""By the name of the operation's class; other operations of Keras multiply nothing but number with number."""

_OF_LAYERS: dict[str, Formula] = {
    "Attention": _dot_attention,
    "AdditiveAttention": _dot_attention,
    "Dot": _dot_layer,
    "EinsumDense": of_equation,
    "RNN": _recurrent,
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _convolutional_recurrent),
    "TimeDistributed": _each_step,
    "Bidirectional": _both_directions,
    "ReversibleEmbedding": _reversible_embedding,
}
OF_LAYERS: dict[type, Formula] = {
    getattr(layers, name): formula for name, formula in _OF_LAYERS.items() if hasattr(layers, name)
}


def formula_of(layer: Any) -> Formula:
    """How to count what a layer or operation without a row in the table of rules multiplies."""
    kind = type(layer)
    if kind in OF_LAYERS:
        return OF_LAYERS[kind]
    if kind.__name__ == "ReversibleEmbedding" and kind.__module__.startswith("keras_hub."):
        return _reversible_embedding
    if kind.__module__.split(".")[0] != "keras":
        return by_running
    if not isinstance(layer, keras.Layer):
        return OF_OPERATIONS.get(kind.__name__, nothing)
    holds_matrices = any(len(weight.shape) > 1 for weight in layer.weights)
    runs_others = isinstance(layer, layers.Lambda) or bool(layer._layers)
    return by_running if holds_matrices or runs_others else nothing
