"""The second half of a cycle: widen a structure by one factor until the budget is used again.

MorphNet's expansion (Gordon et al., CVPR 2018, section 3) multiplies every width by the same factor, the largest that
the budget allows. Widths are whole numbers, or multiples of what the hardware wants, so after the factor is found by
bisection on the true cost, single steps are added where a layer is furthest below its share, until not one more fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from ..cost.amounts import Amounts
from ..cost.costs import Cost, cost_of
from ..errors import MorphError
from ..network.graph import ChannelGraph
from .budget import Budget, budget_of
from .choices import Choices, Counts, Multiples, choices_of, multiples_for
from .describe import describe
from .filling import filled
from .structure import Structure

# No budget anyone means needs a network this much wider than the one that was searched.
_LARGEST_MULTIPLIER = 1024.0


def expand(
    structure: Structure,
    graph: ChannelGraph | keras.Model,
    cost: str | Callable | Cost = "flops",
    *,
    target: Amounts | None = None,
    budget: Amounts | None = None,
    multiplier: float | None = None,
    multiple_of: Multiples = 1,
) -> Structure:
    """Multiply all widths by one factor; layers that were removed stay removed.

    Args:
        structure: widths to start from.
        graph: of the seed that the structure belongs to, or the seed.
        cost: what a budget that is one number counts.
        target: the budget as a fraction of the seed's cost; may exceed 1. Or several, by name of cost, such as
            `{"flops": 1.0, "params": 1.2}`, all of which are kept.
        budget: likewise, in the costs' own units.
        multiplier: the factor itself, instead of a budget; halves are rounded up.
        multiple_of: widen to multiples of this many channels, or, as a dict, the layers or groups that it names. A
            width for which no wider multiple fits stays as it is. "auto" takes it from a measured latency.

    Returns:
        A structure of the same seed whose widths belong to no channels in particular (`alive` is None). With a budget,
        its costs are within it, and one more step in any group would exceed it: a channel, or up to the next multiple.

    Raises:
        MorphError: not exactly one of target, budget and multiplier is given, or a budget is below the structure's
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
    graph = ChannelGraph.from_model(graph) if isinstance(graph, keras.Model) else graph
    given = {"target": target, "budget": budget, "multiplier": multiplier}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise MorphError(f"expand needs exactly one of target, budget and multiplier; received {chosen or 'none'}.")
    widths = structure.widths_in(graph)
    allowed = budget_of(graph, cost, target=target, budget=budget, caller="expand: ") if multiplier is None else None
    counted = [cost_of(cost)] if allowed is None else [limit.cost for limit in allowed.limits]
    multiple_of = multiples_for(multiple_of, counted, caller="expand: ")
    choices = choices_of(graph, multiple_of, caller="expand: ")
    if multiplier is not None:
        if not math.isfinite(multiplier) or multiplier <= 0:
            raise MorphError(f"expand: multiplier is {multiplier}; expected a positive number.")
        least = widths if multiplier >= 1 else np.minimum(choices.multiples, widths)
        wider = _scaled(choices, widths, multiplier, least)
        settings: dict[str, Any] = {"multiplier": float(multiplier)}
    else:
        assert allowed is not None
        costs = allowed.costs(widths, graph.survivors(widths > 0))
        if (costs > allowed.most).any():
            limit = allowed.limits[allowed.binding(costs)]
            raise MorphError(
                f"expand: the structure costs {costs[allowed.binding(costs)]:.6g} {limit.cost.unit}, more than the "
                f"budget of {limit.most:.6g}. Expansion only widens: search with a smaller target first, or raise the "
                "budget."
            )
        factor, wider = _widest(allowed, choices, widths, widths)
        shares = dict(zip(allowed.names, allowed.shares.tolist(), strict=True))
        expanded_to = shares if len(shares) > 1 else next(iter(shares.values()))
        settings = {"expanded_to": expanded_to, "multiplier": max(factor, 1.0)}
    if multiple_of != 1:
        settings["multiple_of"] = dict(multiple_of) if isinstance(multiple_of, Mapping) else multiple_of
    names = {group.name: int(width) for group, width in zip(graph.groups, wider, strict=True) if group.prunable}
    # What the search left of its own budget says nothing about this structure.
    kept = {name: value for name, value in structure.settings.items() if name != "budget"}
    return describe(
        graph,
        names,
        alive=dict.fromkeys(names),
        costs=counted,
        goal=structure.goal,
        settings={**kept, **settings},
        trajectory=structure.trajectory,
    )


