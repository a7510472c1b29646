"""In which order the calls that are left run, and which tensors are there meanwhile: what costs of memory count."""

from __future__ import annotations

import dataclasses
import math

from .channels import Channels
from .topology import Topology


@dataclasses.dataclass(frozen=True)
class Step:
    """A call at its place in the schedule; the fields after it are those of `CallWidths`."""

    call: int
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    frees: tuple[int, ...]
    first: bool
    counted: int


def scheduled(channels: Channels, left: Topology | None) -> list[Step]:
    """What each call that is left reads, makes and frees. A tensor that is only passed on keeps its number."""
    trace = channels.trace
    origin = {number: number for number in trace.inputs}
    layers: set[int] = set()
    weights: set[int] = set()
    steps: list[Step] = []
    for index, call in enumerate(trace.calls):
        if left is not None and not left.calls[index]:
            continue
        reads = tuple(origin[number] for number in call.inputs if left is None or left.tensors[number])
        is_join_of_one = len(reads) == 1 < len(call.inputs)
        passes = len(reads) == 1 and (channels.rules[index].passes or is_join_of_one)
        origin.update((number, reads[0] if passes else number) for number in call.outputs)
        common = channels.weights_in_common.get(index, ())
        counted = sum(math.prod(weight.shape) for weight in common if id(weight) in weights)
        makes = () if passes else call.outputs
        steps.append(Step(index, reads, makes, (), id(call.layer) not in layers, counted))
        weights.update(id(weight) for weight in common)
        layers.add(id(call.layer))
    needed = {origin[number] for number in trace.outputs}
    for place in range(len(steps) - 1, -1, -1):
        held = dict.fromkeys((*steps[place].reads, *steps[place].makes))
        steps[place] = dataclasses.replace(steps[place], frees=tuple(number for number in held if number not in needed))
        needed.update(held)
    return steps
