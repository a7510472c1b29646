"""Latency that was measured: a table for each operation of a network, and what is read off between its rows.

A `Calibration` holds, for every kind of call that a network has, the milliseconds that were measured at some widths
(`Table`), as the lookup tables of HALP do (Shen et al., arXiv 2110.10811). Between measured widths it interpolates
linearly in each width; beyond the last it goes on in the same direction. A call that no table is about is estimated:
its FLOPs, its bytes and a constant, each with a factor that was fitted on all that was measured (`Estimate`).

A call in a network need not take as long as it does alone: an elementwise operation may be merged into the one before.
So there are two factors, one for calls with kernels and one for the rest, fitted on whole networks (`Shares`).

`morph_core.device.calibrate` measures, and writes the file that `read` reads.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from .calls import CallWidths
from .machine import this_machine

CALIBRATION_VERSION = 3
# How far above a multiple of twice the last of them widths are timed, in channels; see `morph_core.device.steps`.
STEPS = (1, 2, 4, 8, 16)
# Waste up to this share, or twice what repeated measurements differ by, is none that a search should care for.
_WASTE = 0.05
# Widths that a table ties may differ by this share: groups that are narrowed one by one round differently.
_TIED = 0.02
# What a configuration says that has no bearing on how long a layer takes, by name or by the name's end; and sizes
# that follow channels without being a width, which are adapted when a layer is made anew.
_TIMELESS = {"name", "trainable", "dtype", "seed", "momentum", "rate", "build_config", "registered_name"}
_TIMELESS_ENDS = ("_initializer", "_regularizer", "_constraint")
_ADAPTED = {"target_shape", "newshape", "groups"}

Refuse = Callable[[str], Exception]


@dataclasses.dataclass(frozen=True)
class Table:
    """Milliseconds of one kind of call, over a grid of its widths.

    Attributes:
        signature: which calls it is about; see `signature`.
        has_kernels: whether such a call has kernels, or products of its own.
        sizes: the names of the sizes that vary, see `sizes_of`; one dimension of the grid each.
        grid: for each of them the values that were measured, rising.
        tied: for every other size: a constant, and a factor for each of `sizes`.
        milliseconds: one for each point of the grid, the last size varying fastest.
    """

    signature: str
    has_kernels: bool
    sizes: tuple[str, ...]
    grid: tuple[tuple[float, ...], ...]
    tied: Mapping[str, tuple[float, ...]]
    milliseconds: tuple[float, ...]

    def at(self, sizes: Mapping[str, Any]) -> Any:
        """Milliseconds at these sizes: a float or array, NaN where the table is not about them."""
        given = [np.asarray(sizes[name], dtype=float) for name in self.sizes]
        fits = np.asarray(True)
        for name, (constant, *factors) in self.tied.items():
            expected = constant + sum(factor * size for factor, size in zip(factors, given, strict=True))
            off = np.abs(np.asarray(sizes[name], dtype=float) - expected)
            fits = fits & (off <= np.maximum(_TIED * np.abs(expected), 1e-6))
        values = np.asarray(self.milliseconds).reshape([len(points) for points in self.grid])
        return np.where(fits, np.maximum(_interpolated(self.grid, values, given), 0.0), np.nan)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Milliseconds of a call that no table is about: a factor for each GFLOP, each gigabyte, and a constant."""

    per_gflop: float
    per_gigabyte: float
    constant: float

    def at(self, flops: Any, moved: Any) -> Any:
        return self.per_gflop * flops / 1e9 + self.per_gigabyte * moved / 1e9 + self.constant


