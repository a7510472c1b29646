"""Accuracy against cost: which of several trained networks are worth having, and which one to take.

A network is on the frontier when no other one is at least as good and at most as expensive, and better in one of the
two. The choice is made among learned networks by one of two rules: the smallest that reaches a stated accuracy, or the
most accurate that keeps to a stated cost. The seed and networks of uniform widths stand beside them, so that a reader
sees what learning the widths was worth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ..errors import MorphError

Kind = Literal["learned", "uniform", "seed"]


@dataclass(frozen=True)
class Point:
    """One trained network.

    Attributes:
        label: what people call it, such as "learned 25 %".
        kind: how its widths came about.
        cost: in the cost's own unit.
        fraction: of the seed's cost.
        accuracy: the metric, on held-out examples.
        passed: whether it meets the bounds that any pushed model has to meet.
    """

    label: str
    kind: Kind
    cost: float
    fraction: float
    accuracy: float
    passed: bool = True


@dataclass(frozen=True)
class Frontier:
    """Several points and the choice among them.

    Attributes:
        points: in any order.
        cost: name of the cost, such as "flops".
        metric: name of what `accuracy` is.
        higher_is_better: False when the metric is a loss.
        min_accuracy: the smallest learned network that reaches it is chosen; for a loss, that stays at or below it.
        max_cost: or: the best learned network that costs at most this fraction of the seed is chosen.
    """

    points: tuple[Point, ...]
    cost: str
    metric: str
    higher_is_better: bool = True
    min_accuracy: float | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        if (self.min_accuracy is None) == (self.max_cost is None):
            got = "neither" if self.min_accuracy is None else "both"
            raise MorphError(f"A choice needs exactly one of min_accuracy and max_cost; received {got}.")
        if not self.points:
            raise MorphError("A frontier needs at least one point; received none.")

    def pareto(self) -> tuple[Point, ...]:
        """The points that no other point beats, cheapest first. Of equal points, all are kept."""
        kept = [point for point in self.points if not any(self._beats(other, point) for other in self.points)]
        return tuple(sorted(kept, key=lambda point: (point.cost, -self._quality(point))))

    def chosen(self) -> Point | None:
        """The learned point that the rule picks, or None when no learned point satisfies it.

        A point that did not pass its own bounds is never chosen. Ties go to the better point, then to the cheaper one.
        """
        fit = [point for point in self.points if point.kind == "learned" and point.passed and self._fits(point)]
        if self.min_accuracy is not None:
            return min(fit, key=lambda point: (point.cost, -self._quality(point)), default=None)
        return min(fit, key=lambda point: (-self._quality(point), point.cost), default=None)

    def condition(self) -> str:
        """What a network has to fulfil, in words."""
        if self.min_accuracy is not None:
            return f"has {self.metric} of at {'least' if self.higher_is_better else 'most'} {self.min_accuracy:g}"
        return f"costs at most {100 * (self.max_cost or 0):g} % of the seed's {self.cost}"

    def rule(self) -> str:
        """The rule in words."""
        best = "smallest" if self.min_accuracy is not None else "best"
        return f"the {best} learned network that {self.condition()}"

    def verdict(self) -> str:
        """What was chosen, or why nothing was, in one sentence."""
        point = self.chosen()
        if point is not None:
            return (
                f"Chosen: {point.label}, {self.metric} {point.accuracy:.4f} at {100 * point.fraction:.1f} % of the "
                f"seed's {self.cost}; it is {self.rule()}.{self._lead(point)}"
            )
        failed = sum(point.kind == "learned" and not point.passed for point in self.points)
        why = f" {failed} did not pass the bounds that every pushed model has to pass." if failed else ""
        return f"Nothing was chosen: no learned network {self.condition()}.{why}"

    def _lead(self, point: Point) -> str:
        """How much better the point is than each learned one of the very same cost, which differs in its training."""
        rivals = [other for other in self.points if other.kind == "learned" and other.cost == point.cost]
        leads = [(self._quality(point) - self._quality(other), other) for other in rivals if other is not point]
        return "".join(
            f" {other.label} is {abs(lead):.4f} {'worse' if lead >= 0 else 'better'}"
            f"{'' if other.passed else ', and did not pass its bounds'}."
            for lead, other in leads
        )

    def gain(self, point: Point) -> float | None:
        """How much better a learned point is than the best uniform one that costs no more, or None without one."""
        cheaper = [other for other in self.points if other.kind == "uniform" and other.cost <= point.cost * (1 + 1e-9)]
        best = max(cheaper, key=self._quality, default=None)
        return None if best is None else self._quality(point) - self._quality(best)

    def to_json(self) -> str:
        """All of it, the frontier and the choice included."""
        chosen = self.chosen()
        content = {
            "cost": self.cost,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "choose": {"min_accuracy": self.min_accuracy, "max_cost": self.max_cost},
            "points": [
                {**asdict(point), "on_frontier": point in self.pareto(), "chosen": point is chosen}
                for point in self.points
            ],
            "verdict": self.verdict(),
        }
        return json.dumps(content, indent=2) + "\n"

    def _quality(self, point: Point) -> float:
        return point.accuracy if self.higher_is_better else -point.accuracy

    def _fits(self, point: Point) -> bool:
        if self.min_accuracy is not None:
            bound = self.min_accuracy if self.higher_is_better else -self.min_accuracy
            return self._quality(point) >= bound
        return point.fraction <= (self.max_cost or 0) * (1 + 1e-9)

    def _beats(self, other: Point, point: Point) -> bool:
        no_worse = self._quality(other) >= self._quality(point) and other.cost <= point.cost
        return no_worse and (self._quality(other) > self._quality(point) or other.cost < point.cost)


def ordered(points: Sequence[Point]) -> list[Point]:
    """For tables: cheapest first, of equal cost in the order seed, learned, uniform."""
    kinds = ("seed", "learned", "uniform")
    return sorted(points, key=lambda point: (point.cost, kinds.index(point.kind)))
