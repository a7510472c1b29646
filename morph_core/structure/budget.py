"""What a network may cost: one cost or several, each with its limit.

Everything that asks whether a structure fits, how far over it is, or which of its limits it is nearest to, asks here:
the search, its controller, the snap and the expansion. Costs have different units, so each is measured in its own
limit: 1 is exactly full. Of several, the *binding* one is the fullest, and it alone decides whether a structure fits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..cost.amounts import Amounts, amounts_by_cost
from ..cost.costs import Cost
from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..network.topology import Topology

# A limit that is used to 80 % while another is full counts a sixth of it, and one used to 95 % two thirds.
_SHARPNESS = 8


@dataclasses.dataclass(frozen=True)
class Limit:
    """One cost, and how much of it there may be.

    Attributes:
        cost: what is counted.
        most: how much of it there may be, in its own unit.
        seed: how much of it the seed has.
    """

    cost: Cost
    most: float
    seed: float

    @property
    def share(self) -> float:
        """The limit as a fraction of the seed's cost."""
        return self.most / self.seed

    def __str__(self) -> str:
        return f"{self.most:.6g} {self.cost.unit}"


@dataclasses.dataclass(frozen=True, eq=False)
class Budget:
    """The limits that a structure of one network has to keep; `budget_of` makes one from a user's words.

    Attributes:
        graph: of the seed.
        limits: at least one, each of another cost.
        goal: how a structure tells what was asked for: "cost" and "target" or "budget", or one of these two by name of
            cost where there are several.
    """

    graph: ChannelGraph
    limits: tuple[Limit, ...]
    goal: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The costs' names, in the order of the limits, as are all arrays (limits,) here."""
        return tuple(limit.cost.name for limit in self.limits)

    @functools.cached_property
    def most(self) -> np.ndarray:
        """What each cost may be: float array (limits,)."""
        return np.array([limit.most for limit in self.limits])

    @functools.cached_property
    def seed(self) -> np.ndarray:
        """What each cost is in the seed: float array (limits,)."""
        return np.array([limit.seed for limit in self.limits])

    @property
    def shares(self) -> np.ndarray:
        """Each limit as a fraction of the seed's cost: float array (limits,)."""
        return self.most / self.seed

    def at(self, shares: np.ndarray) -> Budget:
        """The same costs with other limits: fractions of the seed's costs, float array (limits,)."""
        limits = [
            dataclasses.replace(limit, most=float(share) * limit.seed)
            for limit, share in zip(self.limits, shares, strict=True)
        ]
        return Budget(self.graph, tuple(limits), self.goal)

    def costs(self, widths: np.ndarray, left: Topology | None = None) -> np.ndarray:
        """Every cost of one network, in its unit: float array (limits,).

        Args:
            widths: float array (groups,).
            left: what is still there; everything by default.
        """
        return self.graph.costs([limit.cost for limit in self.limits], widths, left)[:, 0]

    def used(self, widths: np.ndarray, left: Topology | None = None) -> np.ndarray:
        """How full the fullest limit is, for each of several networks: float array (networks,), at most 1 if it fits.

        Args:
            widths: float array (groups,) or (networks, groups).
            left: what is still there, in all of them; everything by default.
        """
        costs = self.graph.costs([limit.cost for limit in self.limits], widths, left)
        return (costs / self.most[:, None]).max(axis=0)

    def fits(self, widths: np.ndarray, left: Topology | None = None) -> bool:
        """Whether one network is within every limit."""
        return bool(self.used(widths, left)[0] <= 1)

    def binding(self, costs: np.ndarray) -> int:
        """Which limit is the fullest at these costs, float array (limits,)."""
        return int(np.argmax(costs / self.most))

    def weights(self, costs: np.ndarray) -> np.ndarray:
        """How much each limit matters at these costs: float array (limits,), 1 for the binding one, less with room."""
        used = np.maximum(costs / self.most, 1e-9)
        return (used / used.max()) ** _SHARPNESS

    def marginal(self, widths: np.ndarray) -> np.ndarray:
        """What one more channel of each group costs at these widths, in every cost: float array (limits, groups)."""
        return np.array([self.graph.marginal_costs(limit.cost, widths) for limit in self.limits])

    def __str__(self) -> str:
        return " and ".join(str(limit) for limit in self.limits)


def budget_of(
    graph: ChannelGraph,
    cost: str | Callable | Cost,
    *,
    target: Amounts | None = None,
    budget: Amounts | None = None,
    caller: str = "",
) -> Budget:
    """The budget that a user names: one of `target` and `budget`.

    Args:
        graph: of the seed.
        cost: what a plain number is about. With amounts by name it adds a cost that names cannot tell: a function of
            the user's own, or the device that "latency_ms" is about.
        target: a fraction of the seed's cost, or fractions by name of cost.
        budget: the same in the costs' own units.
        caller: begins messages, as in "expand: ".

    Raises:
        MorphError: an amount is not a positive number, or a cost is unknown or named twice.
    """
    name, amounts = ("target", target) if budget is None else ("budget", budget)
    limits: list[Limit] = []
    given: dict[str, float] = {}
    for counted, amount in amounts_by_cost(name, amounts, cost, caller):
        seed = graph.cost(counted)
        if not seed > 0:
            raise MorphError(f"{caller}model '{graph.name}' costs {seed:g} {counted.unit}: nothing to limit.")
        limits.append(Limit(counted, amount * seed if name == "target" else amount, seed))
        given[counted.name] = amount
    if len(given) > 1:
        goal = {name: given}
    else:
        ((only, amount),) = given.items()
        goal = {"cost": only, name: amount}
    return Budget(graph, tuple(limits), goal)