@dataclasses.dataclass(frozen=True)
class Shares:
    """How much of the time that a call takes alone it takes in a network."""

    kernels: float
    rest: float


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What was measured of one network, on one device.

    Attributes:
        name: as in "latency:NAME"; the file's own.
        measured_on: "machine", "device", "runtime", "dtype", "batch_size", "threads", "versions", "date", "model".
        repeatability: "entries" and "networks": how far the same thing measured again was off, as the median of the
            relative differences.
        kernels: the estimate for calls with kernels.
        rest: the estimate for all others.
        shares: of the time alone.
        tables: all of them.
        waste: how much longer widths take that are so many channels above a multiple of 32 than those multiples
            promise, by that number as text; empty where no layer was wide enough to be timed.
    """

    name: str
    measured_on: dict[str, Any]
    repeatability: dict[str, float]
    kernels: Estimate
    rest: Estimate
    shares: Shares
    tables: tuple[Table, ...]
    waste: dict[str, float]

    @property
    def multiple_of(self) -> int:
        """Of how many channels widths should be multiples here: the least that leaves no waste; 1 is any width."""
        bearable = max(_WASTE, 2 * self.repeatability["entries"])
        return max((2 * step for step in STEPS if self.waste.get(str(step), 0.0) > bearable), default=1)

    @property
    def bytes_per_element(self) -> int:
        return 2 if self.measured_on["dtype"] in ("bfloat16", "float16") else 4

    def timer(self) -> Callable[[CallWidths, Any, Any], Any]:
        """A function of a call, its FLOPs and its bytes, that gives its milliseconds for one example."""
        by_signature: dict[str, list[Table]] = {}
        for table in self.tables:
            by_signature.setdefault(table.signature, []).append(table)
        # Costs are taken in loops, and a signature is made of a whole configuration.
        signatures: weakref.WeakKeyDictionary[Any, dict[Any, str]] = weakref.WeakKeyDictionary()
        batch = self.measured_on["batch_size"]

        def milliseconds(call: CallWidths, flops: Any, moved: Any) -> Any:
            known = signatures.setdefault(call.layer, {})
            key = (call.places, len(call.reads))
            if key not in known:
                known[key] = signature(call)
            tables = by_signature.get(known[key], ())
            has_kernels = is_work(call)
            estimate = self.kernels if has_kernels else self.rest
            found = np.asarray(estimate.at(flops * batch, moved * batch))
            if tables:
                sizes = sizes_of(call)
                for table in tables:
                    read = table.at(sizes)
                    found = np.where(np.isnan(read), found, read)
            scaled = (self.shares.kernels if has_kernels else self.shares.rest) * found / batch
            return float(scaled) if scaled.ndim == 0 else scaled

        return milliseconds

    def elsewhere(self) -> str:
        """What to say when this was measured on another machine than this one; "" when it was not."""
        there, here = self.measured_on["machine"], this_machine()
        if there == here:
            return ""
        return (
            f"Calibration '{self.name}' was measured on {there}, this is {here}: its milliseconds are those of the "
            "other machine. Run morph-tfx calibrate here, unless that is where the network will run."
        )

    def to_json(self) -> str:
        """The file's text."""
        data = {"schema_version": CALIBRATION_VERSION, **dataclasses.asdict(self)}
        return json.dumps(data, indent=1, allow_nan=False) + "\n"


def is_work(call: CallWidths) -> bool:
    """Whether a call has kernels or products: whether it does more than pass over its input."""
    return bool(call.rule.kernels or call.rule.products)


def sizes_of(call: CallWidths) -> dict[str, Any]:
    """All sizes of a call that can vary with widths: channels of its axes, elements of its tensors."""
    sizes = dict(call.axes)
    for kind, numbers in (("read", call.reads), ("made", call.makes)):
        sizes |= {f"{kind} {place}": call.elements([number]) for place, number in enumerate(numbers)}
    return sizes


def signature(call: CallWidths) -> str:
    """All of a call that decides how long it takes, but its widths: kind, configuration, sizes of its inputs."""
    config = call.layer.get_config() if hasattr(call.layer, "get_config") else {}
    widths = set(call.rule.widths)
    facts = [call.kind, _without_widths(config, "", widths), call.places, len(call.reads)]
    return json.dumps(facts, sort_keys=True, default=str)


def _without_widths(config: Any, path: str, widths: set[str]) -> Any:
    if isinstance(config, Mapping):
        kept = {}
        for name, value in config.items():
            inside = f"{path}.{name}" if path else str(name)
            if inside not in widths and name not in _TIMELESS | _ADAPTED and not str(name).endswith(_TIMELESS_ENDS):
                kept[name] = _without_widths(value, inside, widths)
        return kept
    if isinstance(config, list | tuple):
        return [_without_widths(value, path, widths) for value in config]
    return config


def _interpolated(grid: tuple[tuple[float, ...], ...], values: np.ndarray, given: list[np.ndarray]) -> np.ndarray:
    """Multilinear interpolation, continued beyond the ends."""
    places = []
    for points, size in zip(grid, given, strict=True):
        if len(points) == 1:
            places.append([(0, np.ones_like(size))])
            continue
        low = np.clip(np.searchsorted(points, size, side="right") - 1, 0, len(points) - 2)
        start, end = np.take(points, low), np.take(points, low + 1)
        share = (size - start) / (end - start)
        places.append([(low, 1.0 - share), (low + 1, share)])
    total: Any = np.asarray(0.0)
    for corner in itertools.product(*places):
        weight = np.asarray(1.0)
        for _, share in corner:
            weight = weight * share
        total = total + weight * values[tuple(index for index, _ in corner)]
    return np.asarray(total)


# --- reading ----------------------------------------------------------------------------------------------------------

