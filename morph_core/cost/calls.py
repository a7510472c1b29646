"""A network as costs see it: one `CallWidths` for each layer call that is still there."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from ..arrays import weight_of
from ..errors import MorphError


class Uncounted(MorphError):
    """The multiply-adds of a call are not known; the message says why."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """How long a tensor is along each axis; an open batch counts as one example.

    Attributes:
        sizes: ints, or floats or float arrays (networks,) on the axis of the channels; NaN where unknown.
        seed: the same in the seed.
        varies: whether channels on it can be pruned.
    """

    sizes: tuple[Any, ...]
    seed: tuple[Any, ...]
    varies: bool = False

    @classmethod
    def of_seed(cls, *sizes: Any) -> Shape:
        known = tuple(np.nan if size is None else size for size in sizes)
        return cls(known, known)


class Work(Protocol):
    """What a cost asks of a layer's row in the table of rules; `network.rules.Rule` explains each."""

    @property
    def widths(self) -> Mapping[str, str]: ...

    @property
    def weights(self) -> Mapping[str, tuple[str | None, ...]]: ...

    @property
    def kernels(self) -> Mapping[str, str]: ...

    @property
    def products(self) -> Callable[[Any], Any] | None: ...


@dataclasses.dataclass(frozen=True, eq=False)
class CallWidths:
    """One layer call, and how wide it is.

    Attributes:
        name, kind: of the layer.
        layer: the seed's Keras layer: its configuration counts, its own width does not.
        rule: its row in the table of rules.
        input_shapes, output_shape: in the seed, batch first.
        places: the same shapes, output last, with None for every axis along which channels lie, and for the batch.
        axes: the number of channels on each named axis ("in", "out", ...): floats or float arrays (networks,).
        first: False when the same layer was called before, so that its weights are counted already.
        reads: the numbers of the tensors it reads, without those that are gone.
        makes: the numbers of the tensors it makes; none when it only passes its input on.
        frees: of those, the ones that no later call reads and the model does not return.
        tensor_sizes: -> elements of every tensor, by its number; see `elements`.
        counted: elements of its weights that an earlier call's layer holds, too, so that they are counted already.
        arguments: -> what the layer is called with, by the names of its parameters; tensors are `Shape`s.
        made: -> the `Shape` of its first output.
        inside: (layer, arguments, opened) -> multiply-adds of another layer that is called with such arguments, at its
            own full widths; opened, by what its code runs.
        batch: how many examples the tensors hold; 1 where that is left open.
        rows: places along the axis of the batch of its first input, and of its output, that belong to one example: 1
            but for such as windows of an image that are laid along the batch; NaN where they are not known.
    """

    name: str
    kind: str
    layer: Any
    rule: Work
    input_shapes: tuple[tuple[int | None, ...], ...]
    output_shape: tuple[int | None, ...]
    places: tuple[tuple[int | None, ...], ...]
    axes: dict[str, Any]
    first: bool
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    frees: tuple[int, ...]
    tensor_sizes: Callable[[], np.ndarray]
    arguments: Callable[[], dict[str, Any]]
    made: Callable[[], Shape]
    inside: Callable[[Any, dict[str, Any], bool], float]
    batch: int = 1
    rows: tuple[float, float] = (1, 1)
    counted: int = 0

    def elements(self, tensors: Iterable[int]) -> Any:
        """Elements of some of the tensors that this call reads or makes, together, for one example."""
        sizes = self.tensor_sizes()
        total = functools.reduce(lambda total, number: total + sizes[number], tensors, 0.0)
        if np.isnan(total).any():
            raise MorphError(
                f"Layer '{self.name}' ({self.kind}) has inputs of shapes {self.input_shapes} and an output of shape "
                f"{self.output_shape}: with a size unknown, so are its activations. Give keras.Input a shape without "
                "None, or use cost='params'."
            )
        return total

    def weight_size(self, name: str) -> Any:
        """Elements of a weight at these widths; 0 when the layer has no such weight."""
        weight = weight_of(self.layer, name)
        if weight is None:
            return 0.0
        follows = tuple(self.rule.weights[name])
        size = 1.0
        # The last of them are those of the last dimensions; a single number has none.
        padded = ((None,) * len(weight.shape) + follows)[len(follows) :]
        for length, axis in zip(weight.shape, padded, strict=True):
            size = size * (length if axis is None or axis not in self.axes else self.axes[axis])
        return size

    def positions(self, side: str) -> float:
        """How often a kernel is applied for one example: the places of its "input" or "output", or of an argument.

        An argument is named as in the layer's `call`; "key" is "value" where the call has none.
        """
        if side in ("input", "output"):
            shape = self.input_shapes[0] if side == "input" else self.output_shape
        else:
            given = self.arguments()
            found = given.get(side) or given.get("value" if side == "key" else side)
            if not isinstance(found, Shape):
                raise Uncounted(f"its argument '{side}' is no tensor")
            # Channels lie on the last axis there; what is left are places, which have the same sizes at any width.
            shape = found.sizes
        first = getattr(self.layer, "data_format", None) == "channels_first"
        rows = self.rows[side == "output"] if side in ("input", "output") else (shape[0] or 1) / self.batch
        places = shape[2:] if first else shape[1:-1]
        if side in ("input", "output") and shape and shape[0] is not None and shape.count(None) == 1:
            # The batch lies along another axis, so the first is one of places.
            places = (shape[0], *(size for size in places if size is not None))
        if np.isnan(rows) or any(size is None or np.isnan(size).any() for size in places):
            raise MorphError(
                f"Layer '{self.name}' ({self.kind}) has an {side} of unknown size {shape}, so its FLOPs are unknown. "
                "Give keras.Input a shape without None, or use cost='params'."
            )
        return max(rows, 1) * math.prod(size or 1 for size in places)
