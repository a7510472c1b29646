"""What a layer without a rule does with channels, found out by trying.

Perturb a set of the input's channels and see which output channels move. The sets are the bits of the channel's number
and their complements, so that about 2 log2 C runs tell for each output channel which input channel it depends on, or
that it depends on several. A layer whose outputs depend on one channel each carries channels; it can be pruned if it
also builds itself for fewer channels and then gives the same answers for those that are left. Any doubt keeps the layer
whole, with the reason: a layer that mixes, that answers differently when asked twice, that does not react, whose
configuration fixes its width, or that takes too long.

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

from ..arrays import as_numpy
from .flows import Flow, Labelled
from .resize import made_anew
from .trace import Ref

# Positions are tried on few places; a layer that only works at its true size is tried there, up to this many elements.
_PLACES, _LARGEST = 5, 1 << 22
_SECONDS = 10.0
_SCALES = (0.1, 1.0, 10.0, 100.0)
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
    advice = "; add a row with morph_core.register_rule to make this prunable"
    if not any(labels.any() for labels in flow.inputs):
        if getattr(flow.layer, "weights", None):
            flow.note = f"{flow.describe()} has no rule and reads what stays, so the channels it makes stay{advice}"
        return flow.nothing()
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
    reached = np.zeros(len(made), dtype=bool)
    for index, (axis, sources) in enumerate(zip(axes, finding.sources, strict=True)):
        if sources is None or axis is None:
            continue
        carried = flow.read(axis, index)[sources]
        both = reached & (sources >= 0)
        flow.labels.unite(made[both], carried[both], f"{flow.describe()} joins it with channels that stay")
        made = np.where(both | (sources < 0), made, carried)
        reached |= sources >= 0
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
    """What the probe finds, remembered for layers of one class that are configured, called and shaped alike."""
    call = flow.call
    try:
        config = {key: value for key, value in call.layer.get_config().items() if key != "name"}
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's get_config raises, the layer is kept whole
        return Finding(refusal=f"it has no usable get_config ({error})")
    arguments = keras.tree.map_structure(
        lambda leaf: ["tensor", call.inputs.index(leaf.index)] if isinstance(leaf, Ref) else leaf,
        (call.args, call.kwargs),
    )
    try:
        facts = json.dumps([config, arguments, flow.shapes, axes], sort_keys=True)
    except (TypeError, ValueError):  # objects that only they themselves are like
        return _Prober(flow, axes).find()
    if (
        '"__lambda__"' in facts or '"function"' in facts
    ):  # Keras writes a function's name or code, not what they refer to
        return _Prober(flow, axes).find()
    key = (type(call.layer), facts)
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
        follows: dict[str, tuple[str | None, ...]] = {}
        for dropped in ("last", "some"):
            follows = self._compare_with_fewer(sources, shapes, values, dropped)
        return Finding(tuple(sources), follows)

    def _sources(self, index: int, axis: int, shapes: list[tuple[int, ...]], values: list) -> np.ndarray:
        """For each output channel, the one channel of input `index` that it depends on, or -1."""
        count = shapes[index][axis]
        bits = max(1, math.ceil(math.log2(count)))
        numbers = np.arange(count)
        along = [-1 if place == axis else 1 for place in range(len(shapes[index]))]
        hits = np.zeros((2, bits, self.size), dtype=bool)
        for scale in _SCALES:
            for sign in (1.0, -1.0, 0.0):
                inputs = [self._inputs(shape, scale, sign) for shape in shapes]
                before = self._run(self.layer, inputs, values)
                if not np.array_equal(before, self._run(self.layer, inputs, values, again=True), equal_nan=True):
                    raise _Doubt("it gives different answers to the same question")
                for bit in range(bits):
                    for value in (0, 1):
                        chosen = ((numbers >> bit) & 1 == value).reshape(along)
                        moved = list(inputs)
                        moved[index] = np.where(chosen, self._inputs(shapes[index], scale, sign), inputs[index])
                        after = self._run(self.layer, moved, values)
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

    def _run(self, layer: Any, inputs: list[np.ndarray], values: list, again: bool = False) -> np.ndarray:
        """The layer's output, with other random numbers when asked `again`, and nothing of that left behind."""
        if time.monotonic() > self.deadline:
            raise _Doubt(f"probing it takes longer than {_SECONDS:g} s")
        tensors = [keras.ops.convert_to_tensor(array) for array in inputs]
        args, kwargs = self._arguments(tensors)
        if isinstance(layer, keras.Layer) and "training" in inspect.signature(layer.call).parameters:
            kwargs = {**kwargs, "training": False}
        if again:
            # Integers are the states of random numbers: another state must not matter.
            values = [
                (variable, value + 1 if keras.backend.is_int_dtype(variable.dtype) else value)
                for variable, value in values
            ]
        with keras.StatelessScope(values):
            if again:
                keras.random.uniform((1,))
            return as_numpy(keras.tree.flatten(layer(*args, **kwargs))[0]).astype("float64")

    def _arguments(self, tensors: list[Any]) -> tuple[tuple, dict]:
        """The call's arguments, with these tensors for its inputs."""
        numbers = dict(zip(self.flow.call.inputs, tensors, strict=True))
        return keras.tree.map_structure(
            lambda leaf: numbers[leaf.index] if isinstance(leaf, Ref) else leaf,
            (self.flow.call.args, self.flow.call.kwargs),
        )

    def _compare_with_fewer(
        self, sources: list[np.ndarray | None], shapes: list[tuple[int, ...]], values: list, dropped: str
    ) -> dict[str, tuple[str | None, ...]]:
        """Build the layer without some channels and compare its answers with those of the layer itself.

        Args:
            sources: for each input, the channel that each output channel depends on.
            shapes: of inputs to try.
            values: of the layer's weights.
            dropped: the "last" channel, or "some" in between.

        Returns:
            Along which axes the weights follow the channels.
        """
        kept = [
            None if axis is None else _kept_of(shape[axis], dropped)
            for axis, shape in zip(self.axes, shapes, strict=True)
        ]
        left = np.ones(self.size, dtype=bool)
        for source, keep in zip(sources, kept, strict=True):
            if source is not None and keep is not None:
                left &= (source < 0) | keep[source]
        fewer = [
            keras.KerasTensor(
                [int(keep.sum()) if keep is not None and place == axis else size for place, size in enumerate(shape)],
                dtype="float32",
            )
            for axis, keep, shape in zip(self.axes, kept, self.flow.shapes, strict=True)
        ]
        args, kwargs = self._arguments(fewer)
        try:
            twin = made_anew(self.layer, self.layer.get_config())
            output = keras.tree.flatten(twin(*args, **kwargs))[0]
        except Exception as error:
            raise _Doubt(f"it cannot be built for fewer channels ({type(error).__name__})") from error
        if output.shape[self.output_axis] != left.sum():
            raise _Doubt("its configuration fixes its number of channels")
        follows, twin_values = self._matched_weights(twin, values, left)
        inputs = [self._inputs(shape, 1.0, 0.0) for shape in shapes]
        remaining = [
            array if keep is None or axis is None else np.compress(keep, array, axis=axis)
            for array, axis, keep in zip(inputs, self.axes, kept, strict=True)
        ]
        expected = np.compress(left, self._run(self.layer, inputs, values), axis=self.output_axis)
        received = self._run(twin, remaining, twin_values)
        if expected.shape != received.shape or not np.allclose(
            expected, received, rtol=1e-4, atol=1e-5, equal_nan=True
        ):
            raise _Doubt("it treats channels differently when there are fewer channels")
        return follows

    def _matched_weights(
        self, twin: Any, values: list, left: np.ndarray
    ) -> tuple[dict[str, tuple[str | None, ...]], list]:
        """Along which axes the weights follow the channels, and the values for a twin with the channels `left`."""
        follows: dict[str, tuple[str | None, ...]] = {}
        if not self.variables:
            return follows, []
        of_variable = {id(variable): value for variable, value in values}
        twin_values = []
        for place, (old, new) in enumerate(zip(self.layer.weights, twin.weights, strict=True)):
            value = of_variable[id(old)]
            spec = tuple(None if one == other else "out" for one, other in zip(old.shape, new.shape, strict=True))
            for axis, follow in enumerate(spec):
                if follow:
                    if (old.shape[axis], new.shape[axis]) != (len(left), left.sum()):
                        raise _Doubt(f"its weight '{old.path}' follows the channels in a way that is not understood")
                    value = np.compress(left, as_numpy(value), axis=axis)
            if any(spec):
                follows[f"weights.{place}"] = spec
            twin_values.append((new, keras.ops.convert_to_tensor(value)))
        return follows, twin_values


def _kept_of(count: int, dropped: str) -> np.ndarray:
    """Which of `count` channels to keep: bool array (count,)."""
    if count < 2:
        raise _Doubt("it has a single channel")
    if dropped == "last":
        return np.arange(count) < count - 1
    kept = np.random.default_rng(count).random(count) < 0.5
    kept[0], kept[count // 2] = False, True
    return kept


class _Doubt(Exception):
    """The probe cannot tell; the text says why."""
