"""One call of fit for several networks: the search up to the cut, and from there on the network that it found.

The cut makes an ordinary Keras model of the structure, with the weights of the channels that stay and everything that
the optimizer knows about them, so that the next step is the one that the search would have taken, for less. While
channels close, the search itself may go on with a narrower network (`narrowing`). Keras trains one model a call of
`fit`, so there are several calls inside, and what spans them, callbacks and History, stands in one list that begins
once and ends once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import keras

from ..errors import MorphError
from ..structure.rebuild import Part, inherit, unused
from ..structure.structure import Structure
from .checkpoint import Files, Saver, Storage, callback_list, distribution_scope
from .optimizer import users_optimizer
from .slots import check_sliceable, hand_on

# What Keras' callbacks take for the best so far. It was reached by a network of other widths, so it ends with the cut.
_COMPARING = (keras.callbacks.EarlyStopping, keras.callbacks.ModelCheckpoint, keras.callbacks.ReduceLROnPlateau)
_COMPARISONS = ("best", "best_epoch", "best_weights", "wait", "cooldown_counter")
_SERIES = "result"
_LEGS = "narrower{}"


@dataclasses.dataclass(frozen=True)
class Leg:
    """A search, as one call of Keras' fit trains it.

    Attributes:
        search: compiled.
        fit: Keras' own.
        looks: the search's own callback.
        channels: which channels of the user's search its network has, as JSON.
    """

    search: Any
    fit: Callable[..., Any]
    looks: keras.callbacks.Callback
    channels: Any = None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a run in one piece has found. To Keras it is no part of the search, whose variables it would swell.

    Attributes:
        structure: at the cut.
        model: of that structure, trained from the cut on.
    """

    structure: Structure
    model: keras.Model


def cut(search: keras.Model, seed: keras.Model, structure: Structure) -> keras.Model:
    """The network of a structure, as trained so far: weights, random states, and the optimizer's state where compiled.

    Args:
        search: its optimizer and the rest of what it is compiled with go on.
        seed: the network that was searched, with its weights.
        structure: of that seed.

    Raises:
        MorphError: the optimizer's state cannot be cut.
    """
    model, parts = narrowed(seed, structure)
    if search.compiled and getattr(search, "_compile_config", None) is not None:
        compile_alike(search, model, parts)
    return model


def compile_alike(search: keras.Model, model: keras.Model, parts: list[Part]) -> None:
    """Compiles a model as a search is, with what the search's optimizer knows about what is left.

    Args:
        search: compiled.
        model: of a part of its network.
        parts: what the variables of that network are parts of.

    Raises:
        MorphError: the optimizer's state cannot be cut.
    """
    with distribution_scope(model):
        optimizer = unused(users_optimizer(search.optimizer))
        # A LossScaleOptimizer is around the optimizer already, where there is to be one.
        model.compile(**{**search._compile_config.config, "optimizer": optimizer, "auto_scale_loss": False})
        if search.optimizer.built:
            model.optimizer.build(model.trainable_variables)
            hand_on(search.optimizer, model.optimizer, parts)


def narrowed(seed: keras.Model, structure: Structure) -> tuple[keras.Model, list[Part]]:
    """A network as by `inherit`, whose outputs are named as the seed's."""
    with distribution_scope(seed):
        model, parts = inherit(seed, structure)
    _take_names_of_outputs(model, seed)
    return model, parts


def _take_names_of_outputs(model: keras.Model, seed: keras.Model) -> None:
    """Losses and metrics may be given by the names of the seed's outputs, which a layer made anew need not have."""
    if isinstance(seed, keras.Sequential):
        return  # its one output has no name, to Keras as to the user
    names = list(seed.output_names)
    taken = {layer.name for layer in model.layers}
    for tensor, name in zip(model.outputs, names, strict=True):
        operation = tensor._keras_history.operation
        if name not in taken:
            operation.name = name
    model.output_names = names


def last_search_epoch(fraction: float, epochs: int) -> int:
    """How many epochs the search takes, the nearest whole number.

    Raises:
        MorphError: one of the parts has no whole epoch.
    """
    count = round(fraction * epochs)
    if not 0 < count < epochs:
        part = "the search" if count < 1 else "the network that it finds"
        raise MorphError(
            f"search_fraction={fraction:g} of epochs={epochs} leaves no whole epoch for {part}. Train for more "
            "epochs, or give another search_fraction."
        )
    return count


