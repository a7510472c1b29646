"""Numbers that are known of a symbolic tensor, where Keras gives code a tensor instead.

`keras.ops.ndim` makes a symbolic tensor of what is a plain number, and `keras.ops.reshape` takes no shape that code put
together as a tensor of the backend. While a network is opened both do, for symbolic tensors, what they do otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from ..arrays import as_numpy


@contextlib.contextmanager
def known_numbers() -> Iterator[None]:
    """Within it, code gets the rank of a symbolic tensor as a number, and may reshape one to a shape in a tensor."""
    before = {name: getattr(keras.ops, name) for name in ("ndim", "reshape")}

    def ndim(x: Any) -> Any:
        return len(x.shape) if isinstance(x, keras.KerasTensor) else before["ndim"](x)

    def reshape(x: Any, newshape: Any) -> Any:
        is_array = keras.ops.is_tensor(newshape) and not isinstance(newshape, keras.KerasTensor)
        if isinstance(x, keras.KerasTensor) and is_array:
            newshape = tuple(as_numpy(newshape).tolist())
        return before["reshape"](x, newshape)

    for name, operation in (("ndim", ndim), ("reshape", reshape)):
        setattr(keras.ops, name, operation)
    try:
        yield
    finally:
        for name, operation in before.items():
            setattr(keras.ops, name, operation)
