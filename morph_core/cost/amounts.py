"""What a user says of `target` and `budget`: a number, or a number for each of several costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import MorphError
from .costs import Cost, cost_of

Amounts = float | Mapping[str, float]
"""A number for the one cost of a search, or a number for each cost by its name."""

# `budget={"latency_ms": 3.0}` says the unit; the device stands in cost="latency:DEVICE".
_LATENCY_IN_MS = "latency_ms"


def amounts_by_cost(name: str, amounts: Any, cost: str | Callable | Cost, caller: str = "") -> list[tuple[Cost, float]]:
    """What a user says of `target` or `budget`, checked as far as it can be without a network: cost and amount of each.

    Args:
        name: of the argument, "target" or "budget", for messages.
        amounts: a number, or numbers by name of cost.
        cost: what a plain number is about, and the device that "latency_ms" is about.
        caller: begins messages, as in "expand: ".

    Raises:
        MorphError: an amount is not a positive number, or a cost is unknown or named twice.
    """
    counted = cost_of(cost)
    if not isinstance(amounts, Mapping):
        return [(counted, _checked_amount(name, amounts, caller))]
    if not amounts:
        raise MorphError(f'{caller}{name} names no cost; expected amounts by name, such as {name}={{"flops": 0.5}}.')
    found: dict[str, tuple[Cost, float]] = {}
    for label, amount in amounts.items():
        named = _cost_named(name, str(label), counted, caller)
        if named.name in found:
            raise MorphError(f"{caller}{name} has two limits for the cost '{named.name}'. Keep one.")
        found[named.name] = named, _checked_amount(f"{name}[{label!r}]", amount, caller)
    return list(found.values())


def _cost_named(name: str, label: str, counted: Cost, caller: str) -> Cost:
    if label == counted.name:
        return counted
    if label == _LATENCY_IN_MS:
        if not counted.name.startswith("latency:"):
            raise MorphError(
                f"{caller}{name} names 'latency_ms', but not the device. Add cost='latency:DEVICE', such as "
                f"cost='latency:v100', or name the cost itself: {name}={{'latency:v100': ...}}."
            )
        return counted
    return cost_of(label)


def _checked_amount(where: str, amount: Any, caller: str) -> float:
    if (
        isinstance(amount, bool)
        or not isinstance(amount, (int, float, np.integer, np.floating))
        or not math.isfinite(amount)
        or amount <= 0
    ):
        raise MorphError(f"{caller}{where} is {amount!r}; expected a positive number.")
    return float(amount)
