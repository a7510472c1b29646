"""Steers the price of resources during a search, so that the cost follows a schedule down to its target.

The loss is charged `price x log(cost / scheduled cost)`: an augmented Lagrangian whose multiplier rises while the cost
is above the schedule and falls below zero when it has sunk under it, so that channels can come back. Fixed strengths,
proportional-integral control of the strength and a target without a ramp were tried before: each missed small targets
by 10 to 300 %; this one stays within a few per cent, and a final snap does the rest.

Several costs each have a multiplier and a schedule. One that is within its schedule while another is over it is charged
nothing, but never paid for: only the fullest may have a price below zero.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Fractions of the search: no charge before WARM_UP; the schedule reaches the target at RAMP_END; from then on the cost
# of the rounded structure counts more and more; at FREEZE the structure is snapped, and the weights adapt to it.
WARM_UP, RAMP_END, ROUNDED, FREEZE = 0.1, 0.6, 0.75, 0.9
_PENALTY = 10.0
# The multiplier moves by this much in all, per unit of log error held throughout the search.
_TRAVEL = 30.0
# While the cost is below the schedule, the multiplier falls by this many powers of e in all, per unit of log error: one
# that was started a million times too high comes down in some hundredths of the search.
_RELEASE = 200.0
_LOWEST_PRICE = -1.0


@dataclasses.dataclass
class Controller:
    """The prices, and what they follow.

    Attributes:
        targets: the fraction of the seed's cost to reach, of each cost: float array (costs,).
        highest_price: bound on each price.
        multipliers: the Lagrange multipliers so far: float array (costs,).
        progress: when prices were last asked for.
    """

    targets: np.ndarray
    highest_price: float
    multipliers: np.ndarray
    progress: float = 0.0

    def scheduled(self, progress: float) -> np.ndarray:
        """The fractions of the seed's costs that are due at this point of the search, on log-linear ramps."""
        share = min(max((progress - WARM_UP) / (RAMP_END - WARM_UP), 0.0), 1.0)
        return self.targets**share

    def measured(self, progress: float, soft: np.ndarray, rounded: np.ndarray) -> np.ndarray:
        """The costs to steer by: those of the soft gates, and more and more those of the rounded ones."""
        share = min(max((progress - RAMP_END) / (ROUNDED - RAMP_END), 0.0), 1.0)
        return soft ** (1 - share) * np.maximum(rounded, 1e-3 * soft) ** share

    def prices(self, progress: float, measured: np.ndarray) -> np.ndarray:
        """The prices from now on, per unit of each log cost: float array (costs,)."""
        elapsed, self.progress = max(progress - self.progress, 0.0), progress
        if progress < WARM_UP:
            return np.zeros(len(self.targets))
        errors = np.log(np.maximum(measured, 1e-9) / self.scheduled(progress))
        released = self.multipliers * np.exp(_RELEASE * elapsed * np.minimum(errors, 0.0))
        self.multipliers = np.clip(released + _TRAVEL * elapsed * errors, 0.0, self.highest_price)
        lowest = np.where(np.arange(len(errors)) == np.argmax(errors), _LOWEST_PRICE, 0.0)
        return np.clip(self.multipliers + _PENALTY * errors, lowest, self.highest_price)
