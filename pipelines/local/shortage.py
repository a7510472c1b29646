"""What a machine can run out of in the middle of a run (disk, memory, processes that were killed), told in one message.

It shows up wherever something was just being written: as an OSError in our own code, as an error of TensorFlow's or of
sqlite's, or as text inside what Beam raises. So a whole chain of exceptions is looked through for the words of the
system, and the message says which place it is, what is free there, and that what is finished is kept.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from morph_core import MorphError

from ..config import PipelineConfig
from .places import directories, what_exists

_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|database or disk is full|File too large", re.IGNORECASE
)
# On a full disk sqlite rolls a transaction back by itself, and ML Metadata then has none to commit.
_ROLLED_BACK = re.compile(r"cannot commit - no transaction is active", re.IGNORECASE)
_LITTLE_BYTES = 1_000_000
_READ_ONLY = re.compile(r"Read-only file system|attempt to write a readonly database", re.IGNORECASE)
_MEMORY = re.compile(r"Cannot allocate memory|OOM when allocating|std::bad_alloc|MemoryError", re.IGNORECASE)
# Of Beam (workers.py), by the shell that starts a worker, or without it.
_KILLED = re.compile(r"Worker subprocess exited with return code (?:137|-9)\b")
_WORDS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
    errno.EROFS: "Read-only file system",
    errno.ENOMEM: "Cannot allocate memory",
}
_KEPT = "Finished steps, checkpoints and pushed models are kept: the same command goes on after them."


@contextlib.contextmanager
def shortages_told(config: PipelineConfig) -> Iterator[None]:
    """Makes one message of what the machine runs out of while the block runs.

    Args:
        config: of the run; its places are looked at.

    Raises:
        MorphError: the disk or the memory is full, or a place became read-only. Other exceptions stay as they are.
    """
    try:
        yield
    except MorphError:
        raise
    except Exception as error:
        message = shortage_in(error, {key: str(path) for key, path in directories(config).items()})
        if message is None:
            raise
        raise MorphError(message) from error


def shortage_in(error: BaseException, places: Mapping[str, str]) -> str | None:
    """What the machine ran out of, by an exception and those behind it; None where they tell of nothing like that.

    Args:
        error: as it was caught.
        places: directories that were written to, by the key of the configuration that names them.
    """
    told = [_said_by(link) for link in _chain(error)]
    text = "\n".join(told)
    found = _FULL.search(text) or (_ROLLED_BACK.search(text) if _least_free(places) < _LITTLE_BYTES else None)
    if found:
        return f"{_fullest(places, text)} ({found[0]}). Make room there, or name another place. {_KEPT}"
    if found := _READ_ONLY.search(text):
        return (
            f"Nothing can be written any more to {_named(places, text)} ({found[0]}). Mount it for writing, or name "
            f"another place. {_KEPT}"
        )
    if _KILLED.search(text):
        return (
            "A worker process of Beam was killed (signal 9), as the system does when memory runs out. Give beam fewer "
            f"workers, or end other programs. {_KEPT}"
        )
    if found := _MEMORY.search(text):
        return (
            f"The memory of this machine is used up ({found[0]}). Lower search.batch_size and retrain.batch_size, give "
            f"beam fewer workers, or end other programs. {_KEPT}"
        )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it was raised from or in the middle of."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop()
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [behind for behind in (link.__cause__, link.__context__) if behind is not None]


def _said_by(error: BaseException) -> str:
    """An exception's text, with the words of the system for the number of an OSError, and the name of a MemoryError."""
    number = error.errno if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {_WORDS.get(number or 0, '')} {error} {getattr(error, 'filename', None) or ''}"


def _fullest(places: Mapping[str, str], text: str) -> str:
    """Which disk is full and how much is left: that of the place in the text, or the one with the least room."""
    known = {**places, "temporary files": tempfile.gettempdir()}
    named = {key: place for key, place in known.items() if place in text} or known
    usages = {key: shutil.disk_usage(what_exists(Path(place).absolute())) for key, place in named.items()}
    key = min(usages, key=lambda key: usages[key].free)
    free, total = usages[key].free / 1e6, usages[key].total / 1e6
    return f"{key}: there is no room at {named[key]}, with {free:.1f} MB of {total:.1f} MB free now"


def _least_free(places: Mapping[str, str]) -> int:
    """The bytes that are left where the least is left."""
    return min(shutil.disk_usage(what_exists(Path(place).absolute())).free for place in places.values())


def _named(places: Mapping[str, str], text: str) -> str:
    named = {key: place for key, place in places.items() if place in text} or places
    return ", ".join(f"{place} ({key})" for key, place in named.items())
