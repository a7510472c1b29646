"""Checkpoints of a training run: a file after each epoch, from which the same call of `fit` goes on after a kill.

A file holds everything that the next epoch depends on: the variables of the model and of its optimizer, the state of
random layers and gates included, and a few words in JSON: which run it belongs to, how far it is, what was logged, what
a search knows beside its variables. It is written under another name and renamed when it is whole, the one before it is
kept, and reading checks every byte (a ZIP of NumPy arrays, each with its checksum; nothing in it is ever executed). So
a process may die at any time, and what is lost is the epoch it was in.

What Keras' BackupAndRestore does otherwise, and why it was not enough, is in docs/decisions.md.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import math
import os
import shutil
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import keras
import numpy as np

from ..arrays import as_numpy
from ..errors import MorphError

_FORMAT = 1
_META = "meta"
_UNFINISHED = ".unfinished"
# The newest, and one more in case a disk has spoiled it.
_KEPT = 2


class Storage(Protocol):
    """Where checkpoints lie. A file of that name appears whole, with one step, or not at all."""

    def names(self) -> list[str]:
        """All whole files."""
        ...

    def writing(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A file to fill; it takes its name when the block ends without an exception."""
        ...

    def reading(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A file to read, at any position."""
        ...

    def remove(self, name: str) -> None:
        """Takes a file away."""
        ...


class Directory:
    """Checkpoints in a directory of this machine, which is made when the first one is written.

    Args:
        path: used by one run at a time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def __str__(self) -> str:
        return str(self._path)

    def names(self) -> list[str]:
        if not self._path.is_dir():
            return []
        return [path.name for path in self._path.iterdir() if not path.name.endswith(_UNFINISHED)]

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        self._path.mkdir(parents=True, exist_ok=True)
        for path in self._path.glob(f"*{_UNFINISHED}"):  # of a process that died
            path.unlink(missing_ok=True)
        unfinished = self._path / f"{name}.{uuid.uuid4().hex[:8]}{_UNFINISHED}"
        try:
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path / name)
        finally:
            unfinished.unlink(missing_ok=True)
        if os.name == "posix":  # the new name must survive a power cut, too
            handle = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        with (self._path / name).open("rb") as file:
            yield file

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class Memory(Protocol):
    """What a model knows beside its variables, as JSON."""

    def memory(self) -> dict[str, Any]: ...

    def remember(self, memory: Mapping[str, Any]) -> None: ...


def fit_with_checkpoints(
    model: keras.Model,
    arguments: Mapping[str, Any],
    checkpoint: str | os.PathLike[str] | Storage,
    identity: Mapping[str, Any],
    fit: Callable[..., Any] | None = None,
    memory: Memory | None = None,
) -> Any:
    """Trains a compiled model, with a checkpoint after each epoch, and continues after the last one there is.

    The data are read from their beginning in the epoch that is continued with. Callbacks start anew.

    Args:
        model: compiled and built.
        arguments: of `fit`, by name; `epochs` is the whole run's.
        checkpoint: the directory, or another storage. Nobody else may use it; nothing there is deleted at the end.
        identity: what must be the same for a run to be continued, as JSON.
        fit: `model.fit` by default.
        memory: what the model knows beside its variables.

    Returns:
        Keras' History of all epochs, those of earlier processes included.

    Raises:
        MorphError: the checkpoints belong to another run, or all of them are damaged.
    """
    storage = storage_at(checkpoint)
    epochs = arguments.get("epochs", 1)
    with distribution_scope(model):
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    files = Files(storage, model, {**identity, "epochs": epochs}, memory)
    done, arguments = 0, dict(arguments)
    progress = files.restore()
    if progress is not None:
        done = epochs if progress["finished"] else progress["epoch"]
        arguments["initial_epoch"] = max(done, arguments.get("initial_epoch", 0))
        if arguments.get("verbose", "auto"):
            print(f"continuing after epoch {progress['epoch']} of {epochs}", flush=True)
    earlier = {"epoch": [], "history": {}} if progress is None else progress["log"]
    arguments["callbacks"] = [*callback_list(arguments.get("callbacks")), Saver(files, progress)]
    history = (fit or model.fit)(**arguments)
    history.epoch = [*earlier["epoch"], *history.epoch]
    names = dict.fromkeys([*earlier["history"], *history.history])
    history.history = {name: [*earlier["history"].get(name, []), *history.history.get(name, [])] for name in names}
    return history


