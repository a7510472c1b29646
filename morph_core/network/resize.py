"""Sizes that stand in a layer's configuration or in a call's arguments, adapted to new widths.

A reshape names its target shape, a split its points, a slice its ends: when channels go, so do these numbers change.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from .trace import Call


@dataclasses.dataclass
class Resize:
    """One call on its way into the rebuilt network.

    Attributes:
        call: in the seed.
        config: of the layer, to be changed.
        args: of the call, to be changed; tensors are references.
        shapes: of the seed's tensors, by number.
        places: (tensor, axis) -> how many of each of the seed's places on that axis are there now: float array (size,),
            or None when nothing changes along it.
        kept: (tensor, axis) -> which of the seed's places on that axis are there now: int array; None likewise.
    """

    call: Call
    config: dict[str, Any]
    args: list[Any]
    shapes: tuple[tuple[int | None, ...], ...]
    places: Callable[[int, int], np.ndarray | None]
    kept: Callable[[int, int], np.ndarray | None]

    def size(self, tensor: int, axis: int) -> int | None:
        """The size of a tensor along an axis now."""
        left = self.places(tensor, axis)
        return self.shapes[tensor][axis] if left is None else round(float(left.sum()))

    def position(self, tensor: int, axis: int, place: int) -> int:
        """Where a place on the seed's axis lies now."""
        left = self.places(tensor, axis)
        return place if left is None else round(float(left[:place].sum()))


def configuration_of(layer: Any) -> dict[str, Any]:
    """The configuration of a layer or operation.

    Raises:
        NotImplementedError: it says nothing of its arguments.
    """
    try:
        return layer.get_config()
    except NotImplementedError:
        # One that has no arguments of its own need not say any; what Keras could not write down is its policy.
        own = [name for name in inspect.signature(type(layer).__init__).parameters if name not in ("self", "kwargs")]
        if own or not isinstance(layer, keras.Layer):
            raise
        return {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}


def made_anew(layer: Any, config: dict[str, Any]) -> Any:
    """A new layer or operation like `layer`, from its configuration, which may be changed."""
    if isinstance(layer, keras.layers.Lambda):
        # Keras does not make functions from configurations, since files could bring any; here they are at hand.
        functions = {"function": layer.function, "output_shape": layer._output_shape, "mask": layer.mask}
        return type(layer)(**{**config, **functions})
    # Functions that nobody registered, such as an activation of one's own, are at hand as well.
    functions = {value.__name__: value for value in vars(layer).values() if inspect.isfunction(value)}
    with keras.saving.custom_object_scope(functions):
        return type(layer).from_config(config)


def target_shape(resize: Resize) -> None:
    """Reshape, as a layer ("target_shape", without the batch) or as an operation ("newshape", with it)."""
    key = "target_shape" if "target_shape" in resize.config else "newshape"
    given = resize.config[key]
    given = (given,) if isinstance(given, int) else given
    (output,) = resize.call.outputs
    first = 1 if key == "target_shape" else 0
    resize.config[key] = tuple(
        size if size == -1 or size is None else resize.size(output, axis)
        for axis, size in enumerate(given, start=first)
    )


def split_points(resize: Resize) -> None:
    """Split: where each part begins, since equal parts need not stay equal."""
    axis = resize.config["axis"]
    sizes = [resize.size(number, axis) for number in resize.call.outputs]
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes):
        resize.config["indices_or_sections"] = np.cumsum(known)[:-1].tolist()


def slice_ends(resize: Resize) -> None:
    """x[...]: the ends of slices along an axis of channels."""
    keys, tensor = resize.args[1], resize.call.inputs[0]
    several = isinstance(keys, tuple)
    changed = tuple(
        _slice(resize, key, tensor, axis) if isinstance(key, slice) else key
        for axis, key in indexed_axes(keys if several else (keys,), len(resize.shapes[tensor]))
    )
    resize.args[1] = changed if several else changed[0]


def cut_sizes(resize: Resize) -> None:
    """ops.slice: how much is taken along the last axis, which is all of it."""
    (output,) = resize.call.outputs
    size = resize.size(output, len(resize.shapes[output]) - 1)
    # Where it is told depends on the version of Keras.
    if "shape" in resize.config:
        resize.config["shape"] = (*resize.config["shape"][:-1], size)
    else:
        resize.args[2] = (*resize.args[2][:-1], size)


def spread_sizes(resize: Resize) -> None:
    """What repeats a tensor for each example: the sizes of axes along which channels lie."""
    (output,) = resize.call.outputs
    for axis in range(1, len(resize.shapes[output])):
        if resize.places(output, axis) is not None:
            for config in (resize.config, resize.config["config"]):
                if "shape" in config:
                    sizes = list(config["shape"])
                    sizes[axis] = resize.size(output, axis)
                    config["shape"] = sizes


def rows_of_table(resize: Resize) -> None:
    """A table of numbers: those of the channels that are there."""
    (output,) = resize.call.outputs
    for axis in range(len(resize.shapes[output])):
        kept = resize.kept(output, axis)
        if kept is not None:
            table = np.take(resize.call.layer.value, kept, axis)  # pyright: ignore[reportAttributeAccessIssue]
            resize.config.update(value=table, shape=table.shape)


def indexed_axes(keys: tuple[Any, ...], rank: int) -> Iterator[tuple[int, Any]]:
    """The keys of x[keys], each with the axis that it is about, or that it precedes (None and Ellipsis)."""
    axis = 0
    for key in keys:
        yield axis, key
        if key is Ellipsis:
            axis += rank - sum(1 for other in keys if other is not None and other is not Ellipsis)
        elif key is not None:
            axis += 1


def _slice(resize: Resize, key: slice, tensor: int, axis: int) -> slice:
    size = resize.shapes[tensor][axis]
    if size is None or key.step not in (None, 1) or resize.places(tensor, axis) is None:
        return key
    start, stop, _ = key.indices(size)
    return slice(resize.position(tensor, axis, start), resize.position(tensor, axis, stop))


def one_group_a_channel(resize: Resize) -> None:
    """A convolution or GroupNormalization with a group for each channel: as many groups as channels."""
    tensor = resize.call.inputs[0]
    axis = 1 if resize.config.get("data_format") == "channels_first" else -1
    if resize.config.get("groups", 1) > 1 and resize.config["groups"] == resize.shapes[tensor][axis]:
        resize.config["groups"] = resize.size(tensor, axis)


def take_as_it_comes(resize: Resize) -> None:
    """A probed layer: it was seen to build itself for any number of channels."""
