"""Do two networks answer alike on the same random numbers? And does an opened one answer as the seed does?

Opening trusts what layers say of their own shapes, and what their code does on symbolic tensors. A layer may say one
thing and do another, so both networks are run once, before anything is built on the opened one.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from .standins import TrainingLoss
from .trace import Ref, Trace, input_structure, takes_training

# Of the largest output: what another order of the same operations may change in float32, and in half precision.
_ROUNDING, _HALF_ROUNDING = 1e-4, 5e-2
_OPEN_SIZES = {3: 12, 4: 32, 5: 16}


def random_inputs(model: keras.Model, rng: np.random.Generator) -> Any:
    """Two examples for a model, as tensors in the structure of its inputs.

    Numbers are from -1 to 1, integers 0 and 1, which every vocabulary has.
    """

    def draw(tensor: Any) -> Any:
        open_size = _OPEN_SIZES.get(len(tensor.shape), 12)
        shape = (tensor.shape[0] or 2, *(size or open_size for size in tensor.shape[1:]))
        is_float = keras.backend.is_float_dtype(tensor.dtype)
        drawn = rng.uniform(-1, 1, shape).astype("float32") if is_float else rng.integers(0, 2, shape)
        return keras.ops.convert_to_tensor(drawn, dtype=tensor.dtype)

    return keras.tree.map_structure(draw, input_structure(model))


def largest_difference(expected: Any, received: Any) -> float:
    """How far outputs are from those expected, as a share of the largest of each; infinity where one is no number."""
    worst = 0.0
    for pair in zip(keras.tree.flatten(expected), keras.tree.flatten(received), strict=True):
        # Outputs may be truth values, too, or whole numbers without a sign.
        one, other = (as_numpy(output).astype("float64") for output in pair)
        scale = max(float(np.abs(one).max(initial=0.0)), 1e-12)
        difference = float(np.abs(one - other).max(initial=0.0)) / scale
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def disagreement(model: keras.Model, trace: Trace) -> str:
    """Why a trace is not of this model; "" when it is, or when the model does not run on random numbers.

    Weights, and the state of random generators, are left as they were.
    """
    batch = random_inputs(model, np.random.default_rng(0))
    try:
        expected = _answers(lambda: model(batch, training=False))
    except Exception:  # noqa: BLE001 -- a model may ask more of its inputs than that they are numbers
        return ""
    try:
        received = _answers(lambda: _run(trace, keras.tree.flatten(batch)))
    except Exception as error:  # noqa: BLE001 -- whatever its calls raise, the trace is not of the model
        return f"the opened network does not run ({type(error).__name__})"
    reason = _difference(expected, received)
    # One that draws random numbers at inference differs from itself, too.
    if reason and not _difference(expected, _answers(lambda: model(batch, training=False))):
        return reason
    if any(isinstance(call.layer, TrainingLoss) for call in trace.calls):
        return _disagreement_in_training(model, trace, batch)
    return ""


def _disagreement_in_training(model: keras.Model, trace: Trace, batch: Any) -> str:
    """The same for a run of training, with the losses that layers add; the state of random generators is the same."""
    try:
        expected = _answers(lambda: model(batch, training=True), losses=True)
        again = _answers(lambda: model(batch, training=True), losses=True)
    except Exception as error:  # noqa: BLE001 -- what a stranger's code raises in training it will raise again
        return f"the network does not run in training ({type(error).__name__}), where it adds losses"
    received = _answers(lambda: _run(trace, keras.tree.flatten(batch), training=True), losses=True)
    if len(expected) != len(received):
        return f"the opened network adds {len(received)} losses and outputs in training instead of {len(expected)}"
    reason = _difference(expected, received)
    return f"in training {reason}" if reason and not _difference(expected, again) else ""


def _difference(expected: list[np.ndarray], received: list[np.ndarray]) -> str:
    for one, other in zip(expected, received, strict=True):
        if one.shape != other.shape:
            return f"the opened network makes an output of shape {other.shape} instead of {one.shape}"
        rounding = _ROUNDING if one.dtype.itemsize >= 4 else _HALF_ROUNDING
        one, other = np.nan_to_num(one.astype("float64")), np.nan_to_num(other.astype("float64"))
        far = np.abs(one - other).max(initial=0.0)
        if far > rounding * max(np.abs(one).max(initial=0.0), 1e-6):
            return f"the opened network answers otherwise than the layers themselves (by {far:.2g})"
    return ""


def _answers(run: Any, losses: bool = False) -> list[np.ndarray]:
    with keras.StatelessScope(collect_losses=losses) as scope:
        outputs = keras.tree.flatten(run())
        return [as_numpy(output) for output in (*outputs, *(scope.losses if losses else ()))]


def _run(trace: Trace, inputs: list[Any], training: bool = False) -> list[Any]:
    tensors: dict[int, Any] = dict(zip(trace.inputs, inputs, strict=True))
    for call in trace.calls:
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensors[leaf.index] if isinstance(leaf, Ref) else leaf, (call.args, call.kwargs)
        )
        layer: Any = call.layer
        if takes_training(layer):
            kwargs = {**kwargs, "training": training}
        # What holds a weight or a constant takes any tensor, which tells it when to run.
        made = layer(*(args if call.inputs else inputs[:1]), **kwargs)
        tensors.update(zip(call.outputs, keras.tree.flatten(made), strict=True))
    return [tensors[number] for number in trace.outputs]
