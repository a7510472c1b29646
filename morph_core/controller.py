"""Steers the price of resources during a search, so that the cost follows a schedule down to its target.

The loss is charged `price x log(cost / scheduled cost)`: an augmented Lagrangian whose multiplier rises while the cost
is above the schedule and falls below zero when it has sunk under it, so that channels can come back. Fixed strengths,
proportional-integral control of the strength and a target without a ramp were tried before: each missed small targets
by 10 to 300 %; this one stays within a few per cent, and a final snap does the rest.
"""

from __future__ import annotations

import dataclasses
import math

# Fractions of the search: no charge before WARM_UP; the schedule reaches the target at RAMP_END; from then on the cost
# of the rounded structure counts more and more; at FREEZE the structure is snapped, and the weights adapt to it.
WARM_UP, RAMP_END, ROUNDED, FREEZE = 0.1, 0.6, 0.75, 0.9
_PENALTY = 10.0
# The multiplier moves by this much in all, per unit of log error held throughout the search.
_TRAVEL = 30.0
_LOWEST_PRICE = -1.0


@dataclasses.dataclass
class Controller:
    """The price, and what it follows.

    Attributes:
        target: the fraction of the seed's cost to reach.
        highest_price: bound on the price.
        multiplier: the Lagrange multiplier so far.
    """

    target: float
    highest_price: float
    multiplier: float = 0.0
    _progress: float = 0.0

    def scheduled(self, progress: float) -> float:
        """The fraction of the seed's cost that is due at this point of the search, on a log-linear ramp."""
        share = min(max((progress - WARM_UP) / (RAMP_END - WARM_UP), 0.0), 1.0)
        return self.target**share

    def measured(self, progress: float, soft: float, rounded: float) -> float:
        """The cost to steer by: that of the soft gates, and more and more that of the rounded ones."""
        share = min(max((progress - RAMP_END) / (ROUNDED - RAMP_END), 0.0), 1.0)
        return soft ** (1 - share) * max(rounded, 1e-3 * soft) ** share

    def price(self, progress: float, measured: float) -> float:
        """The price from now on, per unit of log cost."""
        elapsed, self._progress = max(progress - self._progress, 0.0), progress
        if progress < WARM_UP:
            return 0.0
        error = math.log(max(measured, 1e-9) / self.scheduled(progress))
        self.multiplier = min(max(self.multiplier + _TRAVEL * elapsed * error, 0.0), self.highest_price)
        return min(max(self.multiplier + _PENALTY * error, _LOWEST_PRICE), self.highest_price)
