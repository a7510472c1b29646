"""The channels of a network as plain data: which tensors and axes they lie on, and in which groups they come and go.

`grouping` makes it from a trace. Everything that follows channels through a network (`topology`, `schedule`, `gating`,
`placement`) reads it, and so does the `ChannelGraph` that users hold.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import Any

import numpy as np

from .rules import Rule
from .trace import Trace


@dataclasses.dataclass(frozen=True)
class Group:
    """Channels that appear in the same layers: one width to learn.

    Attributes:
        name: of the first layer that makes these channels.
        size: number of channels that can go independently of each other.
        producers: names of the layers that make them.
        consumers: names of the layers that read them and make others.
        reason: why the group stays as it is; empty when it can be pruned.
        makers, readers: the same layers, as indices of calls.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    reason: str
    makers: tuple[int, ...]
    readers: tuple[int, ...]

    @property
    def prunable(self) -> bool:
        return not self.reason


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """Which channels a network has, and what is tied to what.

    Attributes:
        name: of the model.
        trace: the network's layer calls.
        rules: for each call, its row in the table of rules.
        groups: in topological order, prunable and fixed.
        axes: for each call, by axis name, the channels on that axis: int array (size,) of unit numbers, -1 for a
            channel that belongs to no group.
        tensors: for each tensor, the unit numbers of its channels, as an int array that broadcasts to its shape.
        group_of: int array (units,), the group of each unit; a unit is one channel of one group.
        position_of: int array (units,), its place in the group.
        notes: on layers that make channels of no group, though a rule could give them one.
        refused: calls of layers without a rule of which the probe could not tell what they do.
    """

    name: str
    trace: Trace
    rules: tuple[Rule, ...]
    groups: tuple[Group, ...]
    axes: tuple[dict[str, np.ndarray], ...]
    tensors: tuple[np.ndarray, ...]
    group_of: np.ndarray
    position_of: np.ndarray
    notes: tuple[str, ...]
    refused: tuple[int, ...] = ()

    @functools.cached_property
    def seed_widths(self) -> np.ndarray:
        """Channels of each group in the seed: int array (groups,)."""
        return np.array([group.size for group in self.groups], dtype=np.int64)

    @functools.cached_property
    def prunable(self) -> np.ndarray:
        """Which groups can be pruned: bool array (groups,)."""
        return np.array([group.prunable for group in self.groups], dtype=bool)

    @functools.cached_property
    def from_data(self) -> list[bool]:
        """Which tensors depend on the model's inputs; a weight by itself, and what is made of it, does not."""
        found = [False] * len(self.trace.shapes)
        for number in self.trace.inputs:
            found[number] = True
        for call in self.trace.calls:
            for number in call.outputs:
                found[number] = any(found[read] for read in call.inputs)
        return found

    @functools.cached_property
    def prunable_places(self) -> int:
        """How many places on the axes of all calls hold a channel that can be pruned."""
        inside = [vector[vector >= 0] for axes in self.axes for vector in axes.values()]
        return sum(int(self.prunable[self.group_of[units]].sum()) for units in inside)

    @functools.cached_property
    def weights_in_common(self) -> dict[int, tuple[Any, ...]]:
        """The weights that another layer holds, too, by call; a layer that holds another one has all of its weights."""
        calls, holders = self.trace.calls, holders_of_weights(self.trace)
        shared = {number for number, held in holders.items() if len({id(calls[index].layer) for index in held}) > 1}
        found = {
            index: tuple(weight for weight in getattr(call.layer, "weights", ()) if id(weight) in shared)
            for index, call in enumerate(calls)
        }
        return {index: common for index, common in found.items() if common}

    def outputs_made(self, call: int, open_groups: int) -> list[bool]:
        """Which outputs of a call have channels when only these groups are open; none when a width inside has none.

        Args:
            call: its number.
            open_groups: a bit for each, see `as_bits`.
        """
        outputs, widths = self._made[call]
        lives = all(groups & open_groups for groups in widths)
        return [lives and bool(groups & open_groups) for groups in outputs]

    def needed_groups(self) -> int:
        """Groups that must have channels, whatever else has, since an output of the model is dead without them.

        Not all of these: where branches meet, one of them may be needed, but not the same one everywhere.

        Returns:
            A bit for each group.
        """
        trace = self.trace
        everything = (1 << len(self.groups)) - 1
        needs = dict.fromkeys(trace.inputs, 0)
        for index, call in enumerate(trace.calls):
            read = [needs[number] for number in call.inputs]
            join = operator.and_ if self.rules[index].joins else operator.or_
            outputs, widths = self._made[index]
            whole = functools.reduce(join, read) if read else 0
            for groups in widths:
                whole |= _only(groups & everything, groups)
            for number, groups in zip(call.outputs, outputs, strict=True):
                needs[number] = whole | _only(groups & everything, groups)
        return functools.reduce(operator.or_, (needs[number] for number in trace.outputs), 0)

    def places(self, tensor: int, axis: int, widths: np.ndarray) -> np.ndarray | None:
        """How many of each of the seed's places along an axis of a tensor are there now: float array (size,).

        None when the channels do not lie along that axis.
        """
        units = self.tensors[tensor]
        axis %= units.ndim
        if units.shape[axis] == 1 and self.trace.shapes[tensor][axis] != 1:
            return None
        vector = units.reshape(-1)
        if units.size != units.shape[axis] or not (vector >= 0).any():
            return None
        share = widths / np.maximum(self.seed_widths, 1)
        return np.where(vector >= 0, share[self.group_of[vector]], 1.0)

    def kept(self, tensor: int, axis: int, widths: np.ndarray, alive: np.ndarray | None) -> np.ndarray | None:
        """Which of the seed's places along an axis of a tensor are there now: int array; None as for `places`.

        Args:
            tensor: its number.
            axis: of the tensor.
            widths: int array (groups,).
            alive: bool array (units,), or None; where its channels are not as many as the widths say, such as in
                structures that were expanded, places are taken evenly from among the seed's.
        """
        left = self.places(tensor, axis, widths)
        if left is None:
            return None
        vector, count = self.tensors[tensor].reshape(-1), round(float(left.sum()))
        if alive is not None:
            places = np.flatnonzero(np.append(alive, True)[vector])
            if len(places) == count:
                return places
        return np.arange(count) * len(vector) // count

    @functools.cached_property
    def _made(self) -> list[tuple[list[int], list[int]]]:
        """For each call, for each output and for each width: its groups as bits; one more for channels of no group."""

        def content(units: np.ndarray) -> int:
            groups = np.unique(self.group_of[units[units >= 0]]).tolist()
            none = len(self.groups)
            return sum(1 << group for group in groups) | ((1 << none) if (units < 0).any() else 0)

        found = []
        for call, rule, axes in zip(self.trace.calls, self.rules, self.axes, strict=True):
            widths = [axes[name] for name in {*rule.widths.values(), *rule.gates.values()} if name in axes]
            found.append(
                ([content(self.tensors[number]) for number in call.outputs], [content(units) for units in widths])
            )
        return found


def holders_of_weights(trace: Trace) -> dict[int, list[int]]:
    """The calls whose layers hold a weight, by the weight's id."""
    holders: dict[int, list[int]] = {}
    for index, call in enumerate(trace.calls):
        for weight in getattr(call.layer, "weights", ()):
            holders.setdefault(id(weight), []).append(index)
    return holders


def as_bits(open_groups: np.ndarray) -> int:
    """Groups as the bits of a number, and one bit more for channels of no group, which are always there.

    Args:
        open_groups: bool array (groups,).
    """
    return int.from_bytes(np.packbits(open_groups, bitorder="little").tobytes(), "little") | 1 << len(open_groups)


def _only(among: int, groups: int) -> int:
    """The one group of a vector of channels that has no other; 0 for a vector that can do without any one of them."""
    return among if among == groups and among and not among & (among - 1) else 0
