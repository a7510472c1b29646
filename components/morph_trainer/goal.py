"""What a search is asked for: costs, how far to bring them down, by which gate, on which widths, how far to widen.

Checked twice, from one place: in the component's constructor, where most mistakes are, and in the executor, where
runtime parameters have their values and the seed's cost is known. An execution property is a number or a text, so what
may be given by name travels as JSON.
"""

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from tfx.orchestration.data_types import RuntimeParameter

import morph_core as morph
from morph_core.cost.amounts import amounts_by_cost
from morph_core.cost.costs import Cost, on_device
from morph_core.search.gate_names import check_gate
from morph_core.structure.choices import check_counts, check_floors

from ..artifacts.calibration import check_calibrated

# Amounts by name have a property of their own beside the one for a number; numbers of channels are JSON always.
_BY_NAME = {"target": "target_by_cost", "budget": "budget_by_cost"}
_COUNTS = ("multiple_of", "min_channels")


@dataclasses.dataclass(frozen=True)
class Goal:
    """The arguments of one search. Any of them may still be a `RuntimeParameter`.

    Attributes:
        cost: name of a cost, as `morph_core.cost_of` takes it.
        target: fraction of the original seed's cost, in (0, 1], or fractions by name of cost.
        budget: the same as absolute numbers, in the costs' units.
        strength: the paper's fixed factor; beside a target or a budget, where the price starts.
        gate: name of a gate, as in `morph_core.GATES`, or "auto".
        expand_to: fraction of the original seed's costs to widen the result to; None leaves it as found.
        multiple_of: channels that widths are multiples of, or numbers by layer.
        min_channels: channels that a layer keeps at least, numbers by layer, or "uniform".
        search_fraction: the part of the epochs after which the network is cut and trained to the end; None searches in
            all of them.
    """

    cost: Any = "flops"
    target: Any = None
    budget: Any = None
    strength: Any = None
    gate: Any = "auto"
    expand_to: Any = None
    multiple_of: Any = None
    min_channels: Any = None
    search_fraction: Any = None

    @classmethod
    def from_properties(cls, exec_properties: Mapping[str, Any]) -> "Goal":
        """Reads the goal from a component's execution properties; absent ones keep their default.

        Raises:
            MorphError: one that holds JSON does not.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        values = {name: exec_properties[name] for name in names if exec_properties.get(name) is not None}
        for name, property_name in [*_BY_NAME.items(), *((name, name) for name in _COUNTS)]:
            if exec_properties.get(property_name) is not None:
                values[name] = _from_json(property_name, exec_properties[property_name])
        return cls(**values)

    def properties(self) -> dict[str, Any]:
        """The execution properties, each of the type that the specification declares."""
        properties: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _BY_NAME and (isinstance(value, Mapping) or getattr(value, "ptype", None) is str):
                properties[_BY_NAME[name]] = json.dumps(dict(value)) if isinstance(value, Mapping) else value
            elif name in _COUNTS and _known(value):
                properties[name] = json.dumps(dict(value) if isinstance(value, Mapping) else value)
            else:
                properties[name] = float(value) if isinstance(value, int) else value
        return properties

    def check(self, calibrated: bool = False) -> "Goal":
        """Returns the goal itself.

        Args:
            calibrated: whether "latency" by itself is that of a device whose calibration is known later.

        Raises:
            MorphError: an unknown name, a number out of its range, both target and budget, or none of them and no
                strength.
        """
        if not any(isinstance(value, RuntimeParameter) for value in (self.cost, self.target, self.budget)):
            check_calibrated("MorphTrainer", calibrated, self.cost, self.target, self.budget)
        # Any device will do, to see that the rest is right.
        named = self.on_device("cpu") if calibrated else self
        if _known(self.cost):
            morph.cost_of(str(named.cost))
        if _known(self.gate):
            check_gate(self.gate)
        given = {
            name: getattr(self, name) for name in ("target", "budget", "strength") if getattr(self, name) is not None
        }
        if not given or {"target", "budget"} <= set(given):
            received = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "none of them"
            raise morph.MorphError(
                "A search needs one of target (fractions of the seed's cost) and budget (absolute numbers), or "
                f"strength (the paper's fixed factor); received {received}. Most searches want target, such as "
                "target=0.5."
            )
        for name in ("target", "budget"):
            if isinstance(given.get(name), Mapping) and _known(self.cost):
                amounts_by_cost(name, getattr(named, name), str(named.cost))
            elif not isinstance(given.get(name), Mapping):
                _check_number(name, given.get(name))
        for name in ("strength", "expand_to"):
            _check_number(name, getattr(self, name))
        if _known(self.multiple_of):
            check_counts("multiple_of", self.multiple_of)
        if _known(self.min_channels):
            check_floors(self.min_channels, has_budget=bool({"target", "budget"} & set(given)))
        largest = max(self.target.values()) if isinstance(self.target, Mapping) else self.target
        if _known(largest) and largest > 1:
            raise morph.MorphError(
                f"target={self.target!r} is outside (0, 1]: it is the fraction of the seed's {self.cost} that may "
                "remain, such as 0.5. For an absolute number use budget, for widening afterwards expand_to."
            )
        if _known(largest) and _known(self.expand_to) and self.expand_to < largest:
            raise morph.MorphError(
                f"expand_to={self.expand_to!r} is below target={self.target!r}, but expanding only widens: the "
                f"structure has about {largest:.0%} of the seed's {self.cost} already. Raise expand_to, or lower the "
                "target."
            )
        _check_fraction(self.search_fraction)
        if self.search_fraction is not None and self.expand_to is not None:
            raise morph.MorphError(
                f"expand_to={self.expand_to!r} with finish='in_place': the network goes on as the search has cut it, "
                "and the channels that widening adds would not be trained. Leave expand_to out, or use "
                "finish='from_scratch' and a Retrainer."
            )
        return self

    def on_device(self, device: str) -> "Goal":
        """The same, where "latency" by itself means that of this device: a name, or the path of a calibration."""
        words = {name: on_device(getattr(self, name), device) for name in ("cost", "target", "budget")}
        return dataclasses.replace(self, **words)

    @property
    def costs(self) -> dict[str, tuple[Cost, float]]:
        """The costs that are asked about, and how much of each: fractions or absolute; for a strength, a 1.

        By the words in which they were asked about; a device's file is found by these, and not by the cost's name.
        """
        if self.target is None and self.budget is None:
            return {str(self.cost): (morph.cost_of(self.cost), 1.0)}
        name = "budget" if self.target is None else "target"
        asked = getattr(self, name)
        words = list(asked) if isinstance(asked, Mapping) else [str(self.cost)]
        return dict(zip(words, amounts_by_cost(name, asked, self.cost), strict=True))

    @property
    def amounts(self) -> dict[str, float]:
        """What is asked of each cost, by its name."""
        return {cost.name: amount for cost, amount in self.costs.values()}

    @property
    def asked(self) -> dict[str, Any]:
        """The goal of a structure, in the user's own words, which are about the original seed."""
        if self.target is None and self.budget is None:
            return {"cost": morph.cost_of(self.cost).name, "strength": self.strength}
        name, amounts = "budget" if self.target is None else "target", self.amounts
        if len(amounts) > 1:
            return {name: amounts}
        ((cost, amount),) = amounts.items()
        return {"cost": cost, name: amount}

    def search_arguments(
        self, seed: Mapping[str, float], start: Mapping[str, float], removed: Collection[str] = ()
    ) -> dict[str, Any]:
        """The arguments of `morph_core.StructureSearch` on a network that may already be a smaller one than the seed.

        Args:
            seed: each cost of the original seed; `target` is fractions of them.
            start: each cost of the searched network; where it is not the seed, its budget is absolute.
            removed: layers that the searched network has no more, whose multiples and floors are left out.

        Raises:
            MorphError: the network is already within the target or budget.
        """
        chosen = {"cost": self.cost, "gate": self.gate}
        optional = {name: getattr(self, name) for name in ("strength", *_COUNTS, "search_fraction")}
        for name, value in optional.items():
            if isinstance(value, Mapping):
                value = {layer: count for layer, count in value.items() if layer not in removed}
            if value is not None and value != {}:
                chosen[name] = value
        if self.target is None and self.budget is None:
            return chosen
        name = "budget" if self.target is None else "target"
        if start == seed:
            return {**chosen, name: getattr(self, name)}
        limits = {
            word: (cost.name, amount * (seed[cost.name] if name == "target" else 1.0))
            for word, (cost, amount) in self.costs.items()
        }
        if all(most >= start[cost] for cost, most in limits.values()):
            allows = " and ".join(f"{most:.4g} {cost}" for cost, most in limits.values())
            needs = " and ".join(
                f"{start[cost]:.4g} ({start[cost] / seed[cost]:.1%} of the seed's {seed[cost]:.4g})"
                for cost, _ in limits.values()
            )
            raise morph.MorphError(
                f"{name}={getattr(self, name)!r} allows {allows}, but the structure to start from needs only {needs}, "
                "so there is nothing to search. Lower it, or give the cycle before this one expand_to=1.0."
            )
        return {**chosen, "budget": {word: most for word, (_, most) in limits.items()}}


def _from_json(name: str, text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise morph.MorphError(
            f"{name} is {text!r}, which is not JSON ({error}); expected a number or numbers by name, such as "
            '{"flops": 0.5}.'
        ) from error


def _known(value: Any) -> bool:
    return value is not None and not isinstance(value, RuntimeParameter)


def _check_number(argument: str, value: Any) -> None:
    if not _known(value):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        within = " in (0, 1]" if argument == "target" else " above 0"
        raise morph.MorphError(f"{argument}={value!r}; expected a number{within}.")


def _check_fraction(value: Any) -> None:
    if not _known(value):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise morph.MorphError(
            f"search_fraction={value!r}; expected a number between 0 and 1, the part of the epochs that the search "
            "takes, such as 0.25. The rest trains the network that it finds."
        )
