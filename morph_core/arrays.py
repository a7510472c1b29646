"""Values and weights of Keras, for the parts that look at a network from outside the training step.

Keras is imported where it is used: costs need this file, and whoever checks a cost's name should not wait for Keras.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def as_numpy(tensor: Any) -> np.ndarray:
    """The values of a tensor or variable of any backend."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(tensor))


def weight_of(layer: Any, path: str) -> Any:
    """A layer's weight by the path of its attribute, as in "cell.kernel" or "weights.0"; None when there is none."""
    found: Any = layer
    for name in path.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name, None)
    return found
