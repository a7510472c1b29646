"""Accuracy against cost: which of several trained networks are worth having, and which one to take.

A network is on the frontier when no other one is at least as good and at most as expensive, and better in one of the
two. The choice is made among learned networks by one of two rules: the smallest that reaches a stated accuracy, or the
most accurate that keeps to a stated cost. The seed and networks of uniform widths stand beside them, so that a reader
sees what learning the widths was worth. A learned network that a uniform one of its cost beats is not chosen: then the
search was worth less than nothing. Differences that chance explains do not count for that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ..errors import MorphError

Kind = Literal["learned", "uniform", "seed"]

# Two networks of one budget are both a little below it, by different amounts: they count as of one cost within this.
_ALIKE = 1.02
_ROUNDING = 1e-9  # of two accuracies and a bound, as they are written down


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
        examples: on how many held-out examples; None where nobody counted them.
    """

    label: str
    kind: Kind
    cost: float
    fraction: float
    accuracy: float
    passed: bool = True
    examples: int | None = None

    @property
    def standard_error(self) -> float | None:
        """By how much the metric would vary with other examples: sqrt(a (1 - a) / n) for a share of n examples.

        For other means of values between 0 and 1 it is less than this. None for what is no such mean, such as a loss.
        """
        if not self.examples or not 0 <= self.accuracy <= 1:
            return None
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.examples)


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
        max_behind_uniform: by how much a uniform network of its cost may be better than the chosen one; None for one
            standard error of its evaluation, and for any amount where there is none, as for a loss.
    """

    points: tuple[Point, ...]
    cost: str
    metric: str
    higher_is_better: bool = True
    min_accuracy: float | None = None
    max_cost: float | None = None
    max_behind_uniform: float | None = None

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

        A point that did not pass its own bounds is never chosen, nor one that a uniform point of its cost beats by more
        than is allowed. Ties go to the better point, then to the cheaper one.
        """
        fit = [point for point in self._candidates() if not self.is_behind(point)]
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
        return f"the {best} learned network that {self.condition()}{self._and_uniform()}"

    def verdict(self) -> str:
        """What was chosen, or why nothing was, in one sentence."""
        point = self.chosen()
        behind = "".join(f" {self._shortfall(other)}" for other in self._candidates() if self.is_behind(other))
        if point is not None:
            return (
                f"Chosen: {point.label}, {self.metric} {point.accuracy:.4f} at {100 * point.fraction:.1f} % of the "
                f"seed's {self.cost}; it is {self.rule()}.{self._lead(point)}{self._beside(point)}{behind}"
            )
        failed = sum(point.kind == "learned" and not point.passed for point in self.points)
        why = f" {failed} did not pass the bounds that every pushed model has to pass." if failed else ""
        return f"Nothing was chosen: no learned network {self.condition()}{self._and_uniform()}.{why}{behind}"

    def allowed_behind_uniform(self, point: Point) -> float:
        """By how much a uniform network of its cost may be better than a learned point."""
        if self.max_behind_uniform is not None:
            return self.max_behind_uniform
        error = self.standard_error_of(point)
        return math.inf if error is None else error

    def standard_error_of(self, point: Point) -> float | None:
        """The standard error of a point where its metric is a share or the like, which a loss is not."""
        return point.standard_error if self.higher_is_better else None

    def is_behind(self, point: Point) -> bool:
        """Whether a uniform network of its cost beats a point by more than is allowed."""
        gain = self.gain(point)
        return gain is not None and -gain > self.allowed_behind_uniform(point) + _ROUNDING

    def _lead(self, point: Point) -> str:
        """How much better the point is than each learned one of the very same cost, which differs in its training."""
        rivals = [other for other in self.points if other.kind == "learned" and other.cost == point.cost]
        leads = [(self._quality(point) - self._quality(other), other) for other in rivals if other is not point]
        return "".join(
            f" {other.label} is {abs(lead):.4f} {'worse' if lead >= 0 else 'better'}"
            f"{'' if other.passed else ', and did not pass its bounds'}."
            for lead, other in leads
        )

    def rival(self, point: Point) -> Point | None:
        """The best uniform network of the cost of a learned point, or cheaper; None without one."""
        affordable = [other for other in self.points if other.kind == "uniform" and other.cost <= point.cost * _ALIKE]
        return max(affordable, key=self._quality, default=None)

    def gain(self, point: Point) -> float | None:
        """How much better a learned point is than its `rival`, or None without one."""
        rival = self.rival(point)
        return None if rival is None else self._quality(point) - self._quality(rival)

    def _candidates(self) -> list[Point]:
        """The learned points that keep the rule, whatever uniform ones of their cost reach."""
        return [point for point in self.points if point.kind == "learned" and point.passed and self._fits(point)]

    def _and_uniform(self) -> str:
        """The part of the rule about uniform networks, where there are some to compare with."""
        compared = [point for point in self.points if point.kind == "learned" and self.rival(point) is not None]
        if not compared or all(math.isinf(self.allowed_behind_uniform(point)) for point in compared):
            return ""
        allowed = "its standard error" if self.max_behind_uniform is None else f"{self.max_behind_uniform:g}"
        return f" and that no uniform network of its cost beats by more than {allowed}"

    def _shortfall(self, point: Point) -> str:
        """Why a point that keeps the rule was left out."""
        rival = self.rival(point)
        assert rival is not None
        allowed = self.allowed_behind_uniform(point)
        what = "its standard error is" if self.max_behind_uniform is None else "max_behind_uniform is"
        return (
            f"{point.label} ({point.accuracy:.4f}) was left out: {rival.label} reached {rival.accuracy:.4f} at "
            f"{100 * rival.fraction:.1f} %, and {what} {allowed:.4f}."
        )

    def _beside(self, point: Point) -> str:
        """What the uniform network of its cost and the seed reached, where they are there."""
        rival = self.rival(point)
        seed = next((other for other in self.points if other.kind == "seed"), None)
        told = []
        if rival is not None:
            lead = self._quality(point) - self._quality(rival)
            error = self.standard_error_of(point)
            chance = f", within its standard error of {error:.4f}" if error is not None and abs(lead) <= error else ""
            worse = "worse" if lead >= 0 else "better"
            told.append(f" {rival.label} has {rival.accuracy:.4f}, {abs(lead):.4f} {worse}{chance}.")
        if seed is not None:
            told.append(f" The seed has {seed.accuracy:.4f}.")
        return "".join(told)

    def to_json(self) -> str:
        """All of it, the frontier and the choice included."""
        chosen = self.chosen()
        content = {
            "cost": self.cost,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "choose": {
                "min_accuracy": self.min_accuracy,
                "max_cost": self.max_cost,
                "max_behind_uniform": self.max_behind_uniform,
            },
            "points": [
                {
                    **asdict(point),
                    "on_frontier": point in self.pareto(),
                    "chosen": point is chosen,
                    "behind_uniform": point.kind == "learned" and self.is_behind(point),
                }
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
