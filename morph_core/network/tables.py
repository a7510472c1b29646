"""Tables of numbers of which some belong to each channel, such as the slopes that a head adds to its scores.

A `Constant` of an opened network has no channels: what is added to it would stay. Where channels meet numbers that a
table brought there, as many as there are channels, the network is followed once more with channels along that axis of
the table; they then come and go with those that they meet. Each reader gets a table of its own, since the code of two
blocks may have made equal ones, which is no reason for both to lose the same heads.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from .channels import Channels
from .flows import join
from .standins import Constant, Sized
from .trace import Call, Ref, Trace


def tables_asked_for(channels: Channels) -> dict[int, int]:
    """The tables that keep channels, by call, and the axis along which their numbers may belong to these channels."""
    trace, found = channels.trace, {}
    makers = {number: index for index, call in enumerate(trace.calls) for number in call.outputs}
    tables = [index for index, call in enumerate(trace.calls) if isinstance(call.layer, Constant)]
    if not tables:
        return {}
    for index, call in enumerate(trace.calls):
        if channels.rules[index].flow is not join:
            continue
        rank = len(trace.shapes[call.outputs[0]])
        for size, axis in _kept_channels(channels, call.inputs, rank):
            for number in call.inputs:
                shape = (1,) * (rank - len(trace.shapes[number])) + trace.shapes[number]
                if shape[axis] == size and not (channels.tensors[number] >= 0).any():
                    own = axis - rank + len(trace.shapes[number])
                    for table in _tables_behind(channels, makers, number):
                        place = _axis_of(trace.calls[table].layer, size, own if makers[number] == table else None)
                        if place is not None:
                            found.setdefault(table, place)
    return found


def with_tables_of_their_own(trace: Trace, asked: dict[int, int]) -> tuple[Trace, dict[int, int]]:
    """The same network, in which each reader of these tables has one of its own; and the tables' axes, by call.

    What repeats a table for each example is no reader, but a table as well.
    """
    tables = {trace.calls[index].outputs[0] for index in asked}
    repeats = [
        index
        for index, call in enumerate(trace.calls)
        if isinstance(call.layer, Sized) and len(call.inputs) == 2 and call.inputs[1] in tables
    ]
    own, places = _one_for_each_reader(trace, repeats)
    moved = {places[index][0]: axis for index, axis in asked.items()}
    own, places = _one_for_each_reader(own, list(moved))
    return own, {place: axis for index, axis in moved.items() for place in places[index]}


def _one_for_each_reader(trace: Trace, indices: list[int]) -> tuple[Trace, list[list[int]]]:
    """The same network with a call of its own for each reader of these; and where each call stands now."""
    calls: list[Call] = []
    places: list[list[int]] = []
    shapes, dtypes, rows = list(trace.shapes), list(trace.dtypes), list(trace.rows)
    names = {call.name for call in trace.calls}
    copies: dict[int, dict[int, int]] = {}
    for index, call in enumerate(trace.calls):
        places.append([len(calls)])
        calls.append(_with_other_inputs(call, copies.get(index, {})))
        if index not in indices:
            continue
        (made,) = call.outputs
        readers = [number for number, other in enumerate(trace.calls) if made in other.inputs]
        for rank, reader in enumerate(readers[1:], start=2):
            copies.setdefault(reader, {})[made] = len(shapes)
            shapes.append(shapes[made])
            dtypes += dtypes[made : made + 1]
            rows += rows[made : made + 1]
            places[-1].append(len(calls))
            calls.append(_copy(call, rank, names, len(shapes) - 1))
    own = dataclasses.replace(trace, calls=tuple(calls), shapes=tuple(shapes), dtypes=tuple(dtypes), rows=tuple(rows))
    return own, places


def _kept_channels(channels: Channels, inputs: tuple[int, ...], rank: int) -> list[tuple[int, int]]:
    """How many channels that stay lie along an axis of a call's inputs, and that axis, counted in its output."""
    found = []
    for number in inputs:
        units = channels.tensors[number]
        inside = units[units >= 0]
        along = [axis for axis, length in enumerate(units.shape) if length == units.size > 1]
        if inside.size and along and not channels.prunable[channels.group_of[inside]].all():
            found.append((units.size, along[0] + rank - units.ndim))
    return found


def _tables_behind(channels: Channels, makers: dict[int, int], number: int) -> list[int]:
    """The tables from which a tensor without channels is made, by way of others without channels."""
    todo, seen, found = [number], {number}, []
    while todo:
        one = todo.pop()
        if one not in makers or (channels.tensors[one] >= 0).any():
            continue
        call = channels.trace.calls[makers[one]]
        if isinstance(call.layer, Constant):
            found.append(makers[one])
        todo += [other for other in call.inputs if other not in seen]
        seen.update(call.inputs)
    return sorted(found)


def _axis_of(table: Any, size: int, axis: int | None) -> int | None:
    """The axis of a table along which channels lie: the one that meets them, or the first as long as they are many."""
    if axis is not None:
        return axis
    return next((place for place, length in enumerate(table.value.shape) if length == size), None)


def _copy(call: Call, rank: int, names: set[str], output: int) -> Call:
    name = next(name for name in (f"{call.name}-{number}" for number in range(rank, 1 << 30)) if name not in names)
    names.add(name)
    layer: Any = call.layer
    if isinstance(layer, Constant):
        # The numbers themselves are shared, not copied.
        layer = Constant(layer.value, name=name, dtype=layer.dtype_policy)
    else:
        layer = type(layer).from_config({**layer.get_config(), "name": name})
    return dataclasses.replace(call, name=name, layer=layer, outputs=(output,))


def _with_other_inputs(call: Call, changed: dict[int, int]) -> Call:
    if not changed:
        return call
    args, kwargs = keras.tree.map_structure(
        lambda leaf: Ref(changed.get(leaf.index, leaf.index)) if isinstance(leaf, Ref) else leaf,
        (call.args, call.kwargs),
    )
    inputs = tuple(changed.get(number, number) for number in call.inputs)
    return dataclasses.replace(call, args=args, kwargs=kwargs, inputs=inputs)
