"""Which channels a network has, which are tied to each other, and what they cost.

A `ChannelGraph` is what users hold: the groups of channels whose widths MorphNet learns (`channels`), with what every
width costs and which layers are left without some of them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from ..cost.calls import CallWidths, Uncounted
from ..cost.costs import Cost, cost_of, multiply_adds, params
from ..errors import MorphError
from .channels import Channels
from .composites import channels_of_model
from .inside import Inside, bound
from .remembering import remembered
from .schedule import Step, scheduled
from .sizes import Sizes
from .topology import Topology, survivors
from .trace import Call, Ref

# A search looks at a few structures again and again; each schedule is some ten bytes a call.
_MOST_SCHEDULES = 64


class Widths(Protocol):
    """Whatever gives each group of a graph a width; `Structure` does."""

    def widths_in(self, graph: Any) -> np.ndarray:
        """Channels of every group: int array (groups,)."""
        ...


@dataclasses.dataclass(frozen=True)
class UncountedLayer:
    """A layer or operation whose multiply-adds are not known.

    Attributes:
        kind: its class.
        share: of the network's parameters that it holds, in [0, 1].
        reason: why they are not known.
    """

    kind: str
    share: float
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGraph(Channels):
    """The channels of one network. Its fields are those of `Channels`.

    Make one with `ChannelGraph.from_model`; `print` it to see the groups and, for what stays fixed, why.
    """

    @classmethod
    def from_model(cls, model: keras.Model) -> ChannelGraph:
        """Find the channel groups of a functional or Sequential Keras model; the model is left untouched.

        Layers that run other layers are opened: see `composites`. The graph is remembered with the model: the next call
        gives the same object, unless an attribute of one of the layers, or a rule, has changed.

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
        return remembered(model, lambda: cls._found(model))

    @classmethod
    def _found(cls, model: keras.Model) -> ChannelGraph:
        found = channels_of_model(model)
        return cls(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})

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

    def cost(self, cost: str | Callable | Cost, structure: Widths | None = None) -> float:
        """The cost of the seed, or of a structure of it.

        Args:
            cost: the name of a cost, such as "flops" (a multiply-add is 2) or "latency:v100", or a function.
            structure: widths to count with; the seed's own by default.

        Raises:
            MorphError: the cost is unknown, or the structure belongs to another network.
        """
        widths = self.seed_widths if structure is None else structure.widths_in(self)
        return float(self.costs([cost_of(cost)], widths, self.survivors(widths > 0))[0, 0])

    def cost_by_layer(self, cost: str | Callable | Cost, structure: Widths | None = None) -> dict[str, float]:
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

    def costs(self, costs: Sequence[Cost], widths: np.ndarray, left: Topology | None = None) -> np.ndarray:
        """Several costs of several networks at once: float array (costs, networks).

        Args:
            costs: what to count.
            widths: float array (groups,) or (networks, groups), channels left in each group.
            left: what is still there, in all of them; everything by default.
        """
        networks = np.atleast_2d(np.asarray(widths, dtype=float))
        totals = np.empty((len(costs), len(networks)))
        # One network is counted with plain numbers, which a user's own cost may rely on.
        together = self.call_widths(networks[0] if len(networks) == 1 else networks, left)
        for row, cost in enumerate(costs):
            if len(networks) == 1 or cost.of_call is not None or cost.takes_arrays:
                totals[row] = np.asarray(cost.total(together))
            else:
                totals[row] = [float(np.asarray(cost.total(self.call_widths(one, left)))) for one in networks]
        return totals

    def marginal_costs(self, cost: Cost, widths: np.ndarray, left: Topology | None = None) -> np.ndarray:
        """What one more channel of each group costs at these widths: float array (groups,).

        The cost half a channel above less the cost half a channel below: exact for costs up to degree two in each
        group, as FLOPs and parameters are.
        """
        widths = np.asarray(widths, dtype=float)
        half = 0.5 * np.eye(len(widths))
        (totals,) = self.costs([cost], np.concatenate([widths + half, widths - half]), left)
        return totals[: len(widths)] - totals[len(widths) :]

    def survivors(self, open_groups: np.ndarray) -> Topology:
        """Which layers are left when only these groups (bool array (groups,)) have channels; see `topology`."""
        return survivors(self, open_groups)

    def call_widths(self, widths: np.ndarray, left: Topology | None = None) -> list[CallWidths]:
        """How wide every call is that is left, for costs.

        Args:
            widths: float array (groups,) or (networks, groups).
            left: what is still there; everything by default.
        """
        sizes = self._sizes.axes(widths)

        @functools.cache
        def tensor_sizes() -> np.ndarray:
            return self._sizes.tensors(widths)

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
                    places=self._places[step.call],
                    axes={name: sizes[row] for name, row in self._sizes.rows[step.call].items()},
                    first=step.first,
                    counted=step.counted,
                    reads=step.reads,
                    makes=step.makes,
                    frees=step.frees,
                    tensor_sizes=tensor_sizes,
                    arguments=functools.partial(self._arguments, call, widths),
                    made=functools.partial(self._sizes.shape, call.outputs[0], widths),
                    inside=self._inside.count,
                    batch=self._sizes.batch,
                    rows=(self._first_rows(call.inputs), self._first_rows(call.outputs)),
                )
            )
        return calls

    def _arguments(self, call: Call, widths: np.ndarray) -> dict[str, Any]:
        """What a call is given, by name, at these widths; tensors are `Shape`s."""
        args, kwargs = keras.tree.map_structure(
            lambda leaf: self._sizes.shape(leaf.index, widths) if isinstance(leaf, Ref) else leaf,
            (call.args, call.kwargs),
        )
        return bound(call.layer, args, kwargs)

    def _schedule(self, left: Topology | None) -> list[Step]:
        """The calls left, in order, and the tensors each of them needs; remembered, since costs are taken in loops."""
        key = b"" if left is None else left.calls.tobytes() + left.tensors.tobytes()
        if key not in self._schedules:
            if len(self._schedules) >= _MOST_SCHEDULES:
                self._schedules.clear()
            self._schedules[key] = scheduled(self, left)
        return self._schedules[key]

    @functools.cached_property
    def _places(self) -> list[tuple[tuple[int | None, ...], ...]]:
        """For each call, the shapes of what it reads and makes, without the batch and the axes of channels."""

        def shape(number: int) -> tuple[int | None, ...]:
            labels, sizes = self.tensors[number].shape, self.trace.shapes[number]
            return tuple(
                size if axis and along == 1 else None
                for axis, (size, along) in enumerate(zip(sizes, labels, strict=True))
            )

        return [tuple(map(shape, (*call.inputs, call.outputs[0]))) for call in self.trace.calls]

    @functools.cached_property
    def _schedules(self) -> dict[bytes, list[Step]]:
        return {}

    def axis_width(self, call: int, axis: str, widths: np.ndarray) -> int:
        """Channels on a named axis of a call, at these widths: int array (groups,)."""
        return self._sizes.axis(call, axis, widths)

    @functools.cached_property
    def _sizes(self) -> Sizes:
        return Sizes(self)

    @functools.cached_property
    def _inside(self) -> Inside:
        return Inside()

    def _first_rows(self, tensors: tuple[int, ...]) -> float:
        return self._sizes.rows_of(tensors[0]) if tensors else 1

    def check_counted(self, cost: Cost, allowed: bool = False) -> None:
        """Raise a MorphError where a cost counts work, but layers with over 1 % of the parameters are `uncounted`."""
        if cost.counts_work:
            cost.check_complete({name: layer.share for name, layer in self.uncounted.items()}, allowed)

    @functools.cached_property
    def uncounted(self) -> dict[str, UncountedLayer]:
        """The layers whose multiply-adds are not known, by name: costs that count work leave them out."""
        calls = self.call_widths(self.seed_widths.astype(float))
        total = sum(params(call) for call in calls)
        found: dict[str, UncountedLayer] = {}
        for call in calls:
            try:
                multiply_adds(call)
            except Uncounted as reason:
                held = call.layer.count_params() if hasattr(call.layer, "count_params") else 0
                found.setdefault(call.name, UncountedLayer(call.kind, held / total if total else 0.0, str(reason)))
            except MorphError:
                # A size is unknown: then the cost itself is refused, which says more.
                continue
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
        for name, layer in self.uncounted.items():
            lines.append(
                f"  {name} ({layer.kind}): not in FLOPs and latency, with {layer.share:.1%} of the parameters: "
                f"{layer.reason}"
            )
        return "\n".join(lines)

    __repr__ = __str__


def _own_weights(layer: Any) -> list[Any]:
    """The weights of a layer, less those of an activation that is a layer: Keras makes these at the first run."""
    late = {id(weight) for weight in getattr(getattr(layer, "activation", None), "weights", [])}
    return [weight for weight in getattr(layer, "weights", []) if id(weight) not in late]


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
