"""Keras tensors as NumPy arrays, for the parts that look at a network from outside the training step."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def as_numpy(tensor: Any) -> np.ndarray:
    """The values of a tensor or variable of any backend."""
    return np.asarray(ops.convert_to_numpy(tensor))
