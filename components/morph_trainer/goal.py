"""What a search is asked for: a cost, how far to bring it down, by which gate, and how far to widen again.

Checked twice, from one place: in the component's constructor, where most mistakes are, and in the executor, where
runtime parameters have their values and the seed's cost is known.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tfx.orchestration.data_types import RuntimeParameter

import morph_core as morph
from morph_core.gates import check_gate

NAMES = ("cost", "target", "budget", "strength", "gate", "expand_to")


@dataclasses.dataclass(frozen=True)
class Goal:
    """The arguments of one search. Any of them may still be a `RuntimeParameter`.

    Attributes:
        cost: name of a cost, as `morph_core.cost_of` takes it.
        target: fraction of the original seed's cost, in (0, 1].
        budget: the same as an absolute number, in the cost's unit.
        strength: the paper's fixed factor instead.
        gate: name of a gate, as in `morph_core.GATES`, or "auto".
        expand_to: fraction of the original seed's cost to widen the result to; None leaves it as found.
    """

    cost: Any = "flops"
    target: Any = None
    budget: Any = None
    strength: Any = None
    gate: Any = "auto"
    expand_to: Any = None

    @classmethod
    def from_properties(cls, exec_properties: Mapping[str, Any]) -> "Goal":
        """Reads the goal from a component's execution properties; absent ones keep their default."""
        return cls(**{name: exec_properties[name] for name in NAMES if exec_properties.get(name) is not None})

    def properties(self) -> dict[str, Any]:
        """The execution properties, with numbers as floats, which is the type that the specification declares."""
        values = dataclasses.asdict(self)
        return {name: float(value) if isinstance(value, int) else value for name, value in values.items()}

    def check(self) -> "Goal":
        """Returns the goal itself.

        Raises:
            MorphError: an unknown name, a number out of its range, or not exactly one of target, budget and strength.
        """
        if _known(self.cost):
            morph.cost_of(str(self.cost))
        if _known(self.gate):
            check_gate(self.gate)
        given = {
            name: getattr(self, name) for name in ("target", "budget", "strength") if getattr(self, name) is not None
        }
        if len(given) != 1:
            received = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "none of them"
            raise morph.MorphError(
                "A search needs exactly one of target (a fraction of the seed's cost), budget (an absolute number) and "
                f"strength (the paper's fixed factor); received {received}. Most searches want target, such as "
                "target=0.5."
            )
        for name in ("target", "budget", "strength", "expand_to"):
            _check_number(name, getattr(self, name))
        if _known(self.target) and self.target > 1:
            raise morph.MorphError(
                f"target={self.target!r} is outside (0, 1]: it is the fraction of the seed's {self.cost} that may "
                "remain, such as 0.5. For an absolute number use budget, for widening afterwards expand_to."
            )
        if _known(self.target) and _known(self.expand_to) and self.expand_to < self.target:
            raise morph.MorphError(
                f"expand_to={self.expand_to!r} is below target={self.target!r}, but expanding only widens: the "
                f"structure has about {self.target:.0%} of the seed's {self.cost} already. Raise expand_to, or "
                "lower the target."
            )
        return self

    def search_arguments(self, seed_cost: float, start_cost: float) -> dict[str, Any]:
        """The arguments of `morph_core.StructureSearch` on a network that may already be a smaller one than the seed.

        Args:
            seed_cost: what the original seed costs; `target` is a fraction of it.
            start_cost: what the searched network costs; its own search takes fractions of that.

        Raises:
            MorphError: the network is already within the target or budget.
        """
        chosen = {"cost": self.cost, "gate": self.gate}
        if self.strength is not None:
            return {**chosen, "strength": self.strength}
        allowed = self.budget if self.target is None else self.target * seed_cost
        if start_cost != seed_cost and allowed >= start_cost:
            asked = f"budget={self.budget!r}" if self.target is None else f"target={self.target!r}"
            raise morph.MorphError(
                f"{asked} allows {allowed:.4g} {self.cost}, but the structure to start from needs only "
                f"{start_cost:.4g} ({start_cost / seed_cost:.1%} of the seed's {seed_cost:.4g}), so there is "
                "nothing to search. Lower it, or give the cycle before this one expand_to=1.0."
            )
        if self.target is None:
            return {**chosen, "budget": self.budget}
        return {**chosen, "target": self.target if start_cost == seed_cost else allowed / start_cost}


def _known(value: Any) -> bool:
    return value is not None and not isinstance(value, RuntimeParameter)


def _check_number(argument: str, value: Any) -> None:
    if not _known(value):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        within = " in (0, 1]" if argument == "target" else " above 0"
        raise morph.MorphError(f"{argument}={value!r}; expected a number{within}.")
