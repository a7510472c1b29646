"""Multiply-adds of a network, counted by watching TensorFlow multiply: the oracle for the costs, apart from them.

The network runs once on one real example, operation by operation, and every convolution, matrix product and einsum that
TensorFlow runs is counted from the shapes of what it read and made. Nothing of the library takes part, and nothing of
Keras but its layers' own code. Loops of recurrent layers run step by step, so each of their steps counts. Only what the
result depends on counts: Keras runs the first step of a recurrent layer once more, to see what it makes.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class _Operation:
    """One operation that TensorFlow ran: what it cost, and the numbers of the tensors that it read and made."""

    kind: str
    amount: int
    reads: tuple[int, ...]
    makes: tuple[int, ...]


def watched_flops(function: Callable[[], Any]) -> dict[str, int]:
    """FLOPs that TensorFlow spends on the result of a call, by kind of operation; a multiply-add is 2.

    Args:
        function: runs the network, in inference mode, and returns its outputs.

    Raises:
        NotImplementedError: it runs an operation that multiplies and is not known here.
    """
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    seen: list[_Operation] = []

    def watch(kind: Any, inputs: Any, attributes: Any, outputs: Any, *_: Any) -> None:
        kind = kind.decode() if isinstance(kind, bytes) else kind
        given = dict(zip(attributes[::2], attributes[1::2], strict=True)) if attributes else {}
        amount = _multiply_adds(
            kind, [tuple(one.shape) for one in inputs], given, [tuple(one.shape) for one in outputs]
        )
        seen.append(_Operation(kind, amount, tuple(one._id for one in inputs), tuple(one._id for one in outputs)))

    tf.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(watch)
    try:
        results = function()
    finally:
        op_callbacks.remove_op_callback(watch)
        tf.config.run_functions_eagerly(False)
    needed = {tensor._id for tensor in tf.nest.flatten(results)}
    found: collections.Counter[str] = collections.Counter()
    for operation in reversed(seen):
        if needed.intersection(operation.makes):
            needed.update(operation.reads)
            if operation.amount:
                found[operation.kind] += 2 * operation.amount
    return dict(found)


def _multiply_adds(kind: str, inputs: list[tuple], attributes: dict[str, Any], outputs: list[tuple]) -> int:
    if kind in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        is_transposed = attributes.get("transpose_a") or attributes.get("adj_x")
        return math.prod(outputs[0]) * inputs[0][-2 if is_transposed else -1]
    if kind == "Einsum":
        return _einsum(attributes["equation"], inputs)
    if kind in ("Conv2D", "Conv3D"):
        return math.prod(outputs[0]) * math.prod(inputs[1][:-1])
    if kind in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):
        return math.prod(inputs[2]) * math.prod(inputs[1][:-1])
    if kind == "DepthwiseConv2dNative":
        return math.prod(outputs[0]) * math.prod(inputs[1][:2])
    if any(word in kind for word in ("MatMul", "Conv", "Einsum", "RNN", "Lstm", "LSTM", "Gru", "GRU")):
        raise NotImplementedError(f"TensorFlow ran {kind} on {inputs}, which is not counted here.")
    return 0


def _einsum(equation: Any, inputs: list[tuple]) -> int:
    """The product of the sizes of all its letters; of one operand nothing is multiplied."""
    text = equation.decode() if isinstance(equation, bytes) else equation
    read = text.replace(" ", "").split("->")[0].split(",")
    if len(read) < 2:
        return 0
    sizes: dict[str, int] = {}
    dots: tuple = ()
    for letters, shape in zip(read, inputs, strict=True):
        before, found, after = letters.partition("...")
        sizes.update(zip(before, shape, strict=False))
        sizes.update(zip(reversed(after), reversed(shape), strict=False))
        if found:
            middle = shape[len(before) : len(shape) - len(after)]
            dots = max(dots, middle, key=math.prod)
    return math.prod(sizes.values()) * math.prod(dots)
