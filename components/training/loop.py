"""One training run as both components do it: TensorBoard logs, progress, validation, and a check that it went well."""

import contextlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from tfx.types.artifact import Artifact

from morph_core import MorphError, StructureSearch
from morph_core.search.checkpoint import Storage, fit_with_checkpoints

from ..artifacts.properties import set_custom_properties
from . import distribution
from .curves import WidthCurves
from .inputs import TrainingInputs
from .progress import ProgressCallback

TRAINING_SECONDS = "training_seconds"
"""The custom property of a `model_run` that says how long its training took, search included."""

# Points of the training curves in TensorBoard: enough to see a schedule, few enough to cost nothing.
_CURVE_POINTS = 200


def train(
    model: keras.Model,
    inputs: TrainingInputs,
    log_dir: str,
    progress: ProgressCallback,
    checkpoint: Storage | None = None,
    identity: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Fits a compiled model.

    Args:
        model: compiled; a `StructureSearch` or an ordinary model.
        inputs: the data and the number of steps.
        log_dir: where TensorBoard's files go.
        progress: shows the run.
        checkpoint: where to keep a checkpoint after each epoch, and to continue from; None for none.
        identity: what an ordinary model's checkpoint must agree with; a search knows what it is.

    Returns:
        The last epoch's values: the loss, the metrics, and the same on the evaluation split (`val_...`).

    Raises:
        MorphError: a batch cannot be trained on, or the loss is no longer a number at the end.
    """
    every = max(1, inputs.steps // _CURVE_POINTS)
    tensorboard = keras.callbacks.TensorBoard(
        log_dir=log_dir,
        write_graph=False,
        update_freq=every,  # pyright: ignore[reportArgumentType]
        profile_batch=0,
    )
    distribution.prepare(model, inputs.train)
    with contextlib.closing(progress), warnings.catch_warnings():
        # The evaluation split is read once to its end, as we want it; Keras, not knowing its length, warns of it.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        arguments: dict[str, Any] = {
            "x": inputs.train,
            "epochs": inputs.epochs,
            "steps_per_epoch": inputs.steps_per_epoch,
            "validation_data": inputs.evaluation,
            "callbacks": [tensorboard, WidthCurves(log_dir, every, inputs.steps_per_epoch), progress],
            "verbose": 0,
        }
        try:
            if isinstance(model, StructureSearch):
                # Its data are without end, so only we know when a pass over them is over.
                own = {"checkpoint": checkpoint, "narrow": inputs.epoch_is_pass}
                history = model.fit(**arguments, **own)
            elif checkpoint is None:
                history = model.fit(**arguments)
            else:
                history = fit_with_checkpoints(model, arguments, checkpoint, identity or {})
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            # Of the labels all or the first were looked at before. What a later batch holds, only training tells.
            raise MorphError(
                f"A batch of input_fn in {inputs.module.source} cannot be trained on: {_said_by(error)} Expected "
                "labels that the model has outputs for, and features of the shapes that it takes, in every batch."
            ) from error
    distribution.to_float32(model)
    last = {name: float(values[-1]) for name, values in history.history.items()}
    if not math.isfinite(last["loss"]):
        raise MorphError(
            f"The training diverged: the loss is {last['loss']} after {inputs.steps} steps. Nothing was written. "
            f"Lower the learning rate in build_model of {inputs.module.source}, or check the examples for values "
            "that are no numbers."
        )
    return last


def _said_by(error: tf.errors.OpError) -> str:
    """The line of TensorFlow's message that says what is wrong; those around it say where in the graph it was."""
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    telling = (line for line in lines if "label value" in line or "corrupted" in line or "Incompatible" in line)
    line = next(telling, lines[-1] if lines else type(error).__name__)
    return line[:300] if line.endswith(".") else f"{line[:300]}."


def record_time(model_run: Artifact, progress: ProgressCallback) -> None:
    """Makes the seconds that a training took a property of its logs; nothing where it ran in several processes."""
    if progress.seconds is not None:
        set_custom_properties(model_run, {TRAINING_SECONDS: progress.seconds})
