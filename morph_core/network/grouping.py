"""From a trace to the groups of channels that come and go together.

One pass in topological order gives every channel of every tensor a label (see `rules`); channels that must come and go
together end up with one label. All labels that appear in the same places, equally often, form a `Group`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..arrays import weight_of
from .channels import Channels, Group, holders_of_weights
from .flows import Flow
from .labels import Labels
from .rules import rule_for
from .tables import tables_asked_for, with_tables_of_their_own
from .trace import Trace


def channels_of(name: str, trace: Trace) -> Channels:
    """The channels of the network of that name.

    Raises:
        MorphError: a layer's number of channels is unknown.
    """
    found = _either_way(name, trace, {})
    asked = tables_asked_for(found)
    if asked:
        own, axes = with_tables_of_their_own(trace, asked)
        further = _either_way(name, own, axes)
        if further.prunable_places > found.prunable_places:
            return further
    return found


def _either_way(name: str, trace: Trace, tables: dict[int, int]) -> Channels:
    """A reshape does not tell channels in blocks from features in heads: what can be pruned afterwards does."""
    grouping = _Grouping(name, trace, tables)
    found = grouping.channels()
    several = grouping.several
    stuck = [index for index in several if not _all_prunable(found, trace.calls[index].outputs)]
    if stuck:
        ways = {tuple(stuck), tuple(several)}
        others = [_Grouping(name, trace, tables, frozenset(first)).channels() for first in ways]
        found = max([found, *others], key=lambda channels: channels.prunable_places)
    return found


def _all_prunable(channels: Channels, tensors: tuple[int, ...]) -> bool:
    units = [channels.tensors[number].ravel() for number in tensors]
    return all((one >= 0).all() and channels.prunable[channels.group_of[one]].all() for one in units)


class _Grouping:
    """The pass that labels every tensor, and the step from labels to groups."""

    def __init__(
        self, name: str, traced: Trace, tables: dict[int, int], keeps_first: frozenset[int] = frozenset()
    ) -> None:
        self.name = name
        self.trace = traced
        self.tables = tables
        self.labels = Labels()
        self.tensors: list[Any] = [None] * len(traced.shapes)
        self.axes: list[dict[str, np.ndarray]] = []
        self.makes: list[set[str]] = []
        self.notes: list[str] = []
        self.refused: list[int] = []
        self.keeps_first = keeps_first
        self.several: list[int] = []
        self.rules = [rule_for(call.layer) for call in traced.calls]

    def channels(self) -> Channels:
        self._label_tensors()
        self._tie_shared_layers()
        self._keep_weights_in_common()
        for number in self.trace.outputs:
            self.labels.override(self.tensors[number], "it is an output of the model")
        axes = [{name: self.labels.roots(vector) for name, vector in named.items()} for named in self.axes]
        tensors = [self.labels.roots(labels) for labels in self.tensors]
        ids, group_of, position_of = _units(axes, len(self.labels))
        lookup = np.full(len(self.labels), -1)
        lookup[ids] = np.arange(len(ids))
        axes = tuple({name: lookup[vector] for name, vector in named.items()} for named in axes)
        tensors = tuple(lookup[labels] for labels in tensors)
        return Channels(
            name=self.name,
            trace=self.trace,
            rules=tuple(self.rules),
            groups=self._groups(axes, tensors, ids, group_of),
            axes=axes,
            tensors=tensors,
            group_of=group_of,
            position_of=position_of,
            notes=tuple(dict.fromkeys(self.notes)),
            refused=tuple(self.refused),
        )

    def _label_tensors(self) -> None:
        shapes = self.trace.shapes
        from_data = set(self.trace.inputs)
        for number in self.trace.inputs:
            self.tensors[number] = np.zeros([1] * len(shapes[number]), dtype=np.int64)
        for index, call in enumerate(self.trace.calls):
            flow = Flow(
                call=call,
                labels=self.labels,
                inputs=[self.tensors[number] for number in call.inputs],
                shapes=[shapes[number] for number in call.inputs],
                output_shapes=[shapes[number] for number in call.outputs],
                dtypes=[self.trace.dtypes[number] for number in call.inputs] if self.trace.dtypes else [],
                keeps_first=index in self.keeps_first,
                reads_data=not from_data.isdisjoint(call.inputs),
                table_axis=self.tables.get(index),
                rows=self.trace.rows[call.inputs[0]] if self.trace.rows and call.inputs else 0,
            )
            if flow.reads_data:
                from_data.update(call.outputs)
            made = self.rules[index].flow(flow)
            for number, labels in zip(call.outputs, [made] if isinstance(made, np.ndarray) else made, strict=True):
                self.tensors[number] = labels
            if flow.learned_weights:
                self.rules[index] = dataclasses.replace(self.rules[index], weights=flow.learned_weights)
            if flow.note:
                self.notes.append(flow.note)
            if flow.lays_along_several:
                self.several.append(index)
            if flow.is_refused:
                self.refused.append(index)
            self.axes.append(flow.axes)
            self.makes.append(flow.makes)

    def _tie_shared_layers(self) -> None:
        """A layer that is called twice has one set of weights, so both calls see the same channels."""
        first: dict[int, int] = {}
        for index, call in enumerate(self.trace.calls):
            earlier = first.setdefault(id(call.layer), index)
            if earlier == index:
                continue
            for name, vector in self.axes[index].items():
                other = self.axes[earlier].get(name, vector)
                if len(other) != len(vector):
                    # No weight can follow an axis that has another length at each call.
                    continue
                self.labels.unite(other, vector, f"layer '{call.name}' is also called on channels that stay")

    def _keep_weights_in_common(self) -> None:
        """A weight that two layers hold stays as it is: what one of them does with it need not follow its channels."""
        holders = holders_of_weights(self.trace)
        for index, call in enumerate(self.trace.calls):
            for path, follows in self.rules[index].weights.items():
                weight = weight_of(call.layer, path)
                others = [self.trace.calls[other] for other in holders.get(id(weight), ())]
                names = [f"'{other.name}' ({other.kind})" for other in others if other.layer is not call.layer]
                for axis in follows if names else ():
                    if axis in self.axes[index]:
                        reason = f"layer {names[0]} holds a weight of layer '{call.name}' ({call.kind}), too"
                        self.labels.freeze(self.axes[index][axis], reason)

    def _groups(
        self,
        axes: tuple[dict[str, np.ndarray], ...],
        tensors: tuple[np.ndarray, ...],
        ids: np.ndarray,
        group_of: np.ndarray,
    ) -> tuple[Group, ...]:
        count = int(group_of.max()) + 1 if len(group_of) else 0
        makers: list[list[int]] = [[] for _ in range(count)]
        readers: list[list[int]] = [[] for _ in range(count)]
        delivered: set[int] = set()
        for number in self.trace.outputs:
            delivered.update(_groups_in(tensors[number], group_of))
        for index, (call, rule) in enumerate(zip(self.trace.calls, self.rules, strict=True)):
            for name in self.makes[index]:
                for group in _groups_in(axes[index][name], group_of):
                    makers[group].append(index)
            carried = {group for number in call.outputs for group in _groups_in(tensors[number], group_of)}
            read = {group for number in call.inputs for group in _groups_in(tensors[number], group_of)} - carried
            for name in rule.gates.values():
                if name in axes[index]:
                    read |= _groups_in(axes[index][name], group_of)
            for group in read:
                readers[group].append(index)
        reasons = self.labels.reasons()
        why: list[str] = [""] * count
        for unit, label in enumerate(ids.tolist()):
            group = int(group_of[unit])
            why[group] = why[group] or reasons.get(label, "")
        sizes = np.bincount(group_of, minlength=count).tolist() if count else []
        calls = self.trace.calls
        names: dict[str, int] = {}
        groups = []
        for index in range(count):
            if not makers[index]:
                # No layer made channels for it that the numbers of a table could go with.
                makers[index] = [
                    next(place for place, named in enumerate(axes) if index in _groups_of(named, group_of))
                ]
                why[index] = why[index] or "it is a table of numbers"
            base = calls[makers[index][0]].name
            names[base] = names.get(base, 0) + 1
            groups.append(
                Group(
                    name=base if names[base] == 1 else f"{base}:{names[base]}",
                    size=sizes[index],
                    producers=tuple(dict.fromkeys(calls[maker].name for maker in makers[index])),
                    consumers=tuple(dict.fromkeys(calls[reader].name for reader in readers[index])),
                    reason=why[index],
                    makers=tuple(makers[index]),
                    readers=() if index in delivered else tuple(readers[index]),
                )
            )
        return tuple(groups)


def _groups_of(named: dict[str, np.ndarray], group_of: np.ndarray) -> set[int]:
    return set().union(*(_groups_in(vector, group_of) for vector in named.values()))


def _groups_in(units: np.ndarray, group_of: np.ndarray) -> set[int]:
    inside = units[units >= 0]
    return set(np.unique(group_of[inside]).tolist())


def _units(axes: list[dict[str, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units (labels in use, in order of appearance), the group of each, and its place in the group.

    Labels that stand on the same axes equally often are one group. Each axis is given a random 64-bit number, and a
    label the sum of the numbers of the axes it stands on: equal sums, equal places.
    """
    rng = np.random.default_rng(0)
    signature = np.zeros(count, dtype=np.uint64)
    order = []
    for named in axes:
        for name in sorted(named):
            vector = named[name]
            np.add.at(signature, vector, rng.integers(1, 2**63, dtype=np.uint64))
            order.append(vector)
    used = np.concatenate([*order, np.zeros(0, dtype=np.int64)])
    ids, first = np.unique(used, return_index=True)
    ids = ids[np.argsort(first)]
    ids = ids[ids != 0]
    group_of = np.zeros(len(ids), dtype=np.int64)
    position_of = np.zeros(len(ids), dtype=np.int64)
    numbers: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for unit, mark in enumerate(signature[ids].tolist()):
        group = numbers.setdefault(mark, len(numbers))
        group_of[unit] = group
        position_of[unit] = sizes.get(group, 0)
        sizes[group] = position_of[unit] + 1
    return ids, group_of, position_of
