"""Which layers are left when groups lose all their channels.

A layer without input channels, or without output channels, is dead; so is whatever reads only dead tensors, and
whatever is read only by the dead. Where branches meet, the dead one is left out: an Add with one live input is that
input, a Multiply too, and a Concatenate joins what is left. So a residual block goes when one layer inside it dies, and
an Inception tower, and the squeeze-and-excite branch of a block. A weight by itself is no branch: what joins it with
data, such as a scale, is dead without the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from ..errors import MorphError
from .channels import Channels, as_bits


@dataclasses.dataclass(frozen=True, eq=False)
class Topology:
    """What is left of a network.

    Attributes:
        calls: bool array (calls,), which layer calls are left.
        tensors: bool array (tensors,), which tensors are.
        groups: bool array (groups,), which groups have channels left.
    """

    calls: np.ndarray
    tensors: np.ndarray
    groups: np.ndarray


def survivors(channels: Channels, open_groups: np.ndarray) -> Topology:
    """What is left when only `open_groups` (bool array (groups,)) have channels.

    Raises:
        MorphError: an output of the model would be dead, or a layer cannot do without an input that is.
    """
    open_groups = np.array(open_groups, dtype=bool)
    while True:
        calls, tensors = _spread(channels, open_groups)
        still = open_groups.copy()
        for index, group in enumerate(channels.groups):
            if still[index] and not (_any(calls, group.makers) and _any(calls, group.readers)):
                still[index] = False
        if (still == open_groups).all():
            return Topology(calls, tensors, still)
        open_groups = still


def removable_inputs(channels: Channels) -> dict[int, tuple[int, ...]]:
    """For each call where branches meet, those of its inputs that some structure leaves out, by tensor number.

    A tensor counts when it would be dead without any channels, and when the model's output survives its death.
    """
    nothing = _flow_down(channels, ~channels.prunable)
    found = {}
    for index, call in enumerate(channels.trace.calls):
        if channels.rules[index].joins not in ("merge", "first") or len(set(call.inputs)) < 2:
            continue
        numbers = [number for number in dict.fromkeys(call.inputs) if not nothing[number]]
        numbers = [
            number for number in numbers if _flow_down(channels, None, number)[list(channels.trace.outputs)].all()
        ]
        if numbers:
            found[index] = tuple(numbers)
    return found


def _flow_down(channels: Channels, open_groups: np.ndarray | None, dead: int | None = None) -> np.ndarray:
    """Which tensors are live, bool array (tensors,), without these groups' channels and without one tensor."""
    trace = channels.trace
    bits = as_bits(np.ones(len(channels.groups), dtype=bool) if open_groups is None else open_groups)
    live = np.zeros(len(trace.shapes), dtype=bool)
    live[list(trace.inputs)] = True
    for index, call in enumerate(trace.calls):
        kept = live[list(call.inputs)]
        if not _has_data(channels, call.inputs, kept):
            continue
        passes = kept.any() if channels.rules[index].joins else kept.all()
        if passes or not len(kept):
            live[list(call.outputs)] = channels.outputs_made(index, bits)
        if dead is not None and dead in call.outputs:
            live[dead] = False
    return live


def _any(calls: np.ndarray, indices: tuple[int, ...]) -> bool:
    return not indices or bool(calls[list(indices)].any())


def _spread(channels: Channels, open_groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One pass down for what is dead, one pass up for what nobody reads."""
    trace, bits = channels.trace, as_bits(open_groups)
    live = [False] * len(trace.shapes)
    for number in trace.inputs:
        live[number] = True
    alive = [False] * len(trace.calls)
    for index, call in enumerate(trace.calls):
        kept = [live[number] for number in call.inputs]
        if (any(kept) or not kept) and _has_data(channels, call.inputs, kept):
            if not all(kept):
                _check_join(channels, index, kept)
            for number, is_made in zip(call.outputs, channels.outputs_made(index, bits), strict=True):
                live[number] = is_made
                alive[index] |= is_made
    for number in trace.outputs:
        if not live[number]:
            raise MorphError(_dead_output(channels, open_groups))
    needed = [False] * len(trace.shapes)
    for number in trace.outputs:
        needed[number] = True
    for index in range(len(trace.calls) - 1, -1, -1):
        call = trace.calls[index]
        alive[index] = alive[index] and any(needed[number] for number in call.outputs)
        if alive[index]:
            for number in call.inputs:
                needed[number] = True
    return np.array(alive, dtype=bool), np.array(live, dtype=bool) & np.array(needed, dtype=bool)


def _has_data(channels: Channels, inputs: tuple[int, ...], kept: Iterable[bool]) -> bool:
    """Whether some of the inputs that are left depend on data, unless none ever did."""
    data = [channels.from_data[number] for number in inputs]
    return not any(data) or any(one and is_kept for one, is_kept in zip(data, kept, strict=True))


def _check_join(channels: Channels, index: int, kept: list[bool]) -> None:
    """Raise unless call `index` can do with the inputs that are left."""
    call, shapes = channels.trace.calls[index], channels.trace.shapes
    left = [shapes[number] for number, is_kept in zip(call.inputs, kept, strict=True) if is_kept]
    joins = channels.rules[index].joins
    passes = len(left) == 1 and left[0] == shapes[call.outputs[0]]
    if (
        joins == "append"
        or (joins == "merge" and (passes or len(left) > 1))
        or (joins == "first" and passes and kept[0])
    ):
        return
    raise MorphError(
        f"Layer '{call.name}' ({call.kind}) cannot do without the input that would be removed. "
        "Keep at least one channel in every group that leads to it."
    )


def _dead_output(channels: Channels, open_groups: np.ndarray) -> str:
    closed = [group.name for group, is_open in zip(channels.groups, open_groups, strict=True) if not is_open]
    shown = ", ".join(f"'{name}'" for name in closed[:5]) + (", ..." if len(closed) > 5 else "")
    return (
        f"Without the channels of {shown} nothing reaches the model's output. "
        "Keep at least one channel on some way from the input to each output."
    )
