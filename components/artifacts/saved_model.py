"""Whether a SavedModel can be used: found out by loading it, before a night's training is staked on it.

What its graph would do to this machine is read before that (`saved_model_graph`). A directory with every file in its
place may hold half of a copy. Evaluator would notice, hours later. Importing this imports TFMA, which registers the
operations of further libraries (text, decision forests) that a model may need.
"""

from __future__ import annotations

import os

import tensorflow as tf
import tensorflow_model_analysis  # noqa: F401  (for the operations that it registers)
from tfx.dsl.io import fileio

from .saved_model_graph import SAVED_MODEL_FILE, threat_of

__all__ = ["SAVED_MODEL_FILE", "fault_of", "threat_of"]

_SIGNATURE = "serving_default"

# What is wrong with the machine or with the way to the files, and not with the model: to be raised, not judged by.
_OF_THE_MACHINE = (
    MemoryError,
    PermissionError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnauthenticatedError,
    tf.errors.UnavailableError,
)


def fault_of(directory: str) -> str | None:
    """What is wrong with a SavedModel, in words that follow its name and a colon; None when it loads.

    Args:
        directory: with `saved_model.pb`.
    """
    if not fileio.exists(directory):
        return "it is not there"
    if not fileio.exists(os.path.join(directory, SAVED_MODEL_FILE)):
        return f"{SAVED_MODEL_FILE} is missing, which is written last"
    if (threat := threat_of(directory)) is not None:
        return f"it is not loaded: {threat}"
    try:
        signatures = tf.saved_model.load(directory).signatures
    except _OF_THE_MACHINE:
        raise
    except Exception as error:  # noqa: BLE001 -- each way in which a model can be damaged has an error of its own
        lines = str(error).strip().splitlines() or [""]
        return f"it cannot be loaded ({type(error).__name__}: {lines[0]})"
    return None if _SIGNATURE in signatures else f"it has no signature {_SIGNATURE!r}"
