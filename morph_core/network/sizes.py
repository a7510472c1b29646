"""How wide every axis of every call is, and how large every tensor, at given widths of the groups."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..cost.calls import Shape
from .channels import Channels


class Sizes:
    """Axes and tensors of a network as linear functions of its groups' widths.

    Args:
        channels: of the network.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def axes(self, widths: np.ndarray) -> np.ndarray:
        """Channels on every axis of every call, in the order of `rows`: float array (axes,) or (axes, networks).

        Args:
            widths: float array (groups,) or (networks, groups).
        """
        counts, fixed = self._axis_counts
        return np.atleast_1d((widths @ counts.T + fixed).T)

    def tensors(self, widths: np.ndarray) -> np.ndarray:
        """Elements of every tensor for one example: float array (tensors,) or (tensors, networks), NaN where unknown.

        Args:
            widths: as for `axes`.
        """
        counts, fixed = self._tensor_counts
        return np.atleast_1d((widths @ counts.T + fixed).T)

    def axis(self, call: int, axis: str, widths: np.ndarray) -> int:
        """Channels on a named axis of a call, at these widths: int array (groups,)."""
        counts, fixed = self._axis_counts
        row = self.rows[call][axis]
        return int(counts[row] @ widths + fixed[row])

    def shape(self, tensor: int, widths: np.ndarray) -> Shape:
        """How long a tensor is along each axis.

        Args:
            tensor: its number.
            widths: as for `axes`.
        """
        shape, units = self._channels.trace.shapes[tensor], self._channels.tensors[tensor]
        sizes: list[Any] = [self.rows_of(tensor) if size is None else size for size in shape]
        if shape.count(None) > 1:
            sizes = [np.nan if size is None and axis else sizes[axis] for axis, size in enumerate(shape)]
        inside = units[units >= 0]
        seed = tuple(sizes)
        axes = [axis for axis in range(units.ndim) if units.shape[axis] == units.size == shape[axis]]
        if not inside.size or not axes:
            return Shape(seed, seed)
        groups = self._channels.group_of[inside]
        counts = np.bincount(groups, minlength=len(self._channels.groups)) / np.maximum(self._channels.seed_widths, 1)
        sizes[axes[-1]] = widths @ counts + (units.size - inside.size)
        return Shape(tuple(sizes), seed, bool(self._channels.prunable[groups].any()))

    @functools.cached_property
    def batch(self) -> int:
        """How many examples the tensors hold, where the model's input says so; else 1."""
        shapes = [self._channels.trace.shapes[number] for number in self._channels.trace.inputs]
        return next((shape[0] for shape in shapes if shape and shape[0]), 1)

    def rows_of(self, tensor: int) -> float:
        """Places along the axis of the batch that belong to one example: more than 1 for windows of an image, say.

        NaN where a size is open that is not the batch's, and no other.

        Args:
            tensor: its number.
        """
        return self._rows_of[tensor]

    @functools.cached_property
    def _rows_of(self) -> list[float]:
        trace = self._channels.trace
        rows = trace.rows or (1,) * len(trace.shapes)
        leaves_open = any(trace.shapes[number][:1] == (None,) for number in trace.inputs)

        def of_one(shape: tuple[int | None, ...], units: np.ndarray, places: int) -> float:
            if not shape or units.shape[0] > 1:
                return 1
            if shape[0] is None or (leaves_open and None in shape):
                return places
            return np.nan if None in shape else max((shape[0] or 1) / self.batch, 1)

        return [of_one(*found) for found in zip(trace.shapes, self._channels.tensors, rows, strict=True)]

    @functools.cached_property
    def rows(self) -> list[dict[str, int]]:
        """For each call, by axis name, its row in what `axes` returns."""
        rows, total = [], 0
        for axes in self._channels.axes:
            rows.append({name: total + offset for offset, name in enumerate(axes)})
            total += len(axes)
        return rows

    @functools.cached_property
    def _axis_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """For every axis of every call: channels per channel of each group, and those of no group."""
        vectors = [vector for axes in self._channels.axes for vector in axes.values()]
        counts = np.zeros((len(vectors), len(self._channels.groups)))
        fixed = np.zeros(len(vectors))
        for row, vector in enumerate(vectors):
            units = vector[vector >= 0]
            fixed[row] = len(vector) - len(units)
            if len(units):
                counts[row] = np.bincount(self._channels.group_of[units], minlength=len(self._channels.groups))
        return counts / np.maximum(self._channels.seed_widths, 1), fixed

    @functools.cached_property
    def _tensor_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """For every tensor of one example: elements per channel of each group, and those of no group (NaN: unknown)."""
        counts = np.zeros((len(self._channels.tensors), len(self._channels.groups)))
        fixed = np.zeros(len(self._channels.tensors))
        for number, (units, shape) in enumerate(zip(self._channels.tensors, self._channels.trace.shapes, strict=True)):
            # Labels have length 1 along axes of places. The batch is the first of them, or the one that is left open.
            moved = bool(shape) and shape[0] is not None and None in shape
            places = [
                size
                for axis, size in enumerate(shape)
                if (axis or moved) and units.shape[axis] == 1 and not (moved and size is None)
            ]
            if None in places:
                fixed[number] = np.nan
                continue
            each = self.rows_of(number) * math.prod(size for size in places if size is not None)
            inside = units[units >= 0]
            fixed[number] = each * (units.size - inside.size)
            if inside.size:
                counts[number] = each * np.bincount(
                    self._channels.group_of[inside], minlength=len(self._channels.groups)
                )
        return counts / np.maximum(self._channels.seed_widths, 1), fixed
