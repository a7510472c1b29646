"""One run of a pipeline at a time in a pipeline root: who comes second is told who is there.

Two runs of one pipeline would do the same work, go on from each other's checkpoints and each write over what the other
says of itself. Different pipelines may share a pipeline root, a metadata store and a place to push to: ML metadata
gives their artifacts different numbers, and a push takes a number that nobody has. The lock is the system's (`flock`),
which lets go of it with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from morph_core import MorphError


@contextlib.contextmanager
def only_run(pipeline: str, pipeline_root: str) -> Iterator[None]:
    """Holds a pipeline while the block runs. Where the file system has no locks, everybody does.

    Args:
        pipeline: its name.
        pipeline_root: an existing directory.

    Raises:
        MorphError: another process holds it; which one, and since when, is said.
    """
    path = Path(pipeline_root) / "_running" / pipeline
    path.parent.mkdir(exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        if _is_taken(file):
            file.seek(0)
            holder = file.read() or "a process that has just started"
            raise MorphError(
                f"Another run of {pipeline} is using {pipeline_root}: {holder}. Both would do the same work and write "
                "to the same places. Wait until it has ended, or end it; then start again, and what it has finished "
                "comes from the cache. To run both, give one of them another name (name: in its configuration)."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {_now()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _is_taken(file: IO[str]) -> bool:
    """Whether another process holds the file's lock; if not, this one does from here on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    return False


def _now() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
