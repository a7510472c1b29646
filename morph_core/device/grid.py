"""What is measured: for every kind of call in a network, the widths at which it is timed.

Groups that change the same sizes of a call are one dimension of its grid: they are narrowed together. A convolution
from one group to another has two, a residual one, whose input and output are tied, has one; so no width is measured
that the network cannot have. Equal calls share a grid, which then spans the widths of all of them.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from ..cost.calibration import is_work, signature, sizes_of
from ..network.graph import ChannelGraph

# With more dimensions a grid has too many points to be measured in minutes; the estimate serves such a call.
_MOST_DIMENSIONS = 3
_POINTS_IN_THREE = 3
# Narrowest width measured, as a share of the seed's.
_NARROWEST = 1 / 8
# Two widths of a grid closer than this are not both measured.
_APART = 1.12


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """What is measured for a `Table`, which explains the fields that are not explained here.

    Attributes:
        call: the index of a call that stands for all of this kind.
        widths: for each point, the widths of the network's groups: int arrays (groups,).
    """

    call: int
    signature: str
    has_kernels: bool
    sizes: tuple[str, ...]
    grid: tuple[tuple[float, ...], ...]
    tied: dict[str, tuple[float, ...]]
    widths: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Dimension:
    """Groups of a call that are narrowed together, the size that tells how far, and that size in the seed."""

    groups: np.ndarray
    size: str
    seed: float


def grids_of(graph: ChannelGraph, points: int) -> list[Grid]:
    """The grids of all calls of a network that compute something, in topological order.

    Args:
        points: for each dimension.
    """
    prunable = np.flatnonzero(graph.prunable)
    seed = graph.seed_widths.astype(float)
    changes = np.vstack([seed, seed - np.eye(len(seed))[prunable]])
    alike: dict[tuple, list[tuple[int, list[_Dimension]]]] = {}
    tied_of: dict[tuple, dict[str, tuple[float, ...]]] = {}
    for index, call in enumerate(graph.call_widths(changes)):
        if not (call.makes and call.reads):
            continue
        sizes = {name: np.broadcast_to(value, len(changes)) for name, value in sizes_of(call).items()}
        dimensions = _dimensions(sizes, prunable, set(call.axes))
        if dimensions is None:
            continue
        tied = _tied(sizes, dimensions, prunable)
        names = tuple(dimension.size for dimension in dimensions)
        rounded = tuple((name, tuple(np.round(numbers, 6))) for name, numbers in sorted(tied.items()))
        key = (signature(call), is_work(call), names, rounded)
        alike.setdefault(key, []).append((index, dimensions))
        tied_of[key] = tied
    return [_grid(graph, key, calls, tied_of[key], points) for key, calls in alike.items()]


def _dimensions(sizes: dict[str, np.ndarray], prunable: np.ndarray, axes: set[str]) -> list[_Dimension] | None:
    """The dimensions of a call, from its sizes in the seed and with a channel less in each prunable group.

    None when they are too many, or cannot be told apart by sizes.
    """
    together: dict[frozenset[str], list[int]] = {}
    for row, group in enumerate(prunable, start=1):
        changed = frozenset(name for name, value in sizes.items() if abs(value[row] - value[0]) > 1e-9)
        if changed:
            together.setdefault(changed, []).append(int(group))
    found = []
    for changed, groups in together.items():
        others = frozenset[str]().union(*(names for names in together if names != changed))
        own = sorted(changed - others, key=lambda name: (name not in axes, name))
        if not own:
            return None
        found.append(_Dimension(np.array(groups), own[0], float(sizes[own[0]][0])))
    return found if len(found) <= _MOST_DIMENSIONS else None


def _tied(
    sizes: dict[str, np.ndarray], dimensions: list[_Dimension], prunable: np.ndarray
) -> dict[str, tuple[float, ...]]:
    """Every size that is no dimension, as a constant and a factor for each dimension."""
    rows = [1 + np.flatnonzero(np.isin(prunable, dimension.groups)) for dimension in dimensions]
    tied = {}
    for name, value in sizes.items():
        if any(name == dimension.size for dimension in dimensions):
            continue
        factors = []
        for dimension, row in zip(dimensions, rows, strict=True):
            per_channel = sizes[dimension.size][row] - dimension.seed
            factors.append(float((value[row] - value[0]).sum() / per_channel.sum()))
        constant = value[0] - sum(f * d.seed for f, d in zip(factors, dimensions, strict=True))
        tied[name] = (float(constant), *factors)
    return tied


def _grid(graph: ChannelGraph, key: tuple, calls: list[tuple[int, list[_Dimension]]], tied: dict, points: int) -> Grid:
    """One grid for calls that are alike; the widest of them stands for all."""
    kind, has_kernels, names, _ = key
    index, widest = max(calls, key=lambda one: [dimension.seed for dimension in one[1]])
    count = points if len(names) < _MOST_DIMENSIONS else min(points, _POINTS_IN_THREE)
    shares = np.linspace(_NARROWEST, 1.0, count)
    seed = graph.seed_widths
    values, scaled = [], []
    for place, dimension in enumerate(widest):
        wanted = sorted({share * dimensions[place].seed for _, dimensions in calls for share in shares}, reverse=True)
        at: dict[float, np.ndarray] = {}
        for value in wanted:
            narrowed = seed.copy()
            share = value / dimension.seed
            narrowed[dimension.groups] = np.maximum(np.rint(seed[dimension.groups] * share), 1)
            exact = float(sizes_of(graph.call_widths(narrowed.astype(float))[index])[dimension.size])
            if not at or min(at) / exact > _APART:
                at[exact] = narrowed
        values.append(tuple(sorted(at)))
        scaled.append([(dimension.groups, at[value]) for value in sorted(at)])
    widths = []
    for corner in itertools.product(*scaled):
        chosen = seed.copy()
        for groups, narrowed in corner:
            chosen[groups] = narrowed[groups]
        widths.append(chosen)
    return Grid(index, kind, has_kernels, names, tuple(values), tied, tuple(widths))
