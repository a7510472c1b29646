"""What a network costs, as functions of its widths.

A cost sees the network as a list of `CallWidths`, one for each layer call that is still there, and returns a number.
Widths may be fractions and may be arrays (several networks at once), which is how marginal costs are taken: the cost
half a channel above less the cost half a channel below, exact for costs up to degree two in each group, as FLOPs and
parameters are. With these two, `sum over channels of marginal cost x gate` is the bilinear regulariser of MorphNet
(Gordon et al., CVPR 2018, equations 4 to 6).

To add a cost, write a function and put it into `COSTS`; a user's own function can be passed wherever a name can.
`latency` makes costs of devices, see `devices`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import weight_of
from ..errors import MorphError
from .calibration import Calibration
from .calls import CallWidths, Uncounted
from .devices import DEVICES, Device, find_device

MOST_UNCOUNTED = 0.01
"""Of the parameters, as a fraction: where layers with more of them are not counted, a cost of work is no measure."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """A named cost: the sum of `of_call` over the layer calls of a network, or `of_network` where it is no sum.

    Attributes:
        name: as in `cost="flops"`.
        unit: what one unit is, for people.
        of_call: `CallWidths` -> float (or array, when its axes are arrays).
        of_network: the calls of a network, in topological order -> float.
        takes_arrays: whether `of_network`, too, gives an array when axes and sizes are arrays.
        counts_work: whether multiply-adds are in it, so that it is incomplete where some layer's are not known.
        calibration: where it was measured.
    """

    name: str
    unit: str
    of_call: Callable[[CallWidths], Any] | None = None
    of_network: Callable[[Sequence[CallWidths]], Any] | None = None
    takes_arrays: bool = False
    counts_work: bool = False
    calibration: Calibration | None = None

    def check_complete(self, uncounted: Mapping[str, float], allowed: bool) -> None:
        """Raise a MorphError where this cost counts work, and too much of a network is not counted.

        Args:
            uncounted: layers whose work is not known, with the share of the parameters that each holds.
            allowed: whether the user wants it all the same.
        """
        share = sum(uncounted.values())
        if self.counts_work and not allowed and share > MOST_UNCOUNTED:
            named = ", ".join(f"'{name}' ({part:.1%})" for name, part in uncounted.items())
            raise MorphError(
                f"Cost '{self.name}' leaves out layers with {share:.1%} of the parameters, because what they multiply "
                f"is not known: {named}. Give each a row with kernels or products by morph_core.register_rule, use "
                "cost='params', which counts everything, or pass allow_uncounted=True to search without their work."
            )

    def total(self, calls: Sequence[CallWidths]) -> Any:
        if self.of_call is not None:
            return functools.reduce(lambda total, call: total + self.of_call(call), calls, 0.0)  # type: ignore[misc]
        assert self.of_network is not None
        return self.of_network(calls)


def flops(call: CallWidths) -> Any:
    """2 x the multiply-adds of matrix products and convolutions for one example, elementwise work left out.

    Padding counts as work, as in morph-net: positions of the output x elements of the kernel. Work that is not known
    is 0 here; `ChannelGraph.uncounted` names the layers that it is about.
    """
    try:
        return 2.0 * multiply_adds(call)
    except Uncounted:
        return 0.0


def multiply_adds(call: CallWidths) -> Any:
    """Multiply-adds of one call for one example.

    Raises:
        Uncounted: they are not known.
    """
    kernels = sum(call.positions(side) * call.weight_size(name) for name, side in call.rule.kernels.items())
    return kernels + (call.rule.products(call) if call.rule.products else 0.0)


def params(call: CallWidths) -> Any:
    """Elements of all weights, trainable or not, as `model.count_params()` counts them."""
    return _weights(call) - call.counted if call.first else 0.0


def _weights(call: CallWidths) -> Any:
    if not hasattr(call.layer, "count_params"):
        return 0.0
    followed = [weight_of(call.layer, name) for name in call.rule.weights]
    rest = call.layer.count_params() - sum(math.prod(weight.shape) for weight in followed if weight is not None)
    return rest + sum(call.weight_size(name) for name in call.rule.weights)


def activation_memory(calls: Sequence[CallWidths]) -> Any:
    """Bytes that the tensors of one example take when they take most, as float32.

    Calls run one after the other in topological order. A tensor is there from the call that makes it (the network's
    inputs from the start) to its last reader, the network's outputs to the end; a call needs all it reads and all it
    makes at once, so nothing is computed in place. Weights, and what a layer needs inside, are not counted.
    """
    now = _inputs(calls)
    most = now
    for call in calls:
        now = now + call.elements(call.makes)
        most = np.maximum(most, now)
        now = now - call.elements(call.frees)
    return 4.0 * most


def activation_total(calls: Sequence[CallWidths]) -> Any:
    """Bytes of all tensors of one example together, as float32: what training keeps for the gradient, roughly."""
    return 4.0 * functools.reduce(lambda total, call: total + call.elements(call.makes), calls, _inputs(calls))


def _inputs(calls: Sequence[CallWidths]) -> Any:
    """Elements of the tensors that are read but never made."""
    made = {number for call in calls for number in call.makes}
    reader = {number: call for call in calls for number in call.reads if number not in made}
    return functools.reduce(lambda total, number: total + reader[number].elements([number]), reader, 0.0)


def latency(device: str | Device | Calibration) -> Cost:
    """Milliseconds that a device needs for one example; `cost="latency:v100"` or `"latency:FILE.json"` for short.

    With a file that `morph_core.calibrate` wrote, they are what was measured, read off its tables (see `calibration`).
    Of a device they are those of the roofline model. Every call takes as long as its FLOPs at the device's peak or its
    bytes at the device's bandwidth, whichever is longer, and the device's overhead. Its bytes are what it reads, what
    it makes, and its weights; of weights that are looked up (an embedding's) no more than it makes. A call that only
    passes its input on takes no time. Nothing is fused, and no device reaches its peak: take it as a comparison.

    Args:
        device: a name in `morph_core.cost.devices.DEVICES`, the path of a calibration file, a `Device`, or a
            `Calibration`. One that was measured on another machine than this one is told of in a warning, once.

    Raises:
        MorphError: the device is unknown, or the file is no calibration.

    Example:
        A dense layer of 1000 x 1000 moves 4 MB of weights, 8 kB of activations; a V100 moves 900 MB in a millisecond:

        >>> import keras, morph_core as morph
        >>> inputs = keras.Input((1000,))
        >>> model = keras.Model(inputs, keras.layers.Dense(1000, use_bias=False)(inputs))
        >>> round(morph.ChannelGraph.from_model(model).cost(morph.latency("v100")), 5)  # 4.008 / 900 + 0.005
        0.00945
    """
    known = find_device(device) if isinstance(device, str) else device
    if isinstance(known, Calibration):
        return _measured_latency(known)

    def milliseconds(call: CallWidths) -> Any:
        if not (call.makes and call.reads):  # what reads nothing, such as a weight by itself, is there already
            return 0.0
        work = flops(call)
        moved = known.bytes_per_element * elements_moved(call, work)
        longer = np.maximum(work / known.gflops, moved / known.gigabytes_per_second)
        return longer / 1e6 + known.overhead_us / 1e3

    return Cost(f"latency:{known.name}", f"ms per example on {known.name}", of_call=milliseconds, counts_work=True)


def elements_moved(call: CallWidths, work: Any) -> Any:
    """Elements that a call reads and makes for one example, weights included; of a table, only what is looked up.

    Args:
        work: its FLOPs.
    """
    made = call.elements(call.makes)
    weights = _weights(call)
    weights = np.where(np.asarray(work) == 0, np.minimum(weights, made), weights)
    return call.elements(dict.fromkeys(call.reads)) + made + weights


# Of these it was said already that they are from elsewhere.
_told: set[str] = set()


def _measured_latency(calibration: Calibration) -> Cost:
    warning = calibration.elsewhere()
    if warning and warning not in _told:
        _told.add(warning)
        warnings.warn(warning, stacklevel=2)
    timed = calibration.timer()

    def milliseconds(call: CallWidths) -> Any:
        if not (call.makes and call.reads):  # what reads nothing, such as a weight by itself, is there already
            return 0.0
        work = flops(call)
        return timed(call, work, calibration.bytes_per_element * elements_moved(call, work))

    return Cost(
        f"latency:{calibration.name}",
        f"ms per example, measured as {calibration.name}",
        of_call=milliseconds,
        counts_work=True,
        calibration=calibration,
    )


_LATENCY = "latency"

COSTS: dict[str, Cost] = {
    "flops": Cost("flops", "FLOPs per example, a multiply-add being 2", of_call=flops, counts_work=True),
    "params": Cost("params", "parameters", of_call=params),
    "activation_memory": Cost(
        "activation_memory", "bytes per example at the peak, float32", of_network=activation_memory, takes_arrays=True
    ),
    "activation_total": Cost(
        "activation_total", "bytes per example in all, float32", of_network=activation_total, takes_arrays=True
    ),
}


def cost_of(cost: str | Callable | Cost) -> Cost:
    """The cost of that name, or a user's function of the list of `CallWidths`, wrapped.

    Names are those of `COSTS`, and "latency:" followed by a device (see `latency`).

    Raises:
        MorphError: there is no cost of that name.
    """
    if isinstance(cost, Cost):
        return cost
    if callable(cost):
        _check_takes_calls(cost)
        return Cost(getattr(cost, "__name__", "custom"), "units of the user's own cost", of_network=cost)
    if cost in COSTS:
        return COSTS[cost]
    kind, _, device = str(cost).partition(":")
    if kind == _LATENCY and device:
        return latency(device)
    if kind == _LATENCY:
        raise MorphError(f"Cost 'latency' needs a device, such as 'latency:v100'. Known are {', '.join(DEVICES)}.")
    close = difflib.get_close_matches(str(cost), COSTS, n=1)
    raise MorphError(
        f"Unknown cost {cost!r}.{f' Did you mean {close[0]!r}?' if close else ''} Expected one of {_listed(COSTS)}, "
        "'latency:' and a device (such as 'latency:v100'), or a function of the layers' widths."
    )


def on_device(words: Any, device: str) -> Any:
    """A cost's name, or amounts by cost's name, where "latency" by itself means that of this device.

    For those who know the device later than the rest, such as the file of a calibration that is still to be made.

    Example:
        >>> on_device({"latency": 0.5, "params": 0.8}, "t4")
        {'latency:t4': 0.5, 'params': 0.8}
        >>> on_device("flops", "t4")
        'flops'
    """
    if isinstance(words, Mapping):
        return {on_device(name, device): amount for name, amount in words.items()}
    return f"{_LATENCY}:{device}" if words == _LATENCY else words


def _check_takes_calls(cost: Callable) -> None:
    try:
        inspect.signature(cost).bind([])
    except TypeError as error:
        raise MorphError(
            f"The cost function {getattr(cost, '__name__', cost)!r} cannot be called with one argument ({error}). "
            "It gets one, the list of CallWidths of the network's layers, and returns a number."
        ) from error
    except ValueError:  # a function written in C tells no signature
        return


def unit_of(name: str) -> str:
    """The unit of a cost that a structure names; "" for a user's own, of which the structure knows the name only."""
    if name.startswith("latency:"):
        return "ms per example"
    return COSTS[name].unit if name in COSTS else ""


def written(value: float) -> str:
    """An amount of a cost for people: whole numbers in full, small ones with a fraction in four digits."""
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.4g}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