_FIELDS = {"schema_version", *(field.name for field in dataclasses.fields(Calibration))}
_MEASURED_ON = {
    "machine": str, "device": str, "runtime": str, "dtype": str, "batch_size": int, "threads": int, "versions": dict,
    "date": str, "model": str,
}  # fmt: skip


def calibration_of(data: Mapping[str, Any], refuse: Refuse) -> Calibration:
    """The calibration that the JSON object of a file holds.

    Args:
        data: with all fields, `schema_version` too.
        refuse: makes an exception from what is wrong.
    """

    def fail(what: str) -> NoReturn:
        raise refuse(what)

    if set(data) != _FIELDS:
        fail(f"its fields are wrong ({', '.join(sorted(map(str, data)))[:200]})")
    if not isinstance(data["name"], str) or not data["name"].strip():
        fail("name must be text")
    measured_on = data["measured_on"]
    if not isinstance(measured_on, dict) or set(measured_on) != set(_MEASURED_ON):
        fail(f"measured_on must have {', '.join(_MEASURED_ON)}")
    for name, kind in _MEASURED_ON.items():
        if not isinstance(measured_on[name], kind) or isinstance(measured_on[name], bool):
            fail(f"measured_on.{name} is {measured_on[name]!r}")
    if measured_on["batch_size"] < 1:
        fail(f"measured_on.batch_size is {measured_on['batch_size']}")
    numbers = {
        name: _record(data[name], fields, name, fail)
        for name, fields in (
            ("repeatability", ("entries", "networks")),
            ("kernels", ("per_gflop", "per_gigabyte", "constant")),
            ("rest", ("per_gflop", "per_gigabyte", "constant")),
            ("shares", ("kernels", "rest")),
        )
    }
    waste = data["waste"]
    if waste != {}:
        known = {str(step) for step in STEPS}
        if not isinstance(waste, dict) or set(waste) != known or not all(map(_is_number, waste.values())):
            fail(f"waste must have numbers for {', '.join(map(str, STEPS))}, or be empty")
    if not isinstance(data["tables"], list):
        fail("tables is not a list")
    return Calibration(
        name=data["name"],
        measured_on=measured_on,
        repeatability=numbers["repeatability"],
        kernels=Estimate(**numbers["kernels"]),
        rest=Estimate(**numbers["rest"]),
        shares=Shares(**numbers["shares"]),
        tables=tuple(_table(entry, f"tables[{index}]", fail) for index, entry in enumerate(data["tables"])),
        waste=waste,
    )


def _record(value: Any, fields: tuple[str, ...], where: str, fail: Callable[[str], NoReturn]) -> dict[str, float]:
    if not isinstance(value, dict) or set(value) != set(fields):
        fail(f"{where} must have {', '.join(fields)}")
    for name, number in value.items():
        if not _is_number(number) or number < 0:
            fail(f"{where}.{name} is {number!r}, not a number from 0")
    return value


def _table(entry: Any, where: str, fail: Callable[[str], NoReturn]) -> Table:
    names = [field.name for field in dataclasses.fields(Table)]
    if not isinstance(entry, dict) or set(entry) != set(names):
        fail(f"{where} must have {', '.join(names)}")
    if not isinstance(entry["signature"], str) or not isinstance(entry["has_kernels"], bool):
        fail(f"{where} has a signature that is no text")
    sizes, grid, tied = entry["sizes"], entry["grid"], entry["tied"]
    if not isinstance(sizes, list) or not all(isinstance(name, str) for name in sizes):
        fail(f"{where}.sizes is no list of names")
    rising = isinstance(grid, list) and all(
        isinstance(points, list) and points and all(map(_is_number, points)) and points == sorted(set(points))
        for points in grid
    )
    if not rising or len(grid) != len(sizes):
        fail(f"{where}.grid has no rising numbers for each of sizes")
    if not isinstance(tied, dict) or not all(
        isinstance(numbers, list) and len(numbers) == len(sizes) + 1 and all(map(_is_number, numbers))
        for numbers in tied.values()
    ):
        fail(f"{where}.tied is wrong")
    values = entry["milliseconds"]
    if not isinstance(values, list) or len(values) != math.prod(map(len, grid)):
        fail(f"{where}.milliseconds has not one number for each point of its grid")
    if not all(_is_number(value) and value >= 0 for value in values):
        fail(f"{where}.milliseconds holds something that is no time")
    return Table(
        signature=entry["signature"],
        has_kernels=entry["has_kernels"],
        sizes=tuple(sizes),
        grid=tuple(map(tuple, grid)),
        tied={name: tuple(numbers) for name, numbers in tied.items()},
        milliseconds=tuple(values),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
