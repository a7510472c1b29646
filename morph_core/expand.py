"""The second half of a cycle: widen a structure by one factor until the budget is used again.

MorphNet's expansion (Gordon et al., CVPR 2018, section 3) multiplies every width by the same factor, the largest that
the budget allows. Widths are whole numbers, so after the factor is found by bisection on the true cost, single channels
are added where a layer is furthest below its share, until not one more fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .costs import Cost, cost_of, total_cost
from .errors import MorphError
from .structure import Structure, describe

if TYPE_CHECKING:
    from .graph import ChannelGraph

# No budget anyone means needs a network this much wider than the one that was searched.
_LARGEST_MULTIPLIER = 1024.0


def expand(
    structure: Structure,
    graph: ChannelGraph,
    cost: str | Callable | Cost = "flops",
    *,
    target: float | None = None,
    budget: float | None = None,
    multiplier: float | None = None,
) -> Structure:
    """Multiply all widths by one factor; layers that were removed stay removed.

    Args:
        structure: widths to start from.
        graph: of the seed that the structure belongs to.
        cost: what the budget counts.
        target: the budget as a fraction of the seed's cost; may exceed 1.
        budget: the budget in the cost's own unit.
        multiplier: the factor itself, instead of a budget; halves are rounded up.

    Returns:
        A structure of the same seed whose widths belong to no channels in particular (`alive` is None). With a budget,
        its cost is within it, and one more channel in any group would exceed it.

    Raises:
        MorphError: not exactly one of target, budget and multiplier is given, or the budget is below the structure's
            cost.

    Example:
        Layers of 100 channels, shrunk to 10 and to 80, become 15 and 120 at a width multiplier of 1.5:

        >>> import keras, morph_core as morph
        >>> inputs = keras.Input((32,))
        >>> hidden = keras.layers.Dense(100, name="b")(keras.layers.Dense(100, name="a")(inputs))
        >>> graph = morph.ChannelGraph.from_model(keras.Model(inputs, keras.layers.Dense(2)(hidden)))
        >>> shrunk = morph.describe(graph, {"a": 10, "b": 80})
        >>> wider = morph.expand(shrunk, graph, multiplier=1.5)
        >>> wider.widths["a"], wider.widths["b"]
        (15, 120)
    """
    given = {"target": target, "budget": budget, "multiplier": multiplier}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise MorphError(f"expand needs exactly one of target, budget and multiplier; received {chosen or 'none'}.")
    (name, value), counted = *chosen.items(), cost_of(cost)
    if not math.isfinite(value) or value <= 0:
        raise MorphError(f"expand: {name} is {value}; expected a positive number.")
    widths = structure.widths_in(graph)
    if multiplier is not None:
        wider = _scaled(graph, widths, multiplier)
        settings = {"multiplier": float(multiplier)}
    else:
        limit = float(budget) if budget is not None else float(target or 0) * graph.cost(counted)
        factor, wider = _widest(graph, counted, widths, limit)
        settings = {"expanded_to": limit / graph.cost(counted), "multiplier": factor}
    names = {group.name: int(width) for group, width in zip(graph.groups, wider, strict=True) if group.prunable}
    return describe(
        graph,
        names,
        alive=dict.fromkeys(names),
        costs=[counted],
        goal=structure.goal,
        settings={**structure.settings, **settings},
        trajectory=structure.trajectory,
    )


def uniform(
    graph: ChannelGraph,
    cost: str | Callable | Cost = "flops",
    *,
    target: float | None = None,
    budget: float | None = None,
) -> Structure:
    """Multiply all widths of the seed by one factor, the largest that a budget allows: no search, the usual baseline.

    Args:
        graph: of the seed.
        cost: what the budget counts.
        target: the budget as a fraction of the seed's cost; 1 gives the seed itself.
        budget: the budget in the cost's own unit.

    Returns:
        A structure whose widths belong to no channels in particular (`alive` is None). Its cost is within the budget,
        and one more channel in any group would exceed it.

    Raises:
        MorphError: not exactly one of target and budget is given, or one channel a layer is already too many.

    Example:
        >>> import keras, morph_core as morph
        >>> inputs = keras.Input((32,))
        >>> hidden = keras.layers.Dense(80, name="b")(keras.layers.Dense(40, name="a")(inputs))
        >>> graph = morph.ChannelGraph.from_model(keras.Model(inputs, keras.layers.Dense(2)(hidden)))
        >>> narrow = morph.uniform(graph, "params", target=0.5)
        >>> narrow.widths["a"], narrow.widths["b"], narrow.costs["params"]["structure"] / graph.cost("params") <= 0.5
        (26, 52, True)
    """
    given = {"target": target, "budget": budget}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise MorphError(f"uniform needs exactly one of target and budget; received {chosen or 'none'}.")
    [(name, value)] = chosen.items()
    if not math.isfinite(value) or value <= 0:
        raise MorphError(f"uniform: {name} is {value}; expected a positive number.")
    counted = cost_of(cost)
    seed = np.array([group.size for group in graph.groups])
    full = total_cost(graph, counted, seed, graph.survivors(seed > 0))
    limit = value if budget is not None else value * full
    smallest = total_cost(graph, counted, _scaled(graph, seed, 0.0), graph.survivors(seed > 0))
    if smallest > limit:
        raise MorphError(
            f"uniform: with one channel a layer the network still costs {smallest:.6g} {counted.unit}, more than the "
            f"budget of {limit:.6g}. Raise the budget."
        )
    factor, widths = _widest(graph, counted, seed, limit, low=0.0)
    names = {group.name: int(width) for group, width in zip(graph.groups, widths, strict=True) if group.prunable}
    return describe(
        graph,
        names,
        alive=dict.fromkeys(names),
        costs=[counted],
        goal={"cost": counted.name, name: float(value)},
        settings={"multiplier": factor},
    )


def _scaled(graph: ChannelGraph, widths: np.ndarray, factor: float) -> np.ndarray:
    """Every prunable width times the factor, rounded half up, at least 1; 0 stays 0."""
    wider = np.maximum(np.floor(widths * factor + 0.5 + 1e-9), 1).astype(np.int64)
    return np.where(graph.prunable & (widths > 0), wider, widths)


def _widest(
    graph: ChannelGraph, cost: Cost, widths: np.ndarray, limit: float, low: float = 1.0
) -> tuple[float, np.ndarray]:
    """The largest factor, from `low`, within the limit, and its widths after single channels have filled the rest."""
    left = graph.survivors(widths > 0)

    def price(candidate: np.ndarray) -> float:
        return total_cost(graph, cost, candidate, left)

    if price(_scaled(graph, widths, low)) > limit:
        raise MorphError(
            f"expand: the structure costs {price(widths):.6g} {cost.unit}, more than the budget of {limit:.6g}. "
            "Expansion only widens: search with a smaller target first, or raise the budget."
        )
    high = low + 1
    while price(_scaled(graph, widths, high)) <= limit:
        low, high = high, 2 * high
        if high > _LARGEST_MULTIPLIER:
            raise MorphError(
                f"expand: even {_LARGEST_MULTIPLIER:.0f} times the widths stay within {limit:.6g} {cost.unit}. "
                "Is the budget given in the cost's own unit?"
            )
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if price(_scaled(graph, widths, middle)) <= limit else (low, middle)
    filled = _scaled(graph, widths, low)
    growing = np.flatnonzero(graph.prunable & (widths > 0)).tolist()
    while growing:
        growing.sort(key=lambda index: filled[index] / widths[index])
        for index in list(growing):
            filled[index] += 1
            if price(filled) <= limit:
                break
            filled[index] -= 1
            growing.remove(index)
    return low, filled
