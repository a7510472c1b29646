"""Learn widths while training: a Keras model around the seed, with the same `compile` and the same `fit`.

The search runs the seed's own layers, with a gate where channels are read, and adds to the loss what the channels cost.
Every few steps, outside the training step, it measures the cost, asks the controller for a price, and writes the price
of each channel into one vector; the step itself pays one dot product. When most of the search is over, the structure is
snapped to the budget and the rest of the training adapts the weights to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from ..cost.amounts import Amounts
from ..cost.costs import Cost, cost_of
from ..errors import MorphError
from ..network.gating import gated_call, without_dead
from ..network.graph import ChannelGraph
from ..network.placement import Placement
from ..network.standins import TrainingLoss
from ..network.topology import Topology, removable_inputs
from ..network.trace import pack_outputs, standardize_inputs, takes_training
from ..structure.choices import Floors, Multiples
from ..structure.describe import describe, widths_and_channels
from ..structure.rebuild import Part, replay
from ..structure.snap import room
from ..structure.structure import Structure
from .checkpoint import (
    Storage,
    arguments_of_fit,
    callback_list,
    distribution_scope,
    fit_with_checkpoints,
    storage_at,
)
from .checks import check_plain_steps, check_rebuildable
from .distill import Distillation, Lesson, check_teacher, distillation_of, of_model
from .finish import Found, Leg, OneRun, compile_alike, cut, last_search_epoch
from .looks import Looks
from .memory import Memory, as_json, take_up
from .narrowing import Narrower, narrower
from .optimizer import split_between, users_optimizer
from .plan import plan_of
from .recovery import Recovery
from .steering import Steering, Switches

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
            stays whole or goes. "auto" takes the number from the calibration of a measured latency.
        min_channels: no layer is left with fewer channels, unless it goes with its whole branch; a number or, by layer
            or group, several. By default a sixteenth of the seed's width, rounded up; or half of that, or less, where
            the smallest such network would not be within half the budget; and 1 with a strength alone. "uniform":
            what every layer has when all are narrowed alike to the same budget (`uniform`), so that the search chooses
            the channels and, but for branches that it removes whole, not how many.
        search_fraction: the part of the epochs of `fit` that the search takes, to the nearest whole epoch. Below 1, the
            network is then cut to its structure and trained to the end within the same `fit`; see `result`.
        allow_uncounted: search for a cost that counts work (FLOPs, latency) even where layers with more than 1 % of the
            parameters are not in it, see `ChannelGraph.uncounted`.
        distill: with a `search_fraction` below 1, what the network learns after the cut besides the labels: to answer
            as a teacher does (Hinton et al. 2015, arXiv 1503.02531). A trained `keras.Model` with the seed's inputs and
            outputs is a teacher, which stays as it is. True: the teacher is the seed with its weights at the cut, all
            channels open; it has been trained for the search's epochs only, and on small images the network learned to
            be as wrong as that (13 points and more below none). Or a dict with some of "teacher", "temperature" (3 by
            default), "weight" of the teacher beside the labels (0.5) and "loss", a `keras.distillation` loss. By itself
            it is, for classes and for yes or no, the divergence of softened answers; for numbers (regression) the mean
            squared error to the teacher's. The loss that `fit` logs has it in it, that of the validation data has not.

    Raises:
        MorphError: the model is subclassed, has a training step of its own, or has a layer that cannot be made anew at
            other widths; an argument is unknown or out of range; no structure is within the budget.

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
        multiple_of: Multiples = 1,
        min_channels: Floors | None = None,
        search_fraction: float = 1.0,
        allow_uncounted: bool = False,
        distill: Any = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "model", "__class__")}
        taught = _distillation_after_cut(distill, search_fraction)
        # To Keras a teacher is no part of the search, which would train and save it.
        arguments["distill"] = None if taught is None else {"temperature": taught.temperature, "weight": taught.weight}
        with distribution_scope(model):
            # Gates, prices and masks are float32 whatever the seed computes in; its layers cast for themselves.
            super().__init__(name=f"search_{getattr(model, 'name', 'model')}", dtype="float32", autocast=False)
        self._arguments = arguments
        self._distillation = taught
        self.graph = ChannelGraph.from_model(model)
        plan = plan_of(
            self.graph,
            cost,
            target,
            budget,
            strength,
            gate,
            multiple_of,
            min_channels,
            search_fraction,
            allow_uncounted,
        )
        if taught is not None:
            plan.settings["distill"] = taught.settings()
        check_plain_steps(model)
        if taught is not None and taught.teacher is not None:
            check_teacher(taught.teacher, model)
        check_rebuildable(model, plan)
        self._plan, self._gate = plan, plan.gate
        self.seed = model
        self._placement = Placement(self.graph, at_scales=True)
        self._removable = removable_inputs(self.graph)
        # They are no layers of the seed, so what they add is found here.
        self._added = [call.layer for call in self.graph.trace.calls if isinstance(call.layer, TrainingLoss)]
        dying = sorted({number for numbers in self._removable.values() for number in numbers})
        count = len(self.graph.group_of)
        self._switches = Switches(
            prices=self._state("channel_prices", (count,), "zeros"),
            kept=self._state("channels_kept", (count,), "ones"),
            frozen=self._state("structure_is_frozen", (), "zeros"),
            branches=self._state("branches_kept", (len(dying),), "ones"),
            dying=tuple(dying),
        )
        with distribution_scope(model):
            self._gate.build(self)
        self._memory = Memory()
        self._narrower: Narrower | None = None
        self._stays_wide = False
        self._found: Found | None = None
        self._steering = Steering(self.graph, plan, self._switches, self._memory)
        self._everything = Topology(
            np.ones(len(self.graph.trace.calls), dtype=bool),
            np.ones(len(self.graph.trace.shapes), dtype=bool),
            np.ones(len(self.graph.groups), dtype=bool),
        )
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...], initializer: str) -> Any:
        with distribution_scope(self.seed):
            return self.add_weight(shape=shape, initializer=initializer, trainable=False, name=name, dtype="float32")

    # --- the training step ---

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        gated = self._placement.gated(self._gates(bool(training)))
        dying = self._switches.dying
        kept = ops.unstack(ops.convert_to_tensor(self._switches.branches), len(dying)) if dying else []
        live = dict(zip(dying, kept, strict=True))

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
        mask = ops.convert_to_tensor(self._switches.kept)
        if not training:
            return mask
        frozen = self._switches.frozen
        return frozen * mask + (1.0 - frozen) * self._gate.sample(mask)

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
        charge = ops.sum(self._switches.prices * self._gate.charged())
        return charge if self._plan.controller is None else charge - ops.stop_gradient(charge)

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

    def fit(
        self,
        *args: Any,
        checkpoint: str | os.PathLike[str] | Storage | None = None,
        narrow: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `keras.Model.fit`; logs also hold `cost` and `target` (fractions of the seed's cost) and `alive`.

        With a `search_fraction` below 1, the first epochs are the search's and its schedule is over with them. Then the
        network is cut, in the middle of the same training: the optimizer goes on with what it knows about the channels
        that stay, its count of steps, learning rate and loss scale; callbacks are told of the new network by
        `set_model`, and of no end or beginning. What EarlyStopping, ModelCheckpoint and ReduceLROnPlateau took for the
        best so far was another network, so they compare anew. A callback that stops training before the cut ends the
        run, and the network is cut as the search was then. The search and its seed stay as they were at the cut.

        In a longer search of this kind the network is narrowed before, too, where many channels are closed at the end
        of an epoch: a search of a narrower network goes on, in the same way, and callbacks are told by `set_model`. The
        seed stays as it was at the first of these times; `structure()` and all else is about the search as it goes on.

        When weights or gates are no numbers any more, or under a budget the loss has exploded, the search goes back to
        its state after the last good epoch, with a quarter of the learning rate, up to three times; see `incidents`.

        Args:
            *args: as Keras'.
            checkpoint: directory for a checkpoint after each epoch. The same call on the same network continues after
                the last one there, with the schedule where it was; a search that is over is only taken up again. Data
                are read from their beginning, and callbacks start anew. Nothing there is deleted at the end.
            narrow: whether the network may be narrowed before the cut. By default it may where each epoch reads all
                data; where `steps_per_epoch` cuts an endless stream into epochs, the stream would begin anew.
            **kwargs: as Keras'.

        Raises:
            MorphError: training has diverged again and again; the checkpoints are those of another search, or all
                damaged; with a `search_fraction` below 1, a part has no whole epoch, the optimizer's state cannot be
                cut, or the network was cut by an earlier call.
        """
        arguments = arguments_of_fit(super().fit, args, kwargs)
        looks = self._looks(self._preface() if arguments.get("verbose", "auto") else [])
        identity = {"network": self.graph.fingerprint, "goal": self._plan.budget.goal, **self._plan.settings}
        fraction = self._arguments["search_fraction"]
        if fraction < 1 and self.compiled:
            if self._found is not None and checkpoint is None:
                raise MorphError(
                    "This search is over and its network is cut. Train that one on, search.result().fit(...), or make "
                    "a new StructureSearch."
                )
            cut_after = last_search_epoch(fraction, arguments.get("epochs", 1))
            self._memory.seen, self._memory.epoch_length, self._found, self._narrower = {}, None, None, None
            taught = self._teaching()
            if self._distillation is not None and self._distillation.teacher is not None and checkpoint is not None:
                identity["teacher"] = self._distillation.digest()
            place = None if checkpoint is None else (storage_at(checkpoint), identity)
            if narrow is None:
                narrow = arguments.get("steps_per_epoch") is None
            run = OneRun(
                Leg(self, super().fit, looks),
                arguments,
                cut_after,
                self._cut,
                self._narrow if narrow and not self._teaches_itself else lambda epochs: None,
                lambda: self._memory.seen,
                place,
                taught,
            )
            return run.train()
        arguments["callbacks"] = [looks, *callback_list(arguments.get("callbacks"))]
        self._memory.seen, self._memory.epoch_length = {}, None
        if checkpoint is None:
            return super().fit(**arguments)
        return fit_with_checkpoints(self, arguments, checkpoint, identity, super().fit, self)

    def result(self) -> keras.Model:
        """The network that was found: an ordinary Keras model, compiled as the search is.

        With a `search_fraction` below 1 it is the one that `fit` has trained to the end, the same at every call.
        Otherwise, and after a loop of your own, it is cut now, a new one at every call, with the weights that it has in
        the search and what the optimizer knows about them: `search.result().fit(...)` goes on where the search ended.

        Raises:
            MorphError: nothing was trained yet; the optimizer's state cannot be cut.
        """
        now = self._now()
        return self._found.model if self._found is not None else cut(now, now.seed, now.structure())

    def _looks(self, preface: list[str]) -> Looks:
        # With a fixed strength the loss that is reported has the price in it, see `penalty`.
        recovery = Recovery(self, self._memory, is_task=self._plan.controller is not None)
        return Looks(self._memory, self.update, self._gate.begin, preface, recovery)

    def _cut(self) -> Found:
        now = self._now()
        self._found = Found(self.structure(), cut(now, now.seed, now.structure()))
        return self._found

    # --- a narrower network to go on with ---

    def _now(self) -> StructureSearch:
        """The search that is trained: this one, or the one that goes on for it; Keras would save a property."""
        return self if self._narrower is None else self._narrower.search

    @property
    def _teaches_itself(self) -> bool:
        """Whether the network is to learn from the seed as it is at the cut, which has to have its channels then."""
        return self._distillation is not None and self._distillation.teacher is None

    def _narrow(self, epochs_left: int) -> Leg | None:
        """What goes on for this search, where a narrower network is worth it."""
        found = None if self._stays_wide else narrower(self._now(), epochs_left)
        if isinstance(found, str):
            self._stays_wide = True
            self._memory.tell(f"The search goes on at the width it has, and is as slow as before: {found}.")
        if not isinstance(found, Narrower):
            return None
        self._narrower = found.within(self._narrower)
        return self._narrower.search._leg(self._narrower.units.tolist())

    def _leg(self, channels: list[int]) -> Leg:
        return Leg(self, super().fit, self._looks([]), channels)

    def _take_over(
        self, before: StructureSearch, units: np.ndarray, parts: list[Part], staying: Collection[str]
    ) -> None:
        """Goes on where another search is.

        Args:
            before: the other one.
            units: which of its channels those of this search's network are; -1 where nobody decides.
            parts: what the variables of this network are parts of.
            staying: groups that may become narrower, but not go.

        Raises:
            MorphError: a cost, or what the optimizer knows, cannot be taken over.
        """
        before._sync()
        self._memory = before._memory
        self._plan = dataclasses.replace(self._plan, controller=before._plan.controller)
        self._measure_in(before._plan.budget.seed)
        compile_alike(before, self, parts)
        with distribution_scope(self.seed):
            self._gate.take_over(before._gate, units)
        self._steering.take_over(before._steering, units, staying)

    def _measure_in(self, seed: Any) -> None:
        """Reports and steers by shares of these costs, float array (costs,), instead of those of its own seed."""
        budget = self._plan.budget
        limits = [
            dataclasses.replace(limit, seed=float(amount)) for limit, amount in zip(budget.limits, seed, strict=True)
        ]
        self._plan = dataclasses.replace(self._plan, budget=dataclasses.replace(budget, limits=tuple(limits)))
        self._steering = Steering(self.graph, self._plan, self._switches, self._memory)

    def _teaching(self) -> Callable[[keras.Model], contextlib.AbstractContextManager[None]]:
        """What has the network that is cut taught while it is trained; a mistake in what was asked for ends here."""
        asked = self._distillation
        if asked is None:
            return contextlib.nullcontext
        lesson = Lesson(asked, self.seed, self._compile_config.config)
        # The seed stays as it was at the cut, and is so again when a run is continued after it.
        teacher = self.seed if asked.teacher is None else asked.teacher
        return lambda model: lesson.taught(model, of_model(teacher, model))

    def _preface(self) -> list[str]:
        """What to say before training: which gate was chosen, and what stays whole."""
        settings = self._plan.settings
        chosen = [f"gate: {settings['gate']} ({settings['gate_reason']})"] if "gate_reason" in settings else []
        chosen += [f"not counted: {name}: {layer.reason}" for name, layer in self.graph.uncounted.items()]
        return chosen + [f"kept whole: {name}: {reason}" for name, reason in self.fixed().items()]

    @property
    def output_names(self) -> list[str]:
        """Names of the seed's outputs, by which losses and metrics may be given."""
        return self.seed.output_names

    # --- saved and loaded ---

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """As Keras', in Keras' own format.

        Raises:
            MorphError: the file is of the older format, which cannot hold what the search knows.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise MorphError(
                f"A search cannot be saved to '{filepath}': the HDF5 format holds weights and layers, but not how far "
                "the search is. Save it to a file that ends in .keras."
            )
        super().save(filepath, *args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Not for a search, which still has all channels.

        Raises:
            MorphError: always; it says what to export.
        """
        raise MorphError(
            "A search is not what is served: it still runs all channels of the seed. Export what is rebuilt: "
            "morph.rebuild(model, search.structure(), weights='inherit').export(path)."
        )

    def save_own_variables(self, store: Any) -> None:
        """Beside the variables of the search itself, all that it knows and that is no variable."""
        super().save_own_variables(store)
        store[_MEMORY] = np.frombuffer(json.dumps(self.memory()).encode(), dtype=np.uint8)

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables({name: store[name] for name in store.keys() if name != _MEMORY})  # noqa: SIM118
        self.remember(json.loads(np.asarray(store[_MEMORY]).tobytes()))

    def memory(self) -> dict[str, Any]:
        """What the search knows and that is no variable: the controller, the gate's units, the trajectory, as JSON."""
        told = as_json(self._memory, self._plan.controller, self._gate)
        return {**told, "shares_of": self._plan.budget.seed.tolist()}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Takes up what `memory` told, in this process or an earlier one, about a search of the same arguments."""
        take_up(memory, self._memory, self._plan.controller, self._gate)
        # A search that has gone on for that of a wider network reports shares of what that one costs.
        costs = memory.get("shares_of", [])
        if costs and costs != self._plan.budget.seed.tolist():
            self._measure_in(costs)

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
        asked = self._distillation
        if asked is not None and (asked.teacher is not None or asked.loss is not None):
            raise MorphError(
                "A search with a teacher or a distillation loss of your own cannot be saved as a whole: the file would "
                "lack its weights. Save the search's weights (save_weights_only=True), or use "
                "fit(..., checkpoint=directory)."
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
        return self._steering.look(progress, step, loss)

    def _sync(self) -> None:
        """Bring the variables up to date: under JAX, `fit` keeps their values to itself until somebody asks."""
        sync = getattr(self, "jax_state_sync", None)
        if sync is not None:
            sync()

    @property
    def widths(self) -> dict[str, int]:
        """How many channels of each group that can be pruned were open at the last look; empty before the first.

        For curves. What the search will find is `structure()`.
        """
        return dict(self._memory.widths)

    @property
    def incidents(self) -> tuple[str, ...]:
        """What went wrong so far and what was done about it, a sentence each; also in the structure's settings."""
        return tuple(self._memory.incidents)

    def structure(self) -> Structure:
        """What the search has learned so far; once its network is cut, the structure of that.

        Raises:
            MorphError: nothing was trained yet.
        """
        if self._found is not None:
            return self._found.structure
        if not self._memory.trajectory:
            raise MorphError("The search has not seen any data yet: call fit first, then structure().")
        found = describe(
            self.graph,
            *widths_and_channels(self.graph, self._kept()),
            costs=[limit.cost for limit in self._plan.budget.limits],
            goal=self._plan.budget.goal,
            settings={
                **self._plan.settings,
                "steps": self._memory.steps,
                "frozen": self.fixed(),
                **({"incidents": list(self.incidents)} if self.incidents else {}),
            },
            trajectory=list(self._memory.trajectory),
        )
        plan = self._plan
        if plan.controller is not None:
            found.settings["budget"] = room(plan.budget, found.widths_in(self.graph), plan.choices, plan.gate.learns)
        return found

    def _kept(self) -> np.ndarray:
        """The channels of the structure as it is now: bool array (units,)."""
        if self._narrower is None:
            self._sync()
            return self._steering.kept()
        left, units = self._narrower.search._kept(), self._narrower.units
        kept = np.zeros(len(self.graph.group_of), dtype=bool)
        kept[units[left & (units >= 0)]] = True
        return kept

    def fixed(self) -> dict[str, str]:
        """Why each group that this search leaves as it is stays so; outputs of the model are not listed."""
        return self._steering.fixed()


def _distillation_after_cut(distill: Any, search_fraction: Any) -> Distillation | None:
    """What `distill` asks for; it needs a training after the cut."""
    asked = distillation_of(distill)
    if asked is not None and search_fraction == 1:
        raise MorphError(
            "distill is about the training after the cut, but with search_fraction=1.0 the search takes all epochs and "
            "there is none. Give a search_fraction below 1, such as 0.25."
        )
    return asked
