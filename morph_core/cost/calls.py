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
        follows = self.rule.weights[name]
        size = 1.0
        padded = (None,) * (len(weight.shape) - len(follows)) + tuple(follows)
        for length, axis in zip(weight.shape, padded, strict=True):
            size = size * (length if axis is None or axis not in self.axes else self.axes[axis])
        return size

    def positions(self, side: str) -> int:
        """How often a kernel is applied for one example: the places of its "input", "last input" or "output"."""
        shape = {"input": self.input_shapes[:1], "last input": self.input_shapes[-1:]}.get(side, (self.output_shape,))[
            0
        ]
        first = getattr(self.layer, "data_format", None) == "channels_first"
        places = shape[2:] if first else shape[1:-1]
        if None in places:
            raise MorphError(
                f"Layer '{self.name}' ({self.kind}) has an {side} of unknown size {shape}, so its FLOPs are unknown. "
                "Give keras.Input a shape without None, or use cost='params'."
            )
        return math.prod(size or 1 for size in places)
