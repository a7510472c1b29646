"""What a layer without a rule does with channels, found out by trying.

Perturb a set of the input's channels and see which output channels move. The sets are the bits of the channel's number
and their complements, so that about 2 log2 C runs tell for each output channel which input channel it depends on, or
that it depends on several. A layer whose outputs depend on one channel each carries channels; it can be pruned if it
also builds itself for another number of channels. Any doubt keeps the layer whole, with the reason: a layer that mixes,
that answers differently when asked twice, that does not react, whose configuration fixes its width, or that takes too
long.

Weights are replaced by random positive numbers while probing, so that a mixing kernel that happens to be zero does not
pass for none, and inputs are tried at several scales and both signs, so that saturation does not hide a dependence. The
same probe checks every row of the table in the tests.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import time
from typing import Any

import keras
import numpy as np

from .arrays import as_numpy
from .flows import Flow, Labelled
from .trace import Ref

# Positions are tried on few places; a layer that only works at its true size is tried there, up to this many elements.
_PLACES, _LARGEST = 5, 1 << 22
_SECONDS = 10.0
_SCALES = (0.1, 1.0, 10.0)
_LONGEST_CACHE = 1024


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the probe saw.

    Attributes:
        sources: for each input, the input channel that each output channel depends on; -1 where it depends on none.
        weights: for each weight that follows the channels, by its path, along which of its axes.
        refusal: why nothing can be said; empty when all is known.
    """

    sources: tuple[np.ndarray | None, ...] = ()
    weights: dict[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    refusal: str = ""


_known: dict[Any, Finding] = {}


def probe(flow: Flow) -> Labelled:
    """The flow function of layers without a row."""
    if not any(labels.any() for labels in flow.inputs):
        return flow.nothing()
    advice = "; add a row with morph_core.register_rule to make this prunable"
    if len(flow.output_shapes) != 1:
        return flow.keep_whole(f"{flow.describe()} has no rule and several outputs{advice}")
    axes = [_channel_axis(labels) for labels in flow.inputs]
    if any(labels.any() and axis is None for labels, axis in zip(flow.inputs, axes, strict=True)):
        return flow.keep_whole(f"{flow.describe()} has no rule, and its channels lie along several axes{advice}")
    finding = _cached(flow, axes)
    if finding.refusal:
        return flow.keep_whole(f"{flow.describe()} has no rule, and {finding.refusal}{advice}")
    output_axis = _output_axis(flow, axes)
    made = np.zeros(flow.output_shape[output_axis] or 0, dtype=np.int64)
    for index, (axis, sources) in enumerate(zip(axes, finding.sources, strict=True)):
        if sources is None or axis is None:
            continue
        vector = flow.read(axis, index)
        carried = np.where(sources >= 0, vector[sources], 0)
        both = (sources >= 0) & (made > 0)
        flow.labels.unite(made[both], carried[both], f"{flow.describe()} joins it with channels that stay")
        made = np.where(made > 0, made, carried)
    flow.axes["out"] = made
    flow.learned_weights = finding.weights
    return flow.place(made, output_axis)


def _channel_axis(labels: np.ndarray) -> int | None:
    """The axis along which labels vary; the last for a single channel."""
    varying = [axis for axis, length in enumerate(labels.shape) if length > 1]
    if len(varying) > 1 or not labels.any():
        return None
    return varying[0] if varying else labels.ndim - 1


def _output_axis(flow: Flow, axes: list[int | None]) -> int:
    """Where the output's channels lie: on the axis of the input's, or on the last where the rank differs."""
    known = [(axis, shape) for axis, shape in zip(axes, flow.shapes, strict=True) if axis is not None]
    axis, shape = known[0]
    rank = len(flow.output_shape)
    return axis if len(shape) == rank else rank - 1


def _cached(flow: Flow, axes: list[int | None]) -> Finding:
    layer = flow.layer
    try:
        config = {key: value for key, value in layer.get_config().items() if key != "name"}
        key = (type(layer), json.dumps(config, sort_keys=True, default=repr), repr(flow.call.kwargs), str(flow.shapes))
        key = (*key, str(axes), repr([arg for arg in flow.call.args if not isinstance(arg, Ref)]))
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's get_config raises, the layer is kept whole
        return Finding(refusal=f"it has no usable get_config ({error})")
    if key not in _known:
        if len(_known) >= _LONGEST_CACHE:
            _known.clear()
        _known[key] = _Prober(flow, axes).find()
    return _known[key]


class _Prober:
    """One layer under test."""

    def __init__(self, flow: Flow, axes: list[int | None]) -> None:
        self.flow, self.axes, self.layer = flow, axes, flow.layer
        self.rng = np.random.default_rng(0)
        self.output_axis = _output_axis(flow, axes)
        self.size = flow.output_shape[self.output_axis] or 0
        self.deadline = time.monotonic() + _SECONDS
        self.variables = list(getattr(self.layer, "variables", []))

    def find(self) -> Finding:
        refusal = "it did not run on test data"
        for shapes in self._candidate_shapes():
            try:
                return self._find(shapes)
            except _Doubt as doubt:
                return Finding(refusal=str(doubt))
            except Exception as error:  # noqa: BLE001 -- whatever a stranger's layer raises, it is kept whole
                refusal = f"it did not run on test data ({type(error).__name__}: {str(error)[:120]})"
        return Finding(refusal=refusal)

    def _candidate_shapes(self) -> list[list[tuple[int, ...]]]:
        small, true = [], []
        for axis, shape in zip(self.axes, self.flow.shapes, strict=True):
            last = len(shape) - 1 if axis is None else axis
            full = [size if size is not None else _PLACES for size in shape[1:]]
            true.append((2, *full))
            small.append((2, *(size if place == last else min(size, _PLACES) for place, size in enumerate(full, 1))))
        fitting = [shapes for shapes in (small, true) if sum(math.prod(shape) for shape in shapes) <= _LARGEST]
        return fitting[:1] if len(fitting) == 2 and fitting[0] == fitting[1] else fitting

    def _find(self, shapes: list[tuple[int, ...]]) -> Finding:
        values = [(variable, self._random_like(variable)) for variable in self.variables]
        sources: list[np.ndarray | None] = []
        for index, axis in enumerate(self.axes):
            sources.append(None if axis is None else self._sources(index, axis, shapes, values))
        reached = np.any([source >= 0 for source in sources if source is not None], axis=0)
        if not reached.all():
            raise _Doubt("some of its outputs were not seen to depend on any channel")
        return Finding(tuple(sources), self._follows(sources))

    def _sources(self, index: int, axis: int, shapes: list[tuple[int, ...]], values: list) -> np.ndarray:
        """For each output channel, the one channel of input `index` that it depends on, or -1."""
        count = shapes[index][axis]
        bits = max(1, math.ceil(math.log2(count)))
        numbers = np.arange(count)
        hits = np.zeros((2, bits, self.size), dtype=bool)
        for scale in _SCALES:
            for sign in (1.0, -1.0, 0.0):
                inputs = [self._inputs(shape, scale, sign) for shape in shapes]
                before = self._run(inputs, values)
                if not np.array_equal(before, self._run(inputs, values), equal_nan=True):
                    raise _Doubt("it gives different answers to the same question")
                for bit in range(bits):
                    for value in (0, 1):
                        chosen = (numbers >> bit) & 1 == value
                        moved = [tensor.copy() for tensor in inputs]
                        change = self.rng.uniform(0.5, 1.5, shapes[index]) * chosen.reshape(
                            [-1 if place == axis else 1 for place in range(len(shapes[index]))]
                        )
                        moved[index] = (inputs[index] * (1 + change) + 0.1 * scale * change).astype("float32")
                        after = self._run(moved, values)
                        differs = (after != before) & ~(np.isnan(after) & np.isnan(before))
                        hits[value, bit] |= (
                            np.moveaxis(differs, self.output_axis, -1).reshape(-1, hits.shape[-1]).any(0)
                        )
        if (hits[0] & hits[1]).any():
            raise _Doubt("it mixes channels")
        found = (hits[1] * (1 << np.arange(bits))[:, None]).sum(axis=0)
        return np.where(hits.any(axis=(0, 1)), found, -1)

    def _inputs(self, shape: tuple[int, ...], scale: float, sign: float) -> np.ndarray:
        """Numbers of one sign (both for 0) and of some scale."""
        numbers = self.rng.uniform(0.2, 1.0, shape)
        signs = np.sign(self.rng.normal(size=shape)) if sign == 0 else sign
        return (scale * numbers * signs).astype("float32")

    def _random_like(self, variable: Any) -> Any:
        if not keras.backend.is_float_dtype(variable.dtype):
            return variable.value
        return keras.ops.convert_to_tensor(self.rng.uniform(0.3, 1.0, tuple(variable.shape)).astype(variable.dtype))

    def _run(self, inputs: list[np.ndarray], values: list) -> np.ndarray:
        if time.monotonic() > self.deadline:
            raise _Doubt(f"probing it takes longer than {_SECONDS:.0f} s")
        numbers = dict(zip(self.flow.call.inputs, inputs, strict=False))
        args, kwargs = keras.tree.map_structure(
            lambda leaf: keras.ops.convert_to_tensor(numbers[leaf.index]) if isinstance(leaf, Ref) else leaf,
            (self.flow.call.args, self.flow.call.kwargs),
        )
        if isinstance(self.layer, keras.Layer) and "training" in inspect.signature(self.layer.call).parameters:
            kwargs = {**kwargs, "training": False}
        with keras.StatelessScope(values):
            return as_numpy(keras.tree.flatten(self.layer(*args, **kwargs))[0]).astype("float64")

    def _follows(self, sources: list[np.ndarray | None]) -> dict[str, tuple[str | None, ...]]:
        """Along which axes the weights follow the channels, seen by building the layer with one channel less."""
        counts = [
            None if axis is None else shape[axis] for axis, shape in zip(self.axes, self.flow.shapes, strict=True)
        ]
        size = self.size
        lost = np.zeros(size, dtype=bool)
        for source, count in zip(sources, counts, strict=True):
            if source is not None and count is not None:
                if count < 2:
                    raise _Doubt("it has a single channel")
                lost |= source == count - 1
        smaller = {
            number: keras.KerasTensor(
                [count - 1 if count and place == axis else length for place, length in enumerate(shape)]
            )
            for number, axis, count, shape in zip(
                self.flow.call.inputs, self.axes, counts, self.flow.shapes, strict=True
            )
        }
        args, kwargs = keras.tree.map_structure(
            lambda leaf: smaller[leaf.index] if isinstance(leaf, Ref) else leaf,
            (self.flow.call.args, self.flow.call.kwargs),
        )
        try:
            twin = type(self.layer).from_config(self.layer.get_config())
            output = keras.tree.flatten(twin(*args, **kwargs))[0]
        except Exception as error:
            raise _Doubt(f"it cannot be built for fewer channels ({type(error).__name__})") from error
        if output.shape[self.output_axis] != size - lost.sum():
            raise _Doubt("its configuration fixes its number of channels")
        follows: dict[str, tuple[str | None, ...]] = {}
        for place, (old, new) in (
            enumerate(zip(self.layer.weights, twin.weights, strict=True)) if self.variables else ()
        ):
            spec = tuple(None if a == b else "out" for a, b in zip(old.shape, new.shape, strict=True))
            if any(spec):
                changed = [(a, b) for a, b in zip(old.shape, new.shape, strict=True) if a != b]
                if any(pair != (size, size - lost.sum()) for pair in changed):
                    raise _Doubt(f"its weight '{old.path}' follows the channels in a way that is not understood")
                follows[f"weights.{place}"] = spec
        in_order = all(source is None or np.array_equal(source, np.arange(size)) for source in sources)
        if follows and not in_order:
            raise _Doubt("it both moves channels and has weights for them")
        return follows


class _Doubt(Exception):
    """The probe cannot tell; the text says why."""
