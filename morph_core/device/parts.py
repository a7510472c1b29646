"""Networks to be measured: one call of a graph by itself, or all of it, at any widths, in any dtype."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..network.trace import Call, Ref, takes_training
from ..structure.rebuild import replay, resized


def one_call(graph: ChannelGraph, index: int, widths: np.ndarray, dtype: str, batch_size: int) -> keras.Model:
    """A model that consists of one call of a network.

    Args:
        graph: of the network.
        index: of the call.
        widths: int array (groups,).
        dtype: in which it computes.
        batch_size: of its inputs, which have no unknown sizes.

    Raises:
        MorphError: a size is unknown, or the layer cannot be made anew.
    """
    call = graph.trace.calls[index]
    tensors = {
        number: _input(graph, number, widths, dtype, batch_size, f"'{call.name}' ({call.kind})")
        for number in dict.fromkeys(call.inputs)
    }

    def fill(leaf: Any) -> Any:
        return tensors[leaf.index] if isinstance(leaf, Ref) else leaf

    layer, args = _layer(graph, index, widths, call.args, dtype)
    args, kwargs = keras.tree.map_structure(fill, (tuple(args), call.kwargs))
    return keras.Model(list(tensors.values()), layer(*args, **_at_inference(call, kwargs)))


def whole(graph: ChannelGraph, widths: np.ndarray, dtype: str, batch_size: int) -> keras.Model:
    """The network at these widths, with random weights; arguments are those of `one_call`."""
    symbolic = [_input(graph, number, widths, dtype, batch_size, "the network") for number in graph.trace.inputs]
    made: dict[int, Any] = {}

    def call_new(index: int, call: Call, args: tuple, kwargs: dict) -> Any:
        layer, args = _layer(graph, index, widths, args, dtype)
        return made.setdefault(id(call.layer), layer)(*args, **_at_inference(call, kwargs))

    return keras.Model(symbolic, replay(graph, graph.survivors(widths > 0), symbolic, call_new))


def empty() -> keras.Model:
    """A model that does next to nothing: what it takes is what calling a model takes."""
    inputs = keras.Input(batch_shape=(1, 1), dtype="float32")
    return keras.Model(inputs, keras.ops.negative(inputs))


def random_inputs(model: keras.Model, seed: int = 0) -> list[np.ndarray]:
    """A batch for a model without unknown sizes: numbers from -1 to 1; integers 0 and 1, which every vocabulary has."""
    rng = np.random.default_rng(seed)
    return [
        rng.uniform(-1, 1, tensor.shape).astype("float32")
        if keras.backend.is_float_dtype(tensor.dtype)
        else rng.integers(0, 2, tensor.shape).astype(tensor.dtype)
        for tensor in keras.tree.flatten(model.input)
    ]


def random_widths(graph: ChannelGraph, seed: int) -> np.ndarray:
    """Widths of all groups, int array (groups,): a fifth to all of the channels on the whole, each group half off."""
    rng = np.random.default_rng(seed)
    share = np.clip(rng.uniform(0.2, 1.0) * rng.uniform(0.5, 1.5, len(graph.groups)), 1 / 8, 1.0)
    widths = np.maximum(np.rint(graph.seed_widths * share), 1).astype(np.int64)
    return np.where(graph.prunable, widths, graph.seed_widths)


def _input(graph: ChannelGraph, number: int, widths: np.ndarray, dtype: str, batch_size: int, reader: str) -> Any:
    """An input for tensor `number` of the graph."""
    shape = []
    for axis, size in enumerate(graph.trace.shapes[number][1:], start=1):
        left = graph.places(number, axis, widths)
        if size is None:
            raise MorphError(
                f"{reader} reads a tensor of shape {graph.trace.shapes[number]}: how long it takes depends on the "
                "unknown size. Give keras.Input a shape without None to measure."
            )
        shape.append(size if left is None else round(float(left.sum())))
    known = graph.trace.dtypes[number]
    is_float = keras.backend.is_float_dtype(known)
    return keras.Input(batch_shape=(batch_size, *shape), dtype=dtype if is_float else known)


def _layer(graph: ChannelGraph, index: int, widths: np.ndarray, args: tuple, dtype: str) -> tuple[Any, tuple]:
    """The layer of a call as wide as it should be, in a dtype, and its arguments."""
    layer = graph.trace.calls[index].layer
    if hasattr(layer, "adapt"):
        # What it has learned of the data is no weight that could be made up.
        return layer, args
    return resized(graph, index, widths, args, lambda config: _in_dtype(config, dtype))


def _at_inference(call: Call, kwargs: dict) -> dict:
    return {**kwargs, "training": False} if takes_training(call.layer) else kwargs


def _in_dtype(config: Any, dtype: str) -> Any:
    """A layer's configuration, and those inside, with another policy; what is no number stays as it is."""
    if isinstance(config, list):
        return [_in_dtype(value, dtype) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        name: dtype if name == "dtype" and _is_float_policy(value) else _in_dtype(value, dtype)
        for name, value in config.items()
    }


def _is_float_policy(value: Any) -> bool:
    named = value.get("config", {}).get("name", "") if isinstance(value, dict) else value
    return isinstance(named, str) and "float" in named
