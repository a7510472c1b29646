"""What a killed run leaves behind, and who may clear it away: the next run, when no other one is using the place.

A kill that a process cannot answer (SIGKILL, a machine that goes down) leaves directories that were being filled,
executions that ML metadata takes for running, and checkpoints. Checkpoints are what the next run goes on from, so only
those are removed that nobody has touched for a month: of a configuration that was given up. That is done when a run has
ended, and has used its own. A lock on the pipeline root says whether another run is there; the system lets go of it
with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..account import Say
from ..config import PipelineConfig, is_uri

ABANDONED_AFTER_DAYS = 30
"""No epoch takes so long, and who comes back to a training after a month starts it anew."""

_LOCK = "_in_use"


class Place:
    """A pipeline root that this run holds, beside others that may hold it, too.

    Args:
        file: open, in the pipeline root.
    """

    def __init__(self, file: IO[str]):
        self._file = file
        self.share()

    def share(self) -> None:
        """Holds it, once nobody has it alone any more. Where the file system has no locks, nobody ever has."""
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Keeps other runs from starting while the block runs, if there are none; the block is told which it is."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        try:
            yield alone
        finally:
            self.share()


@contextlib.contextmanager
def in_use(pipeline_root: str) -> Iterator[Place]:
    """Holds a pipeline root, an existing directory, while the block runs."""
    with open(os.path.join(pipeline_root, _LOCK), "w", encoding="utf-8") as file:
        yield Place(file)


def clear_files(config: PipelineConfig, say: Say) -> None:
    """Removes unfinished directories, and says which. Only for who is alone there.

    Args:
        config: of the run that begins.
        say: receives a line for each of them.
    """
    root = Path(config.pipeline_root)
    unfinished = [
        path for path in root.glob("*/*/*.unfinished-*") if re.search(r"\.unfinished-[0-9a-f]{8}$", path.name)
    ]
    _remove(unfinished, "that was being filled when a run was killed", say)


def clear_checkpoints(config: PipelineConfig, say: Say) -> None:
    """Removes abandoned checkpoints, and says which. Only for who is alone there.

    Args:
        config: of a run that has come to its end. Had it begun with this, a clock that had jumped ahead would have cost
            it its own checkpoints; by now it has gone on from them.
        say: receives a line for each of them.
    """
    root = Path(config.pipeline_root)
    bases = [path for path in root.glob("*/checkpoints") if path.is_dir()]
    if config.checkpoint_dir is not None and not is_uri(config.checkpoint_dir):
        bases.append(Path(config.checkpoint_dir))
    checkpoints = [path for base in bases if base.is_dir() for path in base.iterdir()]
    abandoned = [path for path in checkpoints if re.search(r"-[0-9a-f]{16}$", path.name) and _days_old(path)]
    _remove(abandoned, f"of a training that nobody went on with for {ABANDONED_AFTER_DAYS} days", say)


def clear_executions(config: PipelineConfig, say: Say) -> None:
    """Makes executions of these pipelines that ML metadata takes for running failed ones. Only for who is alone.

    Args:
        config: of the run that begins.
        say: receives a line when there are some.
    """
    if not Path(config.metadata).exists():
        return
    from ml_metadata.proto import metadata_store_pb2
    from tfx.dsl.compiler import constants
    from tfx.orchestration import metadata

    states = metadata_store_pb2.Execution
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
        store = handle.store
        stale = {}
        for pipeline in config.pipeline_names:
            context = store.get_context_by_type_and_name(constants.PIPELINE_CONTEXT_TYPE_NAME, pipeline)
            for execution in store.get_executions_by_context(context.id) if context is not None else ():
                if execution.last_known_state in (states.NEW, states.RUNNING):
                    stale[execution.id] = execution
        if not stale:
            return
        names = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
        for execution in stale.values():
            execution.last_known_state = states.FAILED
        store.put_executions(list(stale.values()))
    steps = ", ".join(sorted({names.get(execution.type_id, "?") for execution in stale.values()}))
    say(f"Cleared: a run was killed in {steps}, which ML metadata took for running; recorded as failed.")


def _days_old(path: Path) -> bool:
    """Whether nothing in a directory was written lately."""
    newest = max(entry.stat().st_mtime for entry in (path, *path.rglob("*")))
    return time.time() - newest > ABANDONED_AFTER_DAYS * 24 * 3600


def _remove(paths: list[Path], what: str, say: Say) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            say(f"Cleared: {path}, {what}.")
