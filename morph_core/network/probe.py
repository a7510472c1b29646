"""What a layer without a rule does with channels, found out by trying.

Perturb a set of the input's channels and see which output channels move (`dependence`). A layer whose outputs depend on
one channel each carries channels; it can be pruned if it also builds itself for fewer channels and then gives the same
answers for those that are left (`narrower`). Any doubt keeps the layer whole, with the reason: a layer that mixes, that
answers differently when asked twice, that does not react, whose configuration fixes its width, or that takes too long.

Weights are replaced by random positive numbers while probing, so that a mixing kernel that happens to be zero does not
pass for none, and inputs are tried at several scales and both signs, so that saturation does not hide a dependence. The
same probe checks every row of the table in the tests.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import keras
import numpy as np

from .dependence import sources_of
from .flows import Flow, Labelled
from .narrower import DROPS, compare_with_fewer
from .resize import configuration_of
from .trace import Ref
from .trial import Doubt, Trial

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
    flow.is_refused = True
    if any(labels.shape[:1] > (1,) for labels in flow.inputs):
        return flow.keep_whole(f"{flow.describe()} has no rule and its channels lie along the first axis{advice}")
    if len(flow.output_shapes) != 1:
        return flow.keep_whole(f"{flow.describe()} has no rule and several outputs{advice}")
    axes = [_channel_axis(labels) for labels in flow.inputs]
    if any(labels.any() and axis is None for labels, axis in zip(flow.inputs, axes, strict=True)):
        return flow.keep_whole(f"{flow.describe()} has no rule, and its channels lie along several axes{advice}")
    finding = _cached(flow, axes)
    if finding.refusal:
        return flow.keep_whole(f"{flow.describe()} has no rule, and {finding.refusal}{advice}")
    flow.is_refused = False
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
        config = {key: value for key, value in configuration_of(call.layer).items() if key != "name"}
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's get_config raises, the layer is kept whole
        return Finding(refusal=f"it has no usable get_config ({error})")
    arguments = keras.tree.map_structure(
        lambda leaf: ["tensor", call.inputs.index(leaf.index)] if isinstance(leaf, Ref) else leaf,
        (call.args, call.kwargs),
    )
    try:
        facts = json.dumps([config, arguments, flow.shapes, flow.dtypes, axes], sort_keys=True)
    except (TypeError, ValueError):  # objects that only they themselves are like
        return _find(flow, axes)
    if (
        '"__lambda__"' in facts or '"function"' in facts
    ):  # Keras writes a function's name or code, not what they refer to
        return _find(flow, axes)
    key = (type(call.layer), facts)
    if key not in _known:
        if len(_known) >= _LONGEST_CACHE:
            _known.clear()
        _known[key] = _find(flow, axes)
    return _known[key]


def _find(flow: Flow, axes: list[int | None]) -> Finding:
    trial = Trial(flow, axes, _output_axis(flow, axes))
    refusal = "it did not run on test data"
    for shapes in trial.candidate_shapes():
        try:
            return _tried(trial, shapes)
        except Doubt as doubt:
            return Finding(refusal=str(doubt))
        except Exception as error:  # noqa: BLE001 -- whatever a stranger's layer raises, it is kept whole
            refusal = f"it did not run on test data ({type(error).__name__}: {str(error)[:120]})"
    return Finding(refusal=refusal)


def _tried(trial: Trial, shapes: list[tuple[int, ...]]) -> Finding:
    sources = [
        None if axis is None else sources_of(trial, index, axis, shapes) for index, axis in enumerate(trial.axes)
    ]
    reached = np.any([source >= 0 for source in sources if source is not None], axis=0)
    if not reached.all():
        raise Doubt("some of its outputs were not seen to depend on any channel")
    follows: dict[str, tuple[str | None, ...]] = {}
    for choose in DROPS:
        follows = compare_with_fewer(trial, sources, shapes, choose)
    for axis, shape, source in zip(trial.axes, shapes, sources, strict=True):
        if axis is not None and source is not None and len(np.unique(source[source >= 0])) < shape[axis]:
            raise Doubt("some channels of its inputs were not seen to reach any output")
    return Finding(tuple(sources), follows)
