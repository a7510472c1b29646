"""Learn widths while training: a Keras model around the seed, with the same `compile` and the same `fit`.

The search runs the seed's own layers, with a gate where channels are read, and adds to the loss what the channels cost.
Every few steps, outside the training step, it measures the cost, asks the controller for a price, and writes the price
of each channel into one vector; the step itself pays one dot product. When most of the search is over, the structure is
snapped to the budget and the rest of the training adapts the weights to it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import as_numpy
from ..cost.costs import Cost, cost_of
from ..errors import MorphError
from ..network.gating import gated_call, without_dead
from ..network.graph import ChannelGraph
from ..network.placement import Placement
from ..network.topology import Topology, removable_inputs
from ..network.trace import pack_outputs, standardize_inputs, takes_training
from ..structure.budget import Amounts, Budget, Limit, budget_of
from ..structure.choices import DEFAULT_FLOOR, Choices, Counts, choices_of
from ..structure.rebuild import replay
from ..structure.snap import check_feasible, room, round_up, smallest_used, snap
from ..structure.structure import Structure, describe
from .checkpoint import Storage, arguments_of_fit, callback_list, distribution_scope, fit_with_checkpoints
from .controller import FREEZE, Controller
from .gates import check_gate, choose_gate, gate_for
from .optimizer import split_between, users_optimizer
from .steering import Steering

_LONGEST_TRAJECTORY = 2000
# The entry of a weights file that holds what is no weight.
_MEMORY = "memory"


@keras.saving.register_keras_serializable("morph_core")
class StructureSearch(keras.Model):
    """Trains a seed network and learns how wide each of its layers should be.

    `target` or `budget` says how much to shrink: the structure is never over it, whatever the number of steps. Without
    either, `strength` is the paper's fixed factor, and the cost lands where it lands.

    Args:
        model: a functional or Sequential Keras model, the seed. Its weights are trained.
        cost: a name, such as "flops" (a multiply-add is 2), "params", "activation_memory" or "latency:v100", or a
            function of the layers' widths. What a target or budget that is one number is about.
        target: fraction of the seed's cost, in (0, 1]; or several, by name of cost, such as
            `{"flops": 0.5, "params": 0.6}`, all of which are kept.
        budget: the cost to reach, in the cost's own unit; or several, such as `{"flops": 1e8, "latency:v100": 3.0}`.
            `{"latency_ms": 3.0}` is about the device in `cost="latency:DEVICE"`.
        strength: price of one unit of cost in the loss. Beside a target or a budget it is where the price starts, of
            any magnitude; the controller takes it from there.
        gate: "gamma" (MorphNet: L1 on BatchNormalization scales), "group_lasso" (norms of kernels, without
            BatchNormalization), "logistic_sigmoid" (FiGS: stochastic gates, any layer), "fisher" (squared gradients
            at the gates, any layer; with a target or a budget) or "auto": fisher with a target or a budget; with a
            strength gamma where every group that can be pruned has such scales, else logistic_sigmoid. The structure's
            settings say which it was and why.
        multiple_of: keep the widths of layers on multiples of this many channels, or, as a dict, those of the layers or
            groups that it names. A layer may always stay as wide as it is, so one that is narrower than a multiple
            stays whole or goes.
        min_channels: no layer is left with fewer channels, unless it goes with its whole branch; a number or, by layer
            or group, several. By default a sixteenth of the seed's width, rounded up; or half of that, or less, where
            the smallest such network would not be within half the budget; and 1 with a strength alone.

    Raises:
        MorphError: the model is subclassed; an argument is unknown or out of range; no structure is within the budget.

    Example:
        >>> import keras, numpy as np, morph_core as morph
        >>> inputs = keras.Input((8,))
        >>> hidden = keras.layers.Dense(32, activation="relu")(inputs)
        >>> search = morph.StructureSearch(
        ...     keras.Model(inputs, keras.layers.Dense(1)(hidden)), cost="params", target=0.5, gate="logistic_sigmoid")
        >>> search.compile("adam", "mse")
        >>> x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
        >>> history = search.fit(x, x[:, :1] * x[:, 1:2], epochs=4, verbose=0)
        >>> 0.45 < search.structure().costs["params"]["structure"] / 321 <= 0.5
        True
    """

    def __init__(
        self,
        model: keras.Model,
        cost: str | Callable | Cost = "flops",
        target: Amounts | None = None,
        budget: Amounts | None = None,
        strength: float | None = None,
        gate: str = "auto",
        multiple_of: Counts = 1,
        min_channels: Counts | None = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "model", "__class__")}
        with distribution_scope(model):
            # Gates, prices and masks are float32 whatever the seed computes in; its layers cast for themselves.
            super().__init__(name=f"search_{getattr(model, 'name', 'model')}", dtype="float32", autocast=False)
        self._arguments = arguments
        self.graph = ChannelGraph.from_model(model)
        self._budget = _checked_budget(self.graph, cost, target, budget, strength)
        check_gate(gate)
        self._settings: dict[str, Any] = {"gate": gate}
        if gate == "auto":
            gate, reason = choose_gate(self.graph, steered=target is not None or budget is not None)
            self._settings = {"gate": gate, "gate_reason": reason}
        self._gate = gate_for(gate, self.graph)
        self._strength = strength
        self._controller = None
        if target is not None or budget is not None:
            self._choices, floor = _choices_within(self._budget, self._gate.learns, multiple_of, min_channels)
            if min_channels is None:
                self._settings["floor"] = floor
            check_feasible(self._budget, self._gate.learns, self._choices)
            # A strength prices a unit of cost, the controller's price is that of a unit of its logarithm.
            start = np.clip((strength or 0.0) * self._budget.seed, 0.0, self._gate.highest_price)
            self._controller = Controller(self._budget.shares, self._gate.highest_price, start)
            if strength is not None:
                self._settings["starting_strength"] = float(strength)
        else:
            self._choices = choices_of(self.graph, multiple_of, min_channels, floor=0.0)
            if not self._gate.takes_strength:
                raise MorphError(
                    f"gate='{gate}' charges nothing in the loss, so it takes a target or a budget, no strength alone."
                )
        for name, counts in (("multiple_of", multiple_of), ("min_channels", min_channels)):
            if counts is not None and counts != 1:
                self._settings[name] = dict(counts) if isinstance(counts, Mapping) else counts
        count = len(self.graph.group_of)
        self.seed = model
        self._price = self._state("channel_prices", (count,), "zeros")
        self._mask = self._state("channels_kept", (count,), "ones")
        self._frozen = self._state("structure_is_frozen", (), "zeros")
        self._placement = Placement(self.graph, at_scales=True)
        self._removable = removable_inputs(self.graph)
        self._dying = sorted({number for numbers in self._removable.values() for number in numbers})
        self._branches = self._state("branches_kept", (len(self._dying),), "ones")
        with distribution_scope(model):
            self._gate.build(self)
        self._everything = Topology(
            np.ones(len(self.graph.trace.calls), dtype=bool),
            np.ones(len(self.graph.trace.shapes), dtype=bool),
            np.ones(len(self.graph.groups), dtype=bool),
        )
        self._trajectory: list[dict[str, Any]] = []
        self._steps_seen = 0
        # What the last look saw, and the steps of an epoch, once they are known.
        self._seen: dict[str, float] = {}
        self._epoch_length: int | None = None
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...], initializer: str) -> Any:
        with distribution_scope(self.seed):
            return self.add_weight(shape=shape, initializer=initializer, trainable=False, name=name, dtype="float32")

    # --- the training step ---

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        gated = self._placement.gated(self._gates(bool(training)))
        kept = ops.unstack(ops.convert_to_tensor(self._branches), len(self._dying)) if self._dying else []
        live = dict(zip(self._dying, kept, strict=True))

        def call_layer(index: int, call: Any, args: tuple, kwargs: dict) -> Any:
            if index in self._removable:
                args = without_dead(call, live, args)
            # As a functional model does: what was recorded may be a layer's default of False, as Dropout's is.
            if training is not None and takes_training(call.layer):
                kwargs = {**kwargs, "training": training}
            return gated_call(self.graph, index, gated[index], args, kwargs, cheapest=True)

        outputs = replay(self.graph, self._everything, standardize_inputs(self.seed, inputs), call_layer)
        return pack_outputs(self.seed, outputs)

    def _gates(self, training: bool) -> Any:
        """What channels are multiplied by: the gate's sample while it learns, 0 or 1 once it is decided."""
        mask = ops.convert_to_tensor(self._mask)
        if not training:
            return mask
        return self._frozen * mask + (1.0 - self._frozen) * self._gate.sample(mask)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if not training:
            return loss
        # As Keras does with what regularizers add: under a distribution strategy each replica pays its share.
        return loss + ops.cast(self._aggregate_additional_loss(self.penalty()), loss.dtype)

    def penalty(self) -> Any:
        """What the channels cost, to be added to the loss: scalar tensor. `fit` does it by itself.

        Under a budget its value is 0 and only its gradient counts, since the price comes and goes with the schedule:
        the loss that is reported stays that of the task. With a fixed strength it is the paper's regulariser.
        """
        charge = ops.sum(self._price * self._gate.charged())
        return charge if self._controller is None else charge - ops.stop_gradient(charge)

    def compile(self, optimizer: Any = "rmsprop", *args: Any, auto_scale_loss: bool = True, **kwargs: Any) -> None:
        """As `keras.Model.compile`; the gate keeps an optimizer of its own."""
        with distribution_scope(self.seed):
            optimizer = keras.optimizers.get(optimizer)
            # What Keras does for a model of this dtype, done here: the search itself computes in float32.
            if auto_scale_loss and self.seed.dtype_policy.name == "mixed_float16":
                if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            split = split_between(optimizer, self._gate.optimizer, self._gate.trainable)
            super().compile(split, *args, auto_scale_loss=False, **kwargs)

    def fit(self, *args: Any, checkpoint: str | os.PathLike[str] | Storage | None = None, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; logs also hold `cost` and `target` (fractions of the seed's cost) and `alive`.

        Args:
            *args: as Keras'.
            checkpoint: directory for a checkpoint after each epoch. The same call on the same network continues after
                the last one there, with the schedule where it was; a search that is over is only taken up again. Data
                are read from their beginning, and callbacks start anew. Nothing there is deleted at the end.
            **kwargs: as Keras'.

        Raises:
            MorphError: training has diverged; the checkpoints are those of another search, or all damaged.
        """
        arguments = arguments_of_fit(super().fit, args, kwargs)
        arguments["callbacks"] = [Steering(self), *callback_list(arguments.get("callbacks"))]
        self._seen, self._epoch_length = {}, None
        if checkpoint is None:
            return super().fit(**arguments)
        identity = {"network": self.graph.fingerprint, "goal": self._budget.goal, **self._settings}
        return fit_with_checkpoints(self, arguments, checkpoint, identity, super().fit, self)

    @property
    def output_names(self) -> list[str]:
        """Names of the seed's outputs, by which losses and metrics may be given."""
        return self.seed.output_names

    # --- saved and loaded ---

    def save_own_variables(self, store: Any) -> None:
        """Beside the variables of the search itself, all that it knows and that is no variable."""
        super().save_own_variables(store)
        store[_MEMORY] = np.frombuffer(json.dumps(self.memory()).encode(), dtype=np.uint8)

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables({name: store[name] for name in store.keys() if name != _MEMORY})  # noqa: SIM118
        self.remember(json.loads(np.asarray(store[_MEMORY]).tobytes()))

    def memory(self) -> dict[str, Any]:
        """What the search knows and that is no variable: the controller, the gate's units, the trajectory, as JSON."""
        return {
            "controller": None if self._controller is None else _plain(vars(self._controller)),
            "gate": _plain({name: getattr(self._gate, name) for name in self._gate.remembered}),
            "trajectory": list(self._trajectory),
            "steps": self._steps_seen,
            "epoch_length": self._epoch_length,
            "seen": dict(self._seen),
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Takes up what `memory` told, in this process or an earlier one, about a search of the same arguments."""
        if self._controller is not None:
            _take_up(self._controller, memory["controller"])
        _take_up(self._gate, memory["gate"])
        self._trajectory = [dict(row) for row in memory["trajectory"]]
        self._steps_seen = int(memory["steps"])
        self._epoch_length, self._seen = memory["epoch_length"], dict(memory["seen"])

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them with a whole model.

        Raises:
            MorphError: the cost is a function, which no file can hold.
        """
        arguments = dict(self._arguments)
        if not isinstance(arguments["cost"], str):
            raise MorphError(
                f"A search whose cost is the function '{cost_of(arguments['cost']).name}' cannot be saved as a whole. "
                "Save its weights (save_weights_only=True), or use fit(..., checkpoint=directory)."
            )
        return {"model": keras.saving.serialize_keras_object(self.seed), **arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> StructureSearch:
        """A search of the arguments that `get_config` told."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(model, **{name: value for name, value in config.items() if name != "model"})

    def get_compile_config(self) -> dict[str, Any]:
        """As Keras', with the user's optimizer."""
        config = super().get_compile_config()
        if config:
            config["optimizer"] = keras.saving.serialize_keras_object(users_optimizer(self.optimizer))
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """As Keras'."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    # --- outside the step ---

    def update(self, progress: float, step: int = 0, loss: float | None = None) -> dict[str, float]:
        """Look at the cost and set prices; `fit` does it by itself, a custom loop calls it every few steps.

        Args:
            progress: how much of the search is over, from 0 to 1.
            step: for the trajectory.
            loss: likewise.

        Returns:
            `cost` and `target` as fractions of the seed's cost, and `alive`, the number of channels. Of several costs,
            `cost` and `target` are those of the one that is furthest over its schedule (or nearest to it), and
            `cost_flops`, `cost_params`, ... are the costs of all.

        Raises:
            MorphError: training has diverged.
        """
        self._sync()
        self._check_finite(step)
        self._gate.anneal(progress)
        if self._controller is not None and progress >= FREEZE and not self._is_frozen():
            self._freeze()
        if self._is_frozen():
            alive = as_numpy(self._mask) > 0.5
            costs = self._costs_of(alive.astype(float))
            self._assign_prices(np.zeros(len(self.graph.group_of)))
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
        if len(self._trajectory) < _LONGEST_TRAJECTORY:
            self._trajectory.append({"step": int(step), **state, **each, **each_due, "loss": loss})
        self._seen = {name: value for name, value in (state | each).items() if value is not None}
        return dict(self._seen)

    def _sync(self) -> None:
        """Bring the variables up to date: under JAX, `fit` keeps their values to itself until somebody asks."""
        sync = getattr(self, "jax_state_sync", None)
        if sync is not None:
            sync()

    def _check_finite(self, step: int) -> None:
        """Raise when training has diverged: numbers that are none would be ranked all the same."""
        if not np.isfinite(self._gate.scores()).all():
            raise MorphError(
                f"The search diverged before step {step}: its gates are not numbers any more. Lower the learning rate, "
                "clip gradients (clipnorm), or check the data for NaN."
            )

    def _open_now(self, progress: float) -> np.ndarray:
        """Which channels are open: bool array (units,). A gate that closes early is held to the schedule here."""
        if self._controller is None:
            return self._learned(self._gate.alive(), True)
        if not self._gate.closes_early:
            return self._learned(self._gate.openness() > 0.5, True)
        due = self._budget.at(self._controller.scheduled(progress))
        kept = snap(due, self._gate.scores(), self._gate.learns, self._choices, trade=False)
        self._keep(kept)
        return kept

    def _charge(self, progress: float, alive: np.ndarray) -> np.ndarray:
        """Set the price of every channel; the costs it was set by, as fractions of the seed's: float array (costs,)."""
        rounded = self._costs_of(alive.astype(float))
        if self._controller is None:
            prices = float(self._strength or 0) * self._budget.marginal(self._widths(alive))[0]
            self._assign_prices(prices[self.graph.group_of])
            return rounded
        widths = self._widths(self._learned(self._gate.openness(), 1.0))
        soft = self._budget.costs(widths)
        measured = soft / self._budget.seed
        if not self._gate.closes_early:
            measured = self._controller.measured(progress, measured, rounded)
        prices = self._controller.prices(progress, measured)
        marginal = self._budget.marginal(widths) / soft[:, None]
        due = self._budget.at(self._controller.scheduled(progress))
        self._gate.marginal = (due.weights(rounded * due.seed) @ marginal)[self.graph.group_of]
        self._assign_prices((prices @ marginal)[self.graph.group_of] / self._gate.unit)
        return rounded if self._gate.closes_early else measured

    def _assign_prices(self, prices: np.ndarray) -> None:
        self._price.assign(np.where(self._gate.learns[self.graph.group_of], prices, 0.0).astype("float32"))

    def _learned(self, values: np.ndarray, otherwise: Any) -> np.ndarray:
        """Values of the channels that the gate decides on; `otherwise` for the rest, which stay."""
        return np.where(self._gate.learns[self.graph.group_of], values, otherwise)

    def _widths(self, openness: np.ndarray) -> np.ndarray:
        return np.bincount(self.graph.group_of, openness, len(self.graph.groups))

    def _costs_of(self, alive: np.ndarray) -> np.ndarray:
        """The costs of the structure with these channels, as fractions of the seed's: float array (costs,).

        They are those before dead branches go if nothing would be left.
        """
        widths = self._widths(alive)
        try:
            left = self.graph.survivors(widths > 0)
        except MorphError:
            left = None
        return self._budget.costs(widths, left) / self._budget.seed

    def _is_frozen(self) -> bool:
        return bool(as_numpy(self._frozen) > 0.5)

    def _freeze(self) -> None:
        gates = self._gate.optimizer
        if gates is not None and not (gates.built and int(as_numpy(gates.iterations))):
            raise MorphError(
                "The gates were not trained in a single step, so there is nothing to choose channels by. In a loop of "
                "your own, apply gradients with search.optimizer (after search.compile) to search.trainable_variables; "
                "in fit, with a LossScaleOptimizer, all gradients may have overflowed."
            )
        self._keep(self._snapped())
        self._frozen.assign(1.0)

    def _keep(self, units: np.ndarray) -> None:
        """Close the gates of all other channels, and leave out the branches that die with them."""
        left = self.graph.survivors(self._widths(units.astype(float)) > 0)
        self._mask.assign((units & left.groups[self.graph.group_of]).astype("float32"))
        self._branches.assign(left.tensors[self._dying].astype("float32"))

    def _snapped(self) -> np.ndarray:
        """The channels that fit the budget; with a fixed strength, those that the gate counts as alive."""
        if self._controller is not None:
            return snap(self._budget, self._gate.scores(), self._gate.learns, self._choices)
        alive = self._learned(self._gate.alive(), True)
        best = np.full(len(self.graph.groups), -1, dtype=np.int64)
        scores = self._gate.scores()
        for unit in np.argsort(scores, kind="stable"):
            best[self.graph.group_of[unit]] = unit
        # Reopen, one by one, the best channel of groups without which the output would be dead.
        for group in np.argsort(-scores[best], kind="stable"):
            try:
                self.graph.survivors(self._widths(alive.astype(float)) > 0)
            except MorphError:
                alive[best[group]] = True
                continue
            break
        return round_up(self.graph, alive, scores, self._gate.learns, self._choices)

    def structure(self) -> Structure:
        """What the search has learned so far.

        Raises:
            MorphError: nothing was trained yet.
        """
        if not self._trajectory:
            raise MorphError("The search has not seen any data yet: call fit first, then structure().")
        self._sync()
        kept = as_numpy(self._mask) > 0.5 if self._is_frozen() else self._snapped()
        alive = {}
        for index, group in enumerate(self.graph.groups):
            if group.prunable:
                units = np.flatnonzero(self.graph.group_of == index)
                alive[group.name] = self.graph.position_of[units][kept[units]].tolist()
        found = describe(
            self.graph,
            {name: len(channels) for name, channels in alive.items()},
            alive,
            costs=[limit.cost for limit in self._budget.limits],
            goal=self._budget.goal,
            settings={**self._settings, "steps": self._steps_seen, "frozen": self.fixed()},
            trajectory=list(self._trajectory),
        )
        if self._controller is not None:
            found.settings["budget"] = room(self._budget, found.widths_in(self.graph), self._choices, self._gate.learns)
        return found

    def fixed(self) -> dict[str, str]:
        """Why each group that this search leaves as it is stays so; outputs of the model are not listed."""
        reasons = {}
        for group, learns, widths in zip(self.graph.groups, self._gate.learns, self._choices.ladders, strict=True):
            if group.prunable and learns and len(widths) == 1:
                reasons[group.name] = "multiple_of and min_channels allow no fewer channels, unless its branch goes"
            elif group.prunable and not learns:
                reasons[group.name] = f"gate '{self._settings['gate']}' has nothing to learn there"
            elif not group.prunable and group.readers:
                reasons[group.name] = group.reason
        return reasons


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


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for name, value in values.items()
    }


def _take_up(target: Any, values: Mapping[str, Any]) -> None:
    """Sets attributes to what `_plain` made of them."""
    for name, value in values.items():
        setattr(target, name, np.array(value) if isinstance(value, list) else value)
