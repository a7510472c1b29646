"""The schedule that a search steers by: what it decides every few steps, outside the training step.

It looks at the cost, asks the controller for a price, and writes the price of each channel into one vector, which the
training step multiplies with the gates. When most of the search is over, it snaps the structure to the budget and
closes the gates of all other channels for good.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import as_numpy
from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..structure.snap import round_up, snap
from .controller import FREEZE
from .memory import Memory
from .plan import Plan
from .recovery import Diverged


@dataclasses.dataclass(frozen=True)
class Switches:
    """The variables by which decisions reach the training step: Keras variables, float32, none of them trained.

    Attributes:
        prices: what the loss is charged for each channel (units,).
        kept: 1 for each channel whose gate is open, else 0 (units,).
        frozen: 1 once the structure is decided, else 0 ().
        branches: 1 for each tensor of `dying` that is there, else 0 (dying,).
        dying: the numbers of the tensors that some structure leaves out, in the order of `branches`.
    """

    prices: Any
    kept: Any
    frozen: Any
    branches: Any
    dying: tuple[int, ...]


class Steering:
    """Decides prices and, in the end, channels.

    Args:
        graph: of the seed.
        plan: what was asked for. Its controller and its gate change as the search goes on.
        switches: by which decisions reach the training step.
        memory: of what was seen.
    """

    def __init__(self, graph: ChannelGraph, plan: Plan, switches: Switches, memory: Memory) -> None:
        self._graph, self._switches, self._memory = graph, switches, memory
        self._budget, self._choices = plan.budget, plan.choices
        self._gate, self._controller = plan.gate, plan.controller
        self._strength, self._settings = plan.strength, plan.settings
        self._staying = np.zeros(len(graph.groups), dtype=bool)

    def look(self, progress: float, step: int, loss: float | None) -> dict[str, float]:
        """Look at the cost and set prices; arguments, result and errors are those of `StructureSearch.update`."""
        self._check_finite(progress, step, loss)
        self._gate.anneal(progress)
        if self._controller is not None and progress >= FREEZE and not self.is_frozen:
            self._freeze()
        if self.is_frozen:
            alive = as_numpy(self._switches.kept) > 0.5
            costs = self._costs_of(alive.astype(float))
            self._assign_prices(np.zeros(len(self._graph.group_of)))
        else:
            alive = self._open_now(progress)
            costs = self._charge(progress, alive)
        due = None if self._controller is None else self._controller.scheduled(progress)
        binding = 0 if due is None else int(np.argmax(costs / due))
        state = {
            "cost": float(costs[binding]),
            "target": None if due is None else float(due[binding]),
            "alive": int(alive.sum()),
        }
        each, each_due = {}, {}
        if due is not None and len(costs) > 1:
            each = {f"cost_{name}": float(cost) for name, cost in zip(self._budget.names, costs, strict=True)}
            each_due = {f"target_{name}": float(cost) for name, cost in zip(self._budget.names, due, strict=True)}
        self._memory.record(
            {
                "step": int(step),
                **state,
                **each,
                **each_due,
                "loss": loss if loss is not None and math.isfinite(loss) else None,
            }
        )
        self._memory.seen = {name: value for name, value in (state | each).items() if value is not None}
        open_channels = self.widths_of(alive).astype(int).tolist()
        # A group that the network does not have any more has no channels.
        self._memory.widths = dict.fromkeys(self._memory.widths, 0) | {
            group.name: width for group, width in zip(self._graph.groups, open_channels, strict=True) if group.prunable
        }
        return dict(self._memory.seen)

    def kept(self) -> np.ndarray:
        """The channels of the structure as it is now: bool array (units,)."""
        return as_numpy(self._switches.kept) > 0.5 if self.is_frozen else self._snapped()

    def kept_with(self, room: float) -> np.ndarray:
        """The channels that are open, and the best of the others that some room has space for: bool array (units,).

        Args:
            room: what they may cost, in shares of what the schedule asks for.
        """
        assert self._controller is not None, "without a schedule nothing is due"
        is_open = as_numpy(self._switches.kept) > 0.5
        due = self._budget.at(room * self._controller.scheduled(self._controller.progress))
        return is_open | snap(due, self._scores(), self._gate.learns, self._choices, trade=False)

    def can_keep(self, staying: Collection[str]) -> bool:
        """Whether there is a structure within the budget that has channels of all these groups."""
        wanted = self._named(staying)
        kept = snap(self._budget, self._scores(wanted), self._gate.learns, self._choices, trade=False)
        return bool((self.widths_of(kept) > 0)[wanted].all())

    def _named(self, names: Collection[str]) -> np.ndarray:
        return np.array([group.name in names for group in self._graph.groups], dtype=bool)

    def fixed(self) -> dict[str, str]:
        """Why each group that this search leaves as it is stays so; outputs of the model are not listed."""
        reasons = {}
        for group, learns, widths in zip(self._graph.groups, self._gate.learns, self._choices.ladders, strict=True):
            if group.prunable and learns and len(widths) == 1:
                reasons[group.name] = "multiple_of and min_channels allow no fewer channels, unless its branch goes"
            elif group.prunable and not learns:
                reasons[group.name] = f"gate '{self._settings['gate']}' has nothing to learn there"
            elif not group.prunable and group.readers:
                reasons[group.name] = group.reason
        return reasons

    @property
    def is_frozen(self) -> bool:
        """Whether the structure is decided."""
        return bool(as_numpy(self._switches.frozen) > 0.5)

    def _scores(self, staying: np.ndarray | None = None) -> np.ndarray:
        """What each channel is worth: float array (units,); the best one of a group that stays more than all others."""
        self._gate.open = as_numpy(self._switches.kept) > 0.5
        scores = self._gate.scores()
        highest = scores.max(initial=0.0)
        for group in np.flatnonzero(self._staying if staying is None else staying):
            units = np.flatnonzero(self._graph.group_of == group)
            scores[units[np.argmax(scores[units])]] = 2 * highest + 1
        return scores

    def _freeze(self) -> None:
        gates = self._gate.optimizer
        if gates is not None and not (gates.built and int(as_numpy(gates.iterations))):
            raise MorphError(
                "The gates were not trained in a single step, so there is nothing to choose channels by. In a loop of "
                "your own, apply gradients with search.optimizer (after search.compile) to search.trainable_variables; "
                "in fit, with a LossScaleOptimizer, all gradients may have overflowed."
            )
        self.keep(self._snapped())
        self._switches.frozen.assign(1.0)

    def take_over(self, before: Steering, units: np.ndarray, staying: Collection[str]) -> None:
        """Goes on where another one is.

        Args:
            before: the other one, of a network whose channels `units` are this one's.
            units: int array (units,), -1 for channels that nobody decides on.
            staying: groups that may become narrower, but not go.
        """
        self._staying = self._named(staying)
        for mine, theirs, otherwise in (
            (self._switches.prices, before._switches.prices, 0.0),
            (self._switches.kept, before._switches.kept, 1.0),
        ):
            mine.assign(np.where(units < 0, otherwise, as_numpy(theirs)[units]).astype("float32"))
        self.keep(as_numpy(self._switches.kept) > 0.5)

    def keep(self, units: np.ndarray) -> None:
        """Close the gates of all other channels, and leave out the branches that die with them."""
        left = self._graph.survivors(self.widths_of(units) > 0)
        self._switches.kept.assign((units & left.groups[self._graph.group_of]).astype("float32"))
        self._switches.branches.assign(left.tensors[list(self._switches.dying)].astype("float32"))

    def _snapped(self) -> np.ndarray:
        """The channels that fit the budget; with a fixed strength, those that the gate counts as alive."""
        if self._controller is not None:
            return snap(self._budget, self._scores(), self._gate.learns, self._choices)
        alive = self._learned(self._gate.alive(), True)
        best = np.full(len(self._graph.groups), -1, dtype=np.int64)
        scores = self._scores()
        for unit in np.argsort(scores, kind="stable"):
            best[self._graph.group_of[unit]] = unit
        # Reopen, one by one, the best channel of groups without which the output would be dead.
        for group in np.argsort(-scores[best], kind="stable"):
            try:
                self._graph.survivors(self.widths_of(alive) > 0)
            except MorphError:
                alive[best[group]] = True
                continue
            break
        return round_up(self._graph, alive, scores, self._gate.learns, self._choices)

    def _check_finite(self, progress: float, step: int, loss: float | None) -> None:
        """Raise when training has diverged: numbers that are none would be ranked all the same.

        Weights are many, so they are looked at where the loss is no number, before the structure is decided and at the
        end. A loss that is none for once, with weights that are, does no harm.
        """
        no_number = loss is not None and not math.isfinite(loss)
        decides = progress >= 1 or (progress >= FREEZE and not self.is_frozen)
        if no_number or decides:
            for call in {id(call.layer): call for call in self._graph.trace.calls}.values():
                if not all(_is_finite(weight) for weight in getattr(call.layer, "weights", ())):
                    raise Diverged(
                        f"The search diverged before step {step}: the weights of layer '{call.name}' are not numbers "
                        "any more. Lower the learning rate, clip gradients (clipnorm), or check the data for NaN."
                    )
        if not np.isfinite(self._scores()).all():
            raise Diverged(
                f"The search diverged before step {step}: its gates are not numbers any more. Lower the learning rate, "
                "clip gradients (clipnorm), or check the data for NaN."
            )

    def _open_now(self, progress: float) -> np.ndarray:
        """Which channels are open: bool array (units,). A gate that closes early is held to the schedule here."""
        if self._controller is None:
            alive = self._learned(self._gate.alive(), True)
            self._notice_if_all_closed(alive)
            return alive
        if not self._gate.closes_early:
            return self._learned(self._gate.openness() > 0.5, True)
        due = self._budget.at(self._controller.scheduled(progress))
        kept = snap(due, self._scores(), self._gate.learns, self._choices, trade=False)
        self.keep(kept)
        return kept

    def _notice_if_all_closed(self, alive: np.ndarray) -> None:
        """Say it, once, when a fixed strength has closed every channel: what it then finds is no structure of worth."""
        decided = self._gate.learns[self._graph.group_of]
        if self._memory.all_closed or not decided.any() or alive[decided].any():
            return
        self._memory.all_closed = True
        self._memory.tell(
            f"All {int(decided.sum())} channels that the search decides on are closed at step {self._memory.steps}: "
            f"strength {self._strength:g} outweighs the loss. Of each layer that the output needs one channel will be "
            "kept, whatever it is worth. Lower strength, or give a target, which finds the strength by itself."
        )

    def _charge(self, progress: float, alive: np.ndarray) -> np.ndarray:
        """Set the price of every channel; the costs it was set by, as fractions of the seed's: float array (costs,)."""
        rounded = self._costs_of(alive.astype(float))
        if self._controller is None:
            prices = float(self._strength or 0) * self._budget.marginal(self.widths_of(alive))[0]
            self._assign_prices(prices[self._graph.group_of])
            return rounded
        widths = self.widths_of(self._learned(self._gate.openness(), 1.0)) + self._gate.dropped
        soft = self._budget.costs(widths)
        measured = soft / self._budget.seed
        if not self._gate.closes_early:
            measured = self._controller.measured(progress, measured, rounded)
        prices = self._controller.prices(progress, measured)
        marginal = self._budget.marginal(widths) / soft[:, None]
        due = self._budget.at(self._controller.scheduled(progress))
        self._gate.marginal = (due.weights(rounded * due.seed) @ marginal)[self._graph.group_of]
        self._assign_prices((prices @ marginal)[self._graph.group_of] / self._gate.unit)
        return rounded if self._gate.closes_early else measured

    def _assign_prices(self, prices: np.ndarray) -> None:
        self._switches.prices.assign(np.where(self._gate.learns[self._graph.group_of], prices, 0.0).astype("float32"))

    def _learned(self, values: np.ndarray, otherwise: Any) -> np.ndarray:
        """Values of the channels that the gate decides on; `otherwise` for the rest, which stay."""
        return np.where(self._gate.learns[self._graph.group_of], values, otherwise)

    def widths_of(self, openness: np.ndarray) -> np.ndarray:
        """Channels of each group: float array (groups,), from how open each channel is, (units,)."""
        return np.bincount(self._graph.group_of, openness, len(self._graph.groups))

    def _costs_of(self, alive: np.ndarray) -> np.ndarray:
        """The costs of the structure with these channels, as fractions of the seed's: float array (costs,).

        They are those before dead branches go if nothing would be left.
        """
        widths = self.widths_of(alive)
        try:
            left = self._graph.survivors(widths > 0)
        except MorphError:
            left = None
        return self._budget.costs(widths, left) / self._budget.seed


def _is_finite(weight: Any) -> bool:
    return not keras.backend.is_float_dtype(weight.dtype) or bool(as_numpy(ops.all(ops.isfinite(weight))))
