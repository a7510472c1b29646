"""Beam's worker processes, watched from outside while a pipeline runs in this one."""

import os
import threading
from pathlib import Path

_INTERVAL = 0.1  # seconds; a worker lives for several, since it imports TFX


class Workers:
    """A thread that looks for workers of Beam's direct runner among this process's descendants, in Linux' /proc.

    Attributes:
        seen: their process ids.
    """

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Workers":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_INTERVAL):
            self.seen |= workers_of(os.getpid())


def workers_of(ancestor: int) -> set[int]:
    """The workers of Beam's direct runner among the descendants of a process, by their ids."""
    found = set()
    for process in _descendants(ancestor):
        # The interpreter, and not the shell that Beam starts it with.
        program, *arguments = _read(process, "cmdline").split(b"\0")
        if b"python" in program and b"apache_beam.runners.worker.sdk_worker_main" in arguments:
            found.add(process)
    return found


def _descendants(ancestor: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # "pid (name) state parent ...": the name may hold anything, brackets and blanks included.
            fields = _read(int(entry.name), "stat").rpartition(b")")[2].split()
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = {ancestor}
    while new := {process for process, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {ancestor}


def _read(process: int, name: str) -> bytes:
    """A file of a process; nothing when it has ended meanwhile."""
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
