"""What a search is asked for, checked before anything is trained: its budget, its gate, the widths it may choose."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..cost.amounts import Amounts
from ..cost.costs import Cost, cost_of
from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..structure.budget import Budget, Limit, budget_of
from ..structure.choices import (
    AUTO,
    DEFAULT_FLOOR,
    UNIFORM,
    Choices,
    Counts,
    Floors,
    Multiples,
    channels_of_each,
    check_floors,
    choices_of,
    multiples_for,
)
from ..structure.expand import uniform_widths
from ..structure.snap import check_feasible, smallest_used
from .controller import Controller
from .gate_names import check_gate
from .gates import Gate, choose_gate, gate_for


@dataclasses.dataclass(frozen=True)
class Plan:
    """A search that can be run.

    Attributes:
        budget: what the structure may cost; with a fixed strength, what the seed costs.
        gate: not built yet.
        choices: the widths that groups may have.
        controller: of the price; None with a fixed strength.
        strength: the fixed one, or where the price starts.
        settings: what a structure tells of all this.
    """

    budget: Budget
    gate: Gate
    choices: Choices
    controller: Controller | None
    strength: float | None
    settings: dict[str, Any]


def plan_of(
    graph: ChannelGraph,
    cost: str | Callable | Cost,
    target: Amounts | None,
    budget: Amounts | None,
    strength: float | None,
    gate: str,
    multiple_of: Multiples,
    min_channels: Floors | None,
    search_fraction: float,
    allow_uncounted: bool,
) -> Plan:
    """The plan that a user's words make; arguments and errors are those of `StructureSearch`."""
    goal = _checked_budget(graph, cost, target, budget, strength)
    for limit in goal.limits:
        graph.check_counted(limit.cost, allow_uncounted)
    check_gate(gate)
    _check_fraction(search_fraction)
    settings: dict[str, Any] = {"gate": gate}
    steered = target is not None or budget is not None
    check_floors(min_channels, steered)
    if gate == "auto":
        gate, reason = choose_gate(graph, steered)
        settings = {"gate": gate, "gate_reason": reason}
    if multiple_of == AUTO:
        multiple_of = multiples_for(multiple_of, [limit.cost for limit in goal.limits])
        settings["multiple_of_reason"] = f"'auto': the calibration has seen no waste at multiples of {multiple_of}"
    built = gate_for(gate, graph)
    controller = None
    if steered:
        floors = min_channels
        if floors == UNIFORM:
            floors = _uniform_floors(goal, built.learns, multiple_of)
        choices, floor = _choices_within(goal, built.learns, multiple_of, floors)
        if min_channels is None:
            settings["floor"] = floor
        check_feasible(goal, built.learns, choices)
        # A strength prices a unit of cost, the controller's price is that of a unit of its logarithm.
        start = np.clip((strength or 0.0) * goal.seed, 0.0, built.highest_price)
        controller = Controller(goal.shares, built.highest_price, start)
        if strength is not None:
            settings["starting_strength"] = float(strength)
    else:
        assert min_channels != UNIFORM, "refused above"
        choices = choices_of(graph, multiple_of, min_channels, floor=0.0)
        if not built.takes_strength:
            raise MorphError(
                f"gate='{gate}' charges nothing in the loss, so it takes a target or a budget, no strength alone."
            )
    for name, counts in (("multiple_of", multiple_of), ("min_channels", min_channels)):
        if counts is not None and counts != 1:
            settings[name] = dict(counts) if isinstance(counts, Mapping) else counts
    if search_fraction < 1:
        settings["search_fraction"] = float(search_fraction)
    return Plan(goal, built, choices, controller, strength, settings)


def _check_fraction(fraction: Any) -> None:
    is_number = isinstance(fraction, (int, float)) and not isinstance(fraction, bool)
    if not (is_number and 0 < fraction <= 1):
        raise MorphError(
            f"search_fraction is {fraction!r}; expected the part of the epochs that the search takes, such as 0.25; "
            "1.0 is all of them."
        )


def _checked_budget(
    graph: ChannelGraph, cost: str | Callable | Cost, target: Any, budget: Any, strength: Any
) -> Budget:
    """What the structure may cost; with a fixed strength, what the seed costs."""
    if target is not None and budget is not None:
        raise MorphError(
            f"Give at most one of target (fractions of the seed's cost) and budget (absolute); received "
            f"target={target!r} and budget={budget!r}."
        )
    if strength is not None and (
        isinstance(strength, bool)
        or not isinstance(strength, (int, float))
        or not math.isfinite(strength)
        or strength <= 0
    ):
        raise MorphError(f"strength is {strength!r}; expected a positive number.")
    if target is None and budget is None:
        if strength is None:
            raise MorphError(
                "Give a target (a fraction of the seed's cost, such as target=0.5), a budget (absolute) or, for the "
                "paper's fixed factor, a strength; received none of them."
            )
        counted = cost_of(cost)
        amount = graph.cost(counted)
        goal = {"cost": counted.name, "strength": float(strength)}
        return Budget(graph, (Limit(counted, amount, amount),), goal)
    found = budget_of(graph, cost, target=target, budget=budget)
    for limit in found.limits:
        if target is not None and limit.share > 1:
            raise MorphError(
                f"target is {limit.share:g}; expected a fraction of the seed's cost in (0, 1], such as 0.5. "
                f"For an amount of {limit.cost.unit} use budget={limit.share:g}."
            )
    if all(limit.most > limit.seed for limit in found.limits):
        asked = " and ".join(f"{limit.most:.6g} {limit.cost.unit}" for limit in found.limits)
        costs = " and ".join(f"{limit.seed:.6g}" for limit in found.limits)
        raise MorphError(
            f"budget is {asked}, but the seed costs only {costs}: there is nothing to shrink. Ask for less, or widen "
            "the seed."
        )
    return found


def _uniform_floors(budget: Budget, decided: np.ndarray, multiple_of: Counts) -> dict[str, int]:
    """Channels of a layer that uniform widths within the budget leave to each group that is decided on."""
    graph = budget.graph
    choices = choices_of(graph, multiple_of, floor=0.0)
    _, widths = uniform_widths(budget, choices, decided, multiple_of == 1, caller=f"min_channels='{UNIFORM}': ")
    return {
        group.name: int(min(width, group.size)) * min(counts)
        for group, width, counts, is_decided in zip(graph.groups, widths, channels_of_each(graph), decided, strict=True)
        if is_decided
    }


def _choices_within(
    budget: Budget, prunable: np.ndarray, multiple_of: Counts, min_channels: Counts | None
) -> tuple[Choices, float]:
    """The widths that groups may have, and the share of the seed's width that is their floor by default.

    A floor that nobody asked for must not be what the structure is made of: it is halved until the smallest structure
    takes at most half the budget, or no floor is above one channel.
    """
    floor = DEFAULT_FLOOR
    while True:
        choices = choices_of(budget.graph, multiple_of, min_channels, floor)
        widest = np.ceil(budget.graph.seed_widths[prunable] * floor).max(initial=1)
        if widest == 1 or smallest_used(budget, prunable, choices) <= 0.5:
            return choices, floor
        floor /= 2
