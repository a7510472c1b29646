"""What a network costs, as functions of its widths.

A cost sees the network as a list of `CallWidths`, one for each layer call that is still there, and returns a number.
Widths may be fractions and may be arrays (several networks at once), which is how marginal costs are taken: the cost
half a channel above less the cost half a channel below, exact for costs up to degree two in each group, as FLOPs and
parameters are. With these two, `sum over channels of marginal cost x gate` is the bilinear regulariser of MorphNet
(Gordon et al., CVPR 2018, equations 4 to 6).

To add a cost, write a function and put it into `COSTS`; a user's own function can be passed wherever a name can.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MorphError
from .gating import weight_of
from .rules import Rule

if TYPE_CHECKING:
    from .graph import ChannelGraph


@dataclasses.dataclass(frozen=True, eq=False)
class CallWidths:
    """One layer call, and how wide it is.

    Attributes:
        name, kind: of the layer.
        layer: the seed's Keras layer: its configuration counts, its own width does not.
        rule: its row in the table of rules.
        input_shapes, output_shape: in the seed, batch first.
        axes: the number of channels on each named axis ("in", "out", ...): floats or float arrays (networks,).
        first: False when the same layer was called before, so that its weights are counted already.
    """

    name: str
    kind: str
    layer: Any
    rule: Rule
    input_shapes: tuple[tuple[int | None, ...], ...]
    output_shape: tuple[int | None, ...]
    axes: dict[str, Any]
    first: bool

    def weight_size(self, name: str) -> Any:
        """Elements of a weight at these widths; 0 when the layer has no such weight."""
        weight = weight_of(self.layer, name)
        if weight is None:
            return 0.0
        follows = self.rule.weights[name]
        size = 1.0
        padded = (None,) * (len(weight.shape) - len(follows)) + tuple(follows)
        for length, axis in zip(weight.shape, padded, strict=True):
            size = size * (length if axis is None or axis not in self.axes else self.axes[axis])
        return size

    def positions(self, side: str) -> int:
        """How often a kernel is applied for one example: the places of its "input", "last input" or "output"."""
        shape = {"input": self.input_shapes[:1], "last input": self.input_shapes[-1:]}.get(side, (self.output_shape,))[
            0
        ]
        first = getattr(self.layer, "data_format", None) == "channels_first"
        places = shape[2:] if first else shape[1:-1]
        if None in places:
            raise MorphError(
                f"Layer '{self.name}' ({self.kind}) has an {side} of unknown size {shape}, so its FLOPs are unknown. "
                "Give keras.Input a shape without None, or use cost='params'."
            )
        return math.prod(size or 1 for size in places)


@dataclasses.dataclass(frozen=True)
class Cost:
    """A named cost: the sum of `of_call` over the layer calls of a network, or `of_network` where it is no sum.

    Attributes:
        name: as in `cost="flops"`.
        unit: what one unit is, for people.
        of_call: `CallWidths` -> float (or array, when its axes are arrays).
        of_network: the calls of one network, in topological order -> float.
    """

    name: str
    unit: str
    of_call: Callable[[CallWidths], Any] | None = None
    of_network: Callable[[Sequence[CallWidths]], float] | None = None

    def total(self, calls: Sequence[CallWidths]) -> Any:
        if self.of_call is not None:
            return functools.reduce(lambda total, call: total + self.of_call(call), calls, 0.0)  # type: ignore[misc]
        assert self.of_network is not None
        return self.of_network(calls)


def flops(call: CallWidths) -> Any:
    """2 x the multiply-adds of convolutions, dense layers and attention for one example, elementwise work left out.

    Padding counts as work, as in morph-net: positions of the output x elements of the kernel.
    """
    kernels = sum(call.positions(side) * call.weight_size(name) for name, side in call.rule.kernels.items())
    return 2.0 * (kernels + (call.rule.products(call) if call.rule.products else 0.0))


def params(call: CallWidths) -> Any:
    """Elements of all weights, trainable or not, as `model.count_params()` counts them."""
    if not call.first or not hasattr(call.layer, "count_params"):
        return 0.0
    followed = [weight_of(call.layer, name) for name in call.rule.weights]
    rest = call.layer.count_params() - sum(math.prod(weight.shape) for weight in followed if weight is not None)
    return rest + sum(call.weight_size(name) for name in call.rule.weights)


COSTS: dict[str, Cost] = {
    "flops": Cost("flops", "FLOPs per example, a multiply-add being 2", of_call=flops),
    "params": Cost("params", "parameters", of_call=params),
}


def cost_of(cost: str | Callable | Cost) -> Cost:
    """The cost of that name, or a user's function of the list of `CallWidths`, wrapped.

    Raises:
        MorphError: there is no cost of that name.
    """
    if isinstance(cost, Cost):
        return cost
    if callable(cost):
        return Cost(getattr(cost, "__name__", "custom"), "units of the user's own cost", of_network=cost)
    if cost in COSTS:
        return COSTS[cost]
    raise MorphError(f"Unknown cost {cost!r}. Expected one of {_listed(COSTS)}, or a function of the layers' widths.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def total_cost(graph: ChannelGraph, cost: Cost, widths: np.ndarray, live: np.ndarray | None = None) -> float:
    """The cost of a network.

    Args:
        graph: of the seed.
        cost: what to count.
        widths: float array (groups,), channels left in each group.
        live: bool array (calls,), which calls are still there; all by default.
    """
    return float(np.asarray(cost.total(graph.call_widths(np.asarray(widths, dtype=float), live))))


def marginal_costs(graph: ChannelGraph, cost: Cost, widths: np.ndarray, live: np.ndarray | None = None) -> np.ndarray:
    """What one more channel of each group costs at these widths: float array (groups,)."""
    widths = np.asarray(widths, dtype=float)
    half = 0.5 * np.eye(len(widths))
    if cost.of_call is None:
        above = [total_cost(graph, cost, widths + step, live) for step in half]
        below = [total_cost(graph, cost, widths - step, live) for step in half]
        return np.array(above) - np.array(below)
    both = np.concatenate([widths + half, widths - half])
    totals = np.broadcast_to(cost.total(graph.call_widths(both, live)), len(both))
    return totals[: len(widths)] - totals[len(widths) :]