def uniform(
    graph: ChannelGraph,
    cost: str | Callable | Cost = "flops",
    *,
    target: Amounts | None = None,
    budget: Amounts | None = None,
    multiple_of: Multiples = 1,
    min_channels: Counts | None = None,
) -> Structure:
    """Multiply all widths of the seed by one factor, the largest that a budget allows: no search, the usual baseline.

    Args:
        graph: of the seed.
        cost: what a budget that is one number counts.
        target: the budget as a fraction of the seed's cost; 1 gives the seed itself. Or several, by name of cost.
        budget: likewise, in the costs' own units.
        multiple_of: widths are multiples of this many channels, or the seed's; as a dict, those of the layers or groups
            that it names; "auto" takes it from a measured latency.
        min_channels: channels that each layer keeps at least, or numbers by layer; without it, one.

    Returns:
        A structure whose widths belong to no channels in particular (`alive` is None). Its costs are within the budget,
        and one more step in any group would exceed it: a channel, or up to the next multiple or the seed's width.

    Raises:
        MorphError: not exactly one of target and budget is given, or the narrowest widths, by default one channel a
            layer, are already too many.

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
    allowed = budget_of(graph, cost, target=target, budget=budget, caller="uniform: ")
    multiple_of = multiples_for(multiple_of, [limit.cost for limit in allowed.limits], caller="uniform: ")
    # No layer dies, so the search's default floor, below which a layer would rather go, has no meaning here.
    choices = choices_of(graph, multiple_of, min_channels, floor=0.0, caller="uniform: ")
    free = multiple_of == 1 and min_channels is None
    factor, widths = uniform_widths(allowed, choices, graph.prunable, free, caller="uniform: ")
    settings: dict[str, Any] = {"multiplier": factor}
    for name, counts in (("multiple_of", multiple_of), ("min_channels", min_channels)):
        if counts not in (None, 1):
            settings[name] = dict(counts) if isinstance(counts, Mapping) else counts
    names = {group.name: int(width) for group, width in zip(graph.groups, widths, strict=True) if group.prunable}
    return describe(
        graph,
        names,
        alive=dict.fromkeys(names),
        costs=[limit.cost for limit in allowed.limits],
        goal=allowed.goal,
        settings=settings,
    )


def uniform_widths(
    budget: Budget, choices: Choices, decided: np.ndarray, free: bool, caller: str
) -> tuple[float, np.ndarray]:
    """The largest factor for all widths of the seed that a budget allows, and the widths: int array (groups,).

    Args:
        budget: to fill.
        choices: the widths that groups may have.
        decided: bool array (groups,), those that are narrowed; the others keep the seed's width.
        free: a layer may have any width; for the message.
        caller: begins the message.

    Raises:
        MorphError: they are too many already.
    """
    seed = budget.graph.seed_widths
    least = np.where(decided, choices.at_least(np.ones_like(seed)), seed)
    left = budget.graph.survivors(least > 0)
    if not budget.fits(least, left):
        costs = budget.costs(least, left)
        limit = budget.limits[budget.binding(costs)]
        widths = "one channel a layer" if free else "the narrowest widths that multiple_of and min_channels leave"
        raise MorphError(
            f"{caller}with {widths} the network still costs {costs[budget.binding(costs)]:.6g} {limit.cost.unit}, more "
            f"than the budget of {limit.most:.6g}. Raise the budget{'' if free else ', or allow narrower layers'}."
        )
    if not budget.fits(seed, budget.graph.survivors(seed > 0)):
        return _widest(budget, choices, seed, least, most=seed)
    factor, widths = _widest(budget, choices, seed, seed)
    return max(factor, 1.0), widths


def _scaled(
    choices: Choices, widths: np.ndarray, factor: float, least: np.ndarray, most: np.ndarray | None = None
) -> np.ndarray:
    """Every prunable width times the factor, to the nearest multiple, halves up, from `least` to `most`; 0 stays 0."""
    nearest = np.floor(widths * factor / choices.multiples + 0.5 + 1e-9).astype(np.int64) * choices.multiples
    inside = np.maximum(nearest, least) if most is None else np.clip(nearest, least, most)
    return np.where(choices.graph.prunable & (widths > 0), inside, widths)


def _widest(
    budget: Budget, choices: Choices, widths: np.ndarray, least: np.ndarray, most: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """The largest factor within the budget, and its widths after single steps have filled the rest.

    The budget has room for `least`, which is what a factor of 0 gives, and none for `most`, where there is one.
    """
    graph = budget.graph
    left = graph.survivors(widths > 0)

    def fits(factor: float) -> bool:
        return budget.fits(_scaled(choices, widths, factor, least, most), left)

    def wider(widths: np.ndarray) -> np.ndarray:
        return choices.wider(widths) if most is None else np.minimum(choices.wider(widths), most)

    low, high = (1.0, 2.0) if fits(1.0) else (0.0, 1.0)
    while fits(high):
        low, high = high, 2 * high
        if high > _LARGEST_MULTIPLIER:
            raise MorphError(
                f"expand: even {_LARGEST_MULTIPLIER:.0f} times the widths stay within {budget}. "
                "Is the budget given in the cost's own unit?"
            )
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    growing = np.flatnonzero(graph.prunable & (widths > 0)).tolist()
    return low, filled(
        _scaled(choices, widths, low, least, most),
        growing,
        wider,
        lambda group, width: width / widths[group],  # the one that is furthest below its share
        lambda networks: budget.used(networks, left),
    )
