"""Weights that code multiplies with, as kernels: one layer for a product and its weight, where there were two calls.

In an opened network a weight that code uses by itself is a layer, and the einsum or matrix product that reads it is an
operation. Channels lie along one axis of a tensor, but along two of such a weight: those that are summed over, and
those that are made. So the two calls become one of a `Kernel`, of which the table of rules knows both.
"""

from __future__ import annotations

import dataclasses
import string
from typing import Any

import keras

from .flows import kernel_roles
from .standins import Kernel, Weight
from .trace import Call, Ref, Trace


def with_kernels(trace: Trace) -> Trace:
    """The same network, in which products of a tensor with a weight that nothing else reads are kernels."""
    weights = {call.outputs[0]: call for call in trace.calls if type(call.layer) is Weight}
    readers = [number for call in trace.calls for number in call.inputs] + list(trace.outputs)
    held = {number for number in weights if readers.count(number) == 1}
    made = {id(call): _kernel(call, trace, {number: weights[number] for number in held}) for call in trace.calls}
    taken = {number for call in trace.calls if made[id(call)] is not None for number in call.inputs if number in held}
    calls = [made[id(call)] or call for call in trace.calls if not taken.intersection(call.outputs)]
    return _without_tensors(dataclasses.replace(trace, calls=tuple(calls)), taken)


def _without_tensors(trace: Trace, gone: set[int]) -> Trace:
    """The same network, numbered without tensors that no call makes any more."""
    kept = [number for number in range(len(trace.shapes)) if number not in gone]
    new = {number: place for place, number in enumerate(kept)}

    def renumbered(call: Call) -> Call:
        args, kwargs = keras.tree.map_structure(
            lambda leaf: Ref(new[leaf.index]) if isinstance(leaf, Ref) else leaf, (call.args, call.kwargs)
        )
        inputs, outputs = (tuple(new[number] for number in numbers) for numbers in (call.inputs, call.outputs))
        return dataclasses.replace(call, args=args, kwargs=kwargs, inputs=inputs, outputs=outputs)

    return Trace(
        calls=tuple(map(renumbered, trace.calls)),
        shapes=tuple(trace.shapes[number] for number in kept),
        inputs=tuple(new[number] for number in trace.inputs),
        outputs=tuple(new[number] for number in trace.outputs),
        dtypes=tuple(trace.dtypes[number] for number in kept if trace.dtypes),
        rows=tuple(trace.rows[number] for number in kept if trace.rows),
    )


def _kernel(call: Call, trace: Trace, weights: dict[int, Call]) -> Call | None:
    """The call of a kernel that stands for a product with one of these weights; None where it is no such product."""
    if isinstance(call.layer, keras.Layer) or call.kwargs or len(call.args) != 2:
        return None
    if not all(isinstance(leaf, Ref) for leaf in call.args):
        return None
    places = [place for place, ref in enumerate(call.args) if ref.index in weights]
    if len(places) != 1 or call.kind not in ("Einsum", "Matmul"):
        return None
    (place,) = places
    weight, read = weights[call.args[place].index], call.args[1 - place]
    shapes = [trace.shapes[ref.index] for ref in call.args]
    equation = _of_einsum(call.layer, place) if call.kind == "Einsum" else _of_matmul(shapes, place)
    held: Any = weight.layer
    if equation is None or kernel_roles(equation) is None or held.weight_dtype is not None:
        return None
    layer = Kernel.around(
        held.weight,
        initializer=held.initializer,
        name=held.name,
        dtype=held.dtype_policy,
        equation=equation,
        comes_first=place == 0,
        product=call.kind.lower(),
    )
    return Call(weight.name, layer, (read,), {}, (read.index,), call.outputs)


def _of_einsum(operation: Any, place: int) -> str | None:
    """The equation with the weight's letters second."""
    given, arrow, made = operation.subscripts.replace(" ", "").partition("->")
    terms = given.split(",")
    if not arrow or "." in given or "." in made or len(terms) != 2:
        return None
    return f"{terms[1 - place]},{terms[place]}->{made}"


def _of_matmul(shapes: list[tuple[int | None, ...]], place: int) -> str | None:
    """The same for a matrix product, of which each leading axis of one factor is that of the other, or its own."""
    one, other = shapes
    if min(len(one), len(other)) < 2:
        return None
    leading = string.ascii_uppercase[: max(len(one), len(other)) - 2]
    for first, second in zip(reversed(one[:-2]), reversed(other[:-2]), strict=False):
        if first != second:
            return None
    terms = [leading[len(leading) - len(one) + 2 :] + "ij", leading[len(leading) - len(other) + 2 :] + "jk"]
    return f"{terms[1 - place]},{terms[place]}->{leading}ik"
