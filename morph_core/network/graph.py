"""Which channels a network has, which are tied to each other, and what they cost.

One pass in topological order gives every channel of every tensor a label (see `rules`); channels that must come and go
together end up with one label. All labels that appear in the same places, equally often, form a `Group`: the unit whose
width MorphNet learns. A `ChannelGraph` is that list of groups, with the map from groups to the axes of every layer.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ..cost.costs import CallWidths, Cost, cost_of, total_cost
from .flows import Flow
from .labels import Labels
from .rules import Rule, rule_for
from .topology import Topology, survivors
from .trace import Trace, trace

if TYPE_CHECKING:
    from ..structure.structure import Structure


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
class ChannelGraph:
    """The channels of one network.

    Make one with `ChannelGraph.from_model`; `print` it to see the groups and, for what stays fixed, why.

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

    @classmethod
    def from_model(cls, model: keras.Model) -> ChannelGraph:
        """Find the channel groups of a functional or Sequential Keras model; the model is left untouched.

        Raises:
            MorphError: the model is subclassed, not built, or has a layer whose number of channels is unknown.

        Example:
            >>> import keras, morph_core as morph
            >>> image = keras.Input((8, 8, 3))
            >>> wide = keras.layers.Conv2D(16, 3, activation="relu")(image)
            >>> model = keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(wide)))
            >>> [(group.size, group.prunable) for group in morph.ChannelGraph.from_model(model).groups]
            [(16, True), (10, False)]
        """
        return _Builder(model.name if isinstance(model, keras.Model) else "", trace(model)).build()

    @functools.cached_property
    def seed_widths(self) -> np.ndarray:
        """Channels of each group in the seed: int array (groups,)."""
        return np.array([group.size for group in self.groups], dtype=np.int64)

    @functools.cached_property
    def prunable(self) -> np.ndarray:
        """Which groups can be pruned: bool array (groups,)."""
        return np.array([group.prunable for group in self.groups], dtype=bool)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the network's layers, wiring and shapes: equal for the same architecture in any process."""
        facts = [
            [
                call.name,
                call.kind,
                call.inputs,
                call.outputs,
                [self.trace.shapes[number] for number in call.outputs],
                [tuple(weight.shape) for weight in _own_weights(call.layer)],
            ]
            for call in self.trace.calls
        ]
        inputs = [self.trace.shapes[number] for number in self.trace.inputs]
        text = json.dumps([inputs, facts, self.trace.outputs], separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def cost(self, cost: str | Callable | Cost, structure: Structure | None = None) -> float:
        """The cost of the seed, or of a structure of it.

        Args:
            cost: the name of a cost, such as "flops" (a multiply-add is 2) or "latency:v100", or a function.
            structure: widths to count with; the seed's own by default.

        Raises:
            MorphError: the cost is unknown, or the structure belongs to another network.
        """
        widths = self.seed_widths if structure is None else structure.widths_in(self)
        return total_cost(self, cost_of(cost), widths, self.survivors(widths > 0))

    def cost_by_layer(self, cost: str | Callable | Cost, structure: Structure | None = None) -> dict[str, float]:
        """How a cost spreads over the layers that are left, by name, in topological order.

        Empty for a cost that is no sum over layers, such as the peak of activation memory. Arguments are those of
        `cost`.
        """
        counted = cost_of(cost)
        widths = self.seed_widths if structure is None else structure.widths_in(self)
        spent: dict[str, float] = {}
        if counted.of_call is not None:
            for call in self.call_widths(widths.astype(float), self.survivors(widths > 0)):
                spent[call.name] = spent.get(call.name, 0.0) + float(counted.of_call(call))
        return spent

    def survivors(self, open_groups: np.ndarray) -> Topology:
        """Which layers are left when only these groups (bool array (groups,)) have channels; see `topology`."""
        return survivors(self, open_groups)

    def call_widths(self, widths: np.ndarray, left: Topology | None = None) -> list[CallWidths]:
        """How wide every call is that is left, for costs.

        Args:
            widths: float array (groups,) or (networks, groups).
            left: what is still there; everything by default.
        """
        counts, fixed = self._axis_counts
        sizes = np.atleast_1d((widths @ counts.T + fixed).T)

        @functools.cache
        def tensor_sizes() -> np.ndarray:
            per_channel, rest = self._tensor_counts
            return np.atleast_1d((widths @ per_channel.T + rest).T)

        calls = []
        for step in self._schedule(left):
            call = self.trace.calls[step.call]
            calls.append(
                CallWidths(
                    name=call.name,
                    kind=call.kind,
                    layer=call.layer,
                    rule=self.rules[step.call],
                    input_shapes=tuple(self.trace.shapes[number] for number in call.inputs),
                    output_shape=self.trace.shapes[call.outputs[0]],
                    axes={name: sizes[row] for name, row in self._axis_rows[step.call].items()},
                    first=step.first,
                    reads=step.reads,
                    makes=step.makes,
                    frees=step.frees,
                    tensor_sizes=tensor_sizes,
                )
            )
        return calls

    def _schedule(self, left: Topology | None) -> list[_Step]:
        """The calls left, in order, and the tensors each of them needs; remembered, since costs are taken in loops."""
        key = b"" if left is None else left.calls.tobytes() + left.tensors.tobytes()
        if key not in self._schedules:
            if len(self._schedules) >= _MOST_SCHEDULES:
                self._schedules.clear()
            self._schedules[key] = _scheduled(self, left)
        return self._schedules[key]

    @functools.cached_property
    def _schedules(self) -> dict[bytes, list[_Step]]:
        return {}

    def outputs_made(self, call: int, open_groups: np.ndarray) -> list[bool]:
        """Which outputs of a call have channels when only these groups are open; none when a width inside has none."""
        outputs, widths = (
            [fixed or bool(open_groups[groups].any()) for fixed, groups in vectors] for vectors in self._made[call]
        )
        return outputs if all(widths) else [False] * len(outputs)

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

    def axis_width(self, call: int, axis: str, widths: np.ndarray) -> int:
        """Channels on a named axis of a call, at these widths: int array (groups,)."""
        counts, fixed = self._axis_counts
        row = self._axis_rows[call][axis]
        return int(counts[row] @ widths + fixed[row])

    @functools.cached_property
    def _axis_rows(self) -> list[dict[str, int]]:
        rows, total = [], 0
        for axes in self.axes:
            rows.append({name: total + offset for offset, name in enumerate(axes)})
            total += len(axes)
        return rows

    @functools.cached_property
    def _axis_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """For every axis of every call: channels per channel of each group, and those of no group."""
        vectors = [vector for axes in self.axes for vector in axes.values()]
        counts = np.zeros((len(vectors), len(self.groups)))
        fixed = np.zeros(len(vectors))
        for row, vector in enumerate(vectors):
            units = vector[vector >= 0]
            fixed[row] = len(vector) - len(units)
            if len(units):
                counts[row] = np.bincount(self.group_of[units], minlength=len(self.groups))
        return counts / np.maximum(self.seed_widths, 1), fixed

    @functools.cached_property
    def _tensor_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """For every tensor of one example: elements per channel of each group, and those of no group (NaN: unknown)."""
        counts = np.zeros((len(self.tensors), len(self.groups)))
        fixed = np.zeros(len(self.tensors))
        for number, (units, shape) in enumerate(zip(self.tensors, self.trace.shapes, strict=True)):
            # Labels have length 1 along axes of places, the batch being the first.
            places = [size for axis, size in enumerate(shape) if axis and units.shape[axis] == 1]
            if None in places:
                fixed[number] = np.nan
                continue
            each = math.prod(size for size in places if size is not None)
            inside = units[units >= 0]
            fixed[number] = each * (units.size - inside.size)
            if inside.size:
                counts[number] = each * np.bincount(self.group_of[inside], minlength=len(self.groups))
        return counts / np.maximum(self.seed_widths, 1), fixed

    @functools.cached_property
    def _made(self) -> list[tuple[list[tuple[bool, np.ndarray]], list[tuple[bool, np.ndarray]]]]:
        """For each call, for each output and for each width: whether it has channels of no group, and its groups."""

        def content(units: np.ndarray) -> tuple[bool, np.ndarray]:
            return bool((units < 0).any()), np.unique(self.group_of[units[units >= 0]])

        found = []
        for call, rule, axes in zip(self.trace.calls, self.rules, self.axes, strict=True):
            widths = [axes[name] for name in {*rule.widths.values(), *rule.gates.values()} if name in axes]
            found.append(
                ([content(self.tensors[number]) for number in call.outputs], [content(units) for units in widths])
            )
        return found

    def __str__(self) -> str:
        prunable = [group for group in self.groups if group.prunable]
        fixed = [group for group in self.groups if not group.prunable]
        lines = [
            f"{self.name}: {len(prunable)} groups can be pruned ({sum(group.size for group in prunable)} channels), "
            f"{len(fixed)} stay fixed"
        ]
        for group in prunable:
            lines.append(
                f"  {group.name}: {group.size} channels, made by {_short(group.producers)}, "
                f"read by {_short(group.consumers)}"
            )
        for group in fixed:
            lines.append(f"  {group.name}: {group.size} channels, fixed: {group.reason}")
        lines.extend(f"  {note}" for note in self.notes)
        return "\n".join(lines)

    __repr__ = __str__


def _own_weights(layer: Any) -> list[Any]:
    """The weights of a layer, less those of an activation that is a layer: Keras makes these at the first run."""
    late = {id(weight) for weight in getattr(getattr(layer, "activation", None), "weights", [])}
    return [weight for weight in getattr(layer, "weights", []) if id(weight) not in late]


# A search looks at a few structures again and again; each schedule is some ten bytes a call.
_MOST_SCHEDULES = 64


@dataclasses.dataclass(frozen=True)
class _Step:
    """A call at its place in the schedule: `reads`, `makes`, `frees` and `first` are those of `CallWidths`."""

    call: int
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    frees: tuple[int, ...]
    first: bool


def _scheduled(graph: ChannelGraph, left: Topology | None) -> list[_Step]:
    """What each call that is left reads, makes and frees. A tensor that is only passed on keeps its number."""
    trace = graph.trace
    origin = {number: number for number in trace.inputs}
    layers: set[int] = set()
    steps: list[_Step] = []
    for index, call in enumerate(trace.calls):
        if left is not None and not left.calls[index]:
            continue
        reads = tuple(origin[number] for number in call.inputs if left is None or left.tensors[number])
        is_join_of_one = len(reads) == 1 < len(call.inputs)
        passes = len(reads) == 1 and (graph.rules[index].passes or is_join_of_one)
        origin.update((number, reads[0] if passes else number) for number in call.outputs)
        steps.append(_Step(index, reads, () if passes else call.outputs, (), id(call.layer) not in layers))
        layers.add(id(call.layer))
    needed = {origin[number] for number in trace.outputs}
    for place in range(len(steps) - 1, -1, -1):
        held = dict.fromkeys((*steps[place].reads, *steps[place].makes))
        steps[place] = dataclasses.replace(steps[place], frees=tuple(number for number in held if number not in needed))
        needed.update(held)
    return steps


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


class _Builder:
    """The pass that labels every tensor, and the step from labels to groups."""

    def __init__(self, name: str, traced: Trace) -> None:
        self.name = name
        self.trace = traced
        self.labels = Labels()
        self.tensors: list[Any] = [None] * len(traced.shapes)
        self.axes: list[dict[str, np.ndarray]] = []
        self.makes: list[set[str]] = []
        self.notes: list[str] = []
        self.rules = [rule_for(call.layer) for call in traced.calls]

    def build(self) -> ChannelGraph:
        self._label_tensors()
        self._tie_shared_layers()
        for number in self.trace.outputs:
            self.labels.override(self.tensors[number], "it is an output of the model")
        axes = [{name: self.labels.roots(vector) for name, vector in named.items()} for named in self.axes]
        tensors = [self.labels.roots(labels) for labels in self.tensors]
        ids, group_of, position_of = _units(axes, len(self.labels))
        lookup = np.full(len(self.labels), -1)
        lookup[ids] = np.arange(len(ids))
        axes = tuple({name: lookup[vector] for name, vector in named.items()} for named in axes)
        tensors = tuple(lookup[labels] for labels in tensors)
        return ChannelGraph(
            name=self.name,
            trace=self.trace,
            rules=tuple(self.rules),
            groups=self._groups(axes, tensors, ids, group_of),
            axes=axes,
            tensors=tensors,
            group_of=group_of,
            position_of=position_of,
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _label_tensors(self) -> None:
        shapes = self.trace.shapes
        for number in self.trace.inputs:
            self.tensors[number] = np.zeros([1] * len(shapes[number]), dtype=np.int64)
        for index, call in enumerate(self.trace.calls):
            flow = Flow(
                call=call,
                labels=self.labels,
                inputs=[self.tensors[number] for number in call.inputs],
                shapes=[shapes[number] for number in call.inputs],
                output_shapes=[shapes[number] for number in call.outputs],
            )
            made = self.rules[index].flow(flow)
            for number, labels in zip(call.outputs, [made] if isinstance(made, np.ndarray) else made, strict=True):
                self.tensors[number] = labels
            if flow.learned_weights:
                self.rules[index] = dataclasses.replace(self.rules[index], weights=flow.learned_weights)
            if flow.note:
                self.notes.append(flow.note)
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
                other = self.axes[earlier][name]
                self.labels.unite(other, vector, f"layer '{call.name}' is also called on channels that stay")

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
