"""A layer compared with a twin that was built for fewer channels: does it give the same answers for those left?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from .resize import configuration_of, made_anew
from .trial import Doubt, Trial


def _left(count: int, gone: float) -> int:
    """How many are left when `gone` are not, a number or below 1 a share; never none, never all."""
    return min(count - 1, max(1, count - round(gone * count if gone < 1 else gone)))


def _keep_last(count: int, gone: float) -> np.ndarray:
    return np.arange(count) >= count - _left(count, gone)


def _keep_first(count: int, gone: float) -> np.ndarray:
    return np.arange(count) < _left(count, gone)


def _keep_any(count: int, gone: float) -> np.ndarray:
    return np.random.default_rng(count).permutation(count) < _left(count, gone)


# A layer may divide its channels by their number. Where it does so, it divides those that are left in another place
# when some of one side alone are gone: so the first go, or the last, and by several counts.
DROPS: list[Callable[[int], np.ndarray]] = [
    functools.partial(choose, gone=gone)
    for choose, gone in [
        *((choose, gone) for choose in (_keep_last, _keep_first) for gone in (1, 3, 0.5)),
        *((_keep_any, gone) for gone in (0.25, 0.5, 0.75)),
    ]
]
"""Ways to leave channels out: number of channels -> which are kept, bool array."""


def compare_with_fewer(
    trial: Trial, sources: list[np.ndarray | None], shapes: list[tuple[int, ...]], choose: Callable[[int], np.ndarray]
) -> dict[str, tuple[str | None, ...]]:
    """Build the layer without some channels and compare its answers with those of the layer itself.

    Args:
        sources: for each input, the channel that each output channel depends on.
        shapes: of inputs to try.
        choose: one of `DROPS`.

    Returns:
        Along which axes the weights follow the channels.
    """
    kept = [
        None if axis is None else _kept_of(shape[axis], choose) for axis, shape in zip(trial.axes, shapes, strict=True)
    ]
    left = np.ones(trial.size, dtype=bool)
    for source, keep in zip(sources, kept, strict=True):
        if source is not None and keep is not None:
            left &= (source < 0) | keep[source]
    fewer = [
        keras.KerasTensor(
            [int(keep.sum()) if keep is not None and place == axis else size for place, size in enumerate(shape)],
            dtype=kind,
        )
        for axis, keep, shape, kind in zip(trial.axes, kept, trial.flow.shapes, trial.dtypes, strict=True)
    ]
    args, kwargs = trial.arguments(fewer)
    try:
        twin = made_anew(trial.layer, configuration_of(trial.layer))
        output = keras.tree.flatten(twin(*args, **kwargs))[0]
    except Exception as error:
        raise Doubt(f"it cannot be built for fewer channels ({type(error).__name__})") from error
    if output.shape[trial.output_axis] != left.sum():
        raise Doubt("its configuration fixes its number of channels")
    follows, twin_values = _matched_weights(trial, twin, left)
    inputs = trial.inputs(shapes, 1.0, 0.0)
    remaining = [
        array if keep is None or axis is None else np.compress(keep, array, axis=axis)
        for array, axis, keep in zip(inputs, trial.axes, kept, strict=True)
    ]
    expected = np.compress(left, trial.run(inputs), axis=trial.output_axis)
    received = trial.run_other(twin, remaining, twin_values)
    if expected.shape != received.shape or not np.allclose(expected, received, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise Doubt("it treats channels differently when there are fewer channels")
    return follows


def _matched_weights(trial: Trial, twin: Any, left: np.ndarray) -> tuple[dict[str, tuple[str | None, ...]], list]:
    """Along which axes the weights follow the channels, and the values for a twin with the channels `left`."""
    follows: dict[str, tuple[str | None, ...]] = {}
    if not trial.values:
        return follows, []
    of_variable = {id(variable): value for variable, value in trial.values}
    twin_values = []
    for place, (old, new) in enumerate(zip(trial.layer.weights, twin.weights, strict=True)):
        value = of_variable[id(old)]
        spec = tuple(None if one == other else "out" for one, other in zip(old.shape, new.shape, strict=True))
        for axis, follow in enumerate(spec):
            if follow:
                if (old.shape[axis], new.shape[axis]) != (len(left), left.sum()):
                    raise Doubt(f"its weight '{old.path}' follows the channels in a way that is not understood")
                value = np.compress(left, as_numpy(value), axis=axis)
        if any(spec):
            follows[f"weights.{place}"] = spec
        twin_values.append((new, keras.ops.convert_to_tensor(value)))
    return follows, twin_values


def _kept_of(count: int, choose: Callable[[int], np.ndarray]) -> np.ndarray:
    """Which of `count` channels to keep: bool array (count,)."""
    if count < 2:
        raise Doubt("it has a single channel")
    return choose(count)