def storage_at(checkpoint: str | os.PathLike[str] | Storage) -> Storage:
    """Where `checkpoint` lets checkpoints lie: a directory of that name, or the storage that it is."""
    return Directory(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint


def arguments_of_fit(fit: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `fit`, by name."""
    return dict(inspect.signature(fit).bind(*args, **kwargs).arguments)


def callback_list(callbacks: Any) -> list[Any]:
    """What `fit` takes as callbacks (one, several, a CallbackList, None), as a list."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return keras.tree.flatten(callbacks) if callbacks else []


def distribution_scope(model: Any) -> Any:
    """Where variables beside a model's are made: under the `tf.distribute` strategy it was built with, if any."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


class Saver(keras.callbacks.Callback):
    """The last of all callbacks, so that what others do at the end of an epoch is in the checkpoint.

    Args:
        files: where to.
        progress: what was restored from there.

    Attributes:
        log: the epochs that are over and what was logged, those of earlier processes included, as History has them.
    """

    def __init__(self, files: Files, progress: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.log: dict[str, Any] = {"epoch": [], "history": {}}
        self._epoch, self._finished = 0, False
        self.turn_to(files, progress)

    def turn_to(self, files: Files, progress: Mapping[str, Any] | None) -> None:
        """Save there from now on; the arguments are those of the constructor."""
        self._files = files
        if progress is not None:
            log = progress["log"]
            self.log = {
                "epoch": list(log["epoch"]),
                "history": {name: list(rows) for name, rows in log["history"].items()},
            }
            self._epoch, self._finished = progress["epoch"], progress["finished"]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self._epoch = epoch + 1
        self.log["epoch"].append(epoch)
        for name, value in logs.items():
            self.log["history"].setdefault(name, []).append(value)
        # A run that has diverged is not to be continued where it diverged.
        if math.isfinite(logs.get("loss", 0.0)):
            self._files.save({"epoch": epoch + 1, "finished": False, "log": self.log})

    def on_train_end(self, logs: dict | None = None) -> None:
        # Stopped early, best weights restored, averages taken over: that is where the same call is to end again.
        if not self._finished and math.isfinite((self.log["history"].get("loss") or [0.0])[-1]):
            self._files.save({"epoch": self._epoch, "finished": True, "log": self.log})


class Files:
    """The checkpoints of one model in one run.

    Args:
        storage: where they lie.
        model: whose variables they hold; compiled, and its optimizer built.
        identity: what they must agree with to be used, as JSON.
        memory: what else they hold.
        series: what their names begin with.
    """

    def __init__(
        self,
        storage: Storage,
        model: keras.Model,
        identity: Mapping[str, Any],
        memory: Memory | None = None,
        series: str = "epoch",
    ) -> None:
        self._storage = storage
        self._model = model
        self._identity = json.loads(json.dumps(dict(identity)))
        self._memory = memory
        self._series = series
        extended = getattr(getattr(model, "distribute_strategy", None), "extended", None)
        # Of several workers that train one model, one writes.
        self._writes = getattr(extended, "should_checkpoint", True)

    def save(self, progress: Mapping[str, Any]) -> None:
        """Writes a checkpoint, and takes those away that are not needed any more."""
        if not self._writes:
            return
        meta = {
            "format": _FORMAT,
            "identity": self._identity,
            "memory": None if self._memory is None else self._memory.memory(),
            **progress,
        }
        arrays = {name: _storable(as_numpy(variable)) for name, variable in self._variables().items()}
        name = f"{self._series}-{progress['epoch']:06}.npz"
        try:
            with self._storage.writing(name) as file:
                _write(file, {_META: np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8), **arrays})
        except OSError as error:
            size = sum(array.nbytes for array in arrays.values())
            raise MorphError(self._not_written(name, error, size)) from error
        for name in self._newest_first()[_KEPT:]:
            self._storage.remove(name)

    def _not_written(self, name: str, error: OSError, size: int) -> str:
        """The message about a checkpoint of so many bytes for which there was no room, or no permission."""
        place, room = str(self._storage), ""
        if error.errno == errno.ENOSPC and os.path.isdir(place):
            usage = shutil.disk_usage(place)
            room = f", with {usage.free / 1e6:.1f} MB of {usage.total / 1e6:.1f} MB free there"
        kept = self._newest_first()
        before = f"{kept[0]} is kept" if kept else "There is none before it"
        again = "goes on after it" if kept else "begins anew"
        return (
            f"The checkpoint {name} of {size / 1e6:.1f} MB cannot be written to {place} "
            f"({error.strerror or error}{room}). {before}: make room there, or permit writing, and start again, which "
            f"{again}."
        )

    def restore(self) -> dict[str, Any] | None:
        """Gives the model the state of the newest whole checkpoint; how far it was, or None when there is none."""
        names = self._newest_first()
        for name in names:
            try:
                with self._storage.reading(name) as file, np.load(file, allow_pickle=False) as entries:
                    meta = json.loads(entries[_META].tobytes())
                    self._check(name, meta)
                    arrays = {entry: entries[entry] for entry in entries.files if entry != _META}
            except MorphError:
                raise
            except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
                warnings.warn(
                    f"The checkpoint {name} in {self._storage} is damaged ({type(error).__name__}: {error}) and left "
                    "aside.",
                    stacklevel=4,
                )
                continue
            self._assign(name, arrays)
            if self._memory is not None:
                self._memory.remember(meta["memory"])
            return meta
        if names:
            raise MorphError(
                f"None of the checkpoints in {self._storage} can be read ({', '.join(names)}). Empty that place to "
                "start from the beginning, or bring the files back from a copy."
            )
        return None

    def _check(self, name: str, meta: Any) -> None:
        if meta["format"] != _FORMAT:
            raise MorphError(
                f"The checkpoint {name} in {self._storage} has format {meta['format']}; this version reads {_FORMAT}. "
                "Use the version of morph-tfx that wrote it, or another place to start from the beginning."
            )
        differing = [
            f"{what} is {_shown(self._identity.get(what))} here and {_shown(meta['identity'].get(what))} there"
            for what in dict.fromkeys([*self._identity, *meta["identity"]])
            if self._identity.get(what) != meta["identity"].get(what)
        ]
        if differing:
            raise MorphError(
                f"The checkpoint {name} in {self._storage} belongs to another run: {'; '.join(differing)}. Ask for the "
                "same again, or give this run a place of its own."
            )

    def _assign(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        variables = self._variables()
        shapes = {entry: tuple(variable.shape) for entry, variable in variables.items()}
        found = {entry: array.shape for entry, array in arrays.items()}
        if shapes != found:
            differing = next(entry for entry in [*shapes, *found] if shapes.get(entry) != found.get(entry))
            raise MorphError(
                f"The checkpoint {name} in {self._storage} does not fit this model and its optimizer: variable "
                f"{differing} has shape {found.get(differing)} there and {shapes.get(differing)} here. Compile with "
                "the same optimizer, or give this run a place of its own."
            )
        for entry, variable in variables.items():
            variable.assign(arrays[entry])

    def _variables(self) -> dict[str, Any]:
        """Every variable, by its rank: names are numbered differently from process to process."""
        model = {f"model_{rank:05}": variable for rank, variable in enumerate(self._model.variables)}
        return model | {
            f"optimizer_{rank:05}": variable for rank, variable in enumerate(self._model.optimizer.variables)
        }

    def _newest_first(self) -> list[str]:
        return sorted((name for name in self._storage.names() if name.startswith(f"{self._series}-")), reverse=True)


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes what `np.load` reads. On a full disk it leaves no archive open to complain later, as `np.savez` does."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def _storable(array: np.ndarray) -> np.ndarray:
    """The array in a type that NumPy knows; bfloat16 and float8, of other packages, are wholly contained in float32."""
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