class OneRun:
    """A fit of a search and then of its network.

    Args:
        leg: the user's search.
        arguments: of `fit`, by name; `epochs` is the whole run's.
        cut_after: epochs of the search.
        make_cut: decides the structure and makes its network.
        narrow: takes the epochs that the search has left, and makes the leg to go on with where a narrower network is
            worth it; None where it is not.
        seen: what the search saw last, for the logs of the rest.
        checkpoints: where they lie, and what must be the same for a run to be continued; None for none.
        taught: while what it returns for the network is open, that network is trained; for a teacher, see `distill`.
    """

    def __init__(
        self,
        leg: Leg,
        arguments: Mapping[str, Any],
        cut_after: int,
        make_cut: Callable[[], Found],
        narrow: Callable[[int], Leg | None],
        seen: Callable[[], Mapping[str, float]],
        checkpoints: tuple[Storage, Mapping[str, Any]] | None,
        taught: Callable[[keras.Model], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._search, self._leg, self._arguments = leg.search, leg, dict(arguments)
        self._cut_after, self._make_cut, self._narrow, self._seen = cut_after, make_cut, narrow, seen
        self._taught = taught
        self._epochs = arguments.get("epochs", 1)
        self._verbose = arguments.get("verbose", "auto")
        self._storage, identity = checkpoints or (None, {})
        self._identity = {**identity, "epochs": self._epochs}
        self._saver: Saver | None = None
        self._model: Any = None
        self._begun, self._legs, self._restored = arguments.get("initial_epoch", 0), 0, False

    def train(self) -> keras.callbacks.History:
        """Trains both parts; Keras' History of all epochs, those of earlier processes included.

        Raises:
            MorphError: the optimizer's state cannot be cut; nothing was searched and no epoch is left for it; what
                checkpoints raise.
        """
        self._check_optimizer()
        over = self._take_up(self._leg.search, "epoch", self._identity, self._leg.search)
        users = callback_list(self._arguments.get("callbacks"))
        self._callbacks = _AsOne(users, self._saver, self._epochs, self._verbose)
        if self._begun >= self._cut_after and not over and not self._search.memory()["trajectory"]:
            raise MorphError(
                f"initial_epoch={self._begun} leaves no epoch for the search, which takes the first {self._cut_after} "
                f"of epochs={self._epochs} and has not seen any data yet. Begin earlier, or load the weights of a "
                "search that has come so far."
            )
        if self._begun:
            over = self._go_on_narrower() or over
        while self._begun < self._cut_after and not over:
            leg = self._leg
            stages = [leg.looks, self._callbacks, _AtEnds(self._at_end)]
            self._train_until(self._cut_after, leg.fit, stages)
            # Else a narrower one goes on; or a callback has stopped the run.
            over = self._model is None and self._leg is leg
        if self._model is None:
            self._cut(over)
        if not over:
            result: Any = self._model
            with self._taught(result):
                self._train_until(self._epochs, result.fit, [_Settled(self._seen()), self._callbacks])
        return self._history()

    def _check_optimizer(self) -> None:
        """Raises MorphError, before training, where the cut would."""
        optimizer = self._search.optimizer
        with distribution_scope(self._search):
            if not optimizer.built:
                optimizer.build(self._search.trainable_variables)
            check_sliceable(optimizer)
            unused(users_optimizer(optimizer))

    def _take_up(self, model: Any, series: str, identity: Mapping[str, Any], memory: Any = None) -> bool:
        """Save this model from now on, and take up what an earlier process has made of it; whether the run is over."""
        if self._storage is None:
            return False
        files = Files(self._storage, model, identity, memory, series)
        progress = files.restore()
        if self._saver is None:
            self._saver = Saver(files, progress)
        else:
            self._saver.turn_to(files, progress)
        if progress is None:
            return False
        self._begun, self._restored = max(self._begun, progress["epoch"]), bool(progress["log"]["epoch"])
        return progress["finished"]

    def _train_until(self, epochs: int, fit: Callable[..., Any], callbacks: list[keras.callbacks.Callback]) -> None:
        if self._restored and self._verbose:
            print(f"continuing after epoch {self._begun} of {self._epochs}", flush=True)
        self._restored = False
        ours = {"epochs": epochs, "initial_epoch": self._begun, "callbacks": callbacks, "verbose": 0}
        fit(**{**self._arguments, **ours})

    def _at_end(self, epoch: int) -> None:
        """This many epochs are over, and the run is not: callbacks are told of no end."""
        self._begun = epoch
        if epoch >= self._cut_after:
            self._cut(over=False)
            self._callbacks.go_over()
            return
        leg = self._leg
        self._go_on_narrower()
        if self._leg is not leg:
            leg.search.stop_training = True
            self._callbacks.go_over()

    def _go_on_narrower(self) -> bool:
        """Goes over to narrower networks as long as there is one to go on with; whether the run is over.

        There are several where an earlier process has left their checkpoints.
        """
        over = False
        while not over and self._begun <= self._cut_after:
            leg = self._narrow(self._cut_after - self._begun)
            if leg is None:
                return False
            self._leg, self._legs = leg, self._legs + 1
            if self._verbose:
                print(f"the search goes on with a narrower network: {self._left(leg.search.seed)}", flush=True)
            identity = {**self._identity, "channels": _digest(leg.channels)}
            over = self._take_up(leg.search, _LEGS.format(self._legs), identity, leg.search)
        return over

    def _cut(self, over: bool) -> None:
        """Makes the network, and takes up what an earlier process has made of it unless the run is over."""
        found = self._make_cut()
        self._model = found.model
        self._begun = max(self._begun, self._cut_after)
        if self._verbose:
            print(f"the network is cut: {self._left(self._model)}", flush=True)
        if not over:
            identity = {**self._identity, "structure": _digest(found.structure.groups)}
            if self._take_up(self._model, _SERIES, identity):
                self._begun = self._epochs

    def _left(self, model: keras.Model) -> str:
        return f"{model.count_params():,} of {self._search.seed.count_params():,} parameters are left"

    def _history(self) -> keras.callbacks.History:
        history = self._callbacks.history
        if self._saver is not None:
            history.epoch, history.history = self._saver.log["epoch"], self._saver.log["history"]
        self._search.history = self._model.history = history
        return history


def _digest(value: Any) -> str:
    """A hash of what JSON has."""
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class _AsOne(keras.callbacks.CallbackList):
    """The callbacks of a whole run, to which several calls of fit are one.

    Args:
        users: the user's.
        saver: comes after them and History, so that what they do at the end of an epoch is saved.
        epochs: of the whole run.
        verbose: of the whole run.

    Attributes:
        history: among the callbacks.
    """

    def __init__(self, users: list[keras.callbacks.Callback], saver: Saver | None, epochs: int, verbose: Any) -> None:
        self._whole = {"epochs": epochs, "verbose": verbose}
        self._has_begun, self._ends = False, True
        known = [callback for callback in users if isinstance(callback, keras.callbacks.History)]
        self.history = known[0] if known else keras.callbacks.History()
        # The user's come first, as in Keras: they add to the logs, such as the learning rate.
        added = [*([] if known else [self.history]), *([] if saver is None else [saver])]
        super().__init__([*users, *added], add_progbar=verbose != 0)

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if model is not None:
            model.history = self.history

    def set_params(self, params: Any) -> None:
        super().set_params({**params, **self._whole} if params else params)

    def go_over(self) -> None:
        """The fit that is running ends, and another one goes on."""
        self._ends = False

    def on_train_begin(self, logs: Any = None) -> None:
        if not self._has_begun:
            self._has_begun = True
            super().on_train_begin(logs)
            self._at_first = [
                (callback, {name: getattr(callback, name) for name in _COMPARISONS if hasattr(callback, name)})
                for callback in self.callbacks
                if isinstance(callback, _COMPARING)
            ]
            return
        for callback, values in self._at_first:
            for name, value in values.items():
                setattr(callback, name, value)

    def on_train_end(self, logs: Any = None) -> None:
        if self._ends:
            super().on_train_end(logs)
        self._ends = True


class _AtEnds(keras.callbacks.Callback):
    """Calls with the number of epochs that are over, at the end of each, unless training was stopped."""

    def __init__(self, action: Callable[[int], None]) -> None:
        super().__init__()
        self._action = action

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        model: Any = self.model
        if not model.stop_training:
            self._action(epoch + 1)


class _Settled(keras.callbacks.Callback):
    """Goes on logging what the search has ended with, so that all columns of History have all epochs."""

    def __init__(self, seen: Mapping[str, float]) -> None:
        super().__init__()
        self._seen = dict(seen)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs.update(self._seen)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs.update(self._seen)
