"""What older runs left and nobody needs any more, removed after a run where the configuration says `keep`.

Whole runs stay, with everything that their steps made, took from the cache or looked up, so that what stays can be
rolled back to, compared with, and served from the cache:

    the last `keep` runs of each pipeline of the configuration
    the runs that made the last `keep` pushed models that are still there

Everything else that these pipelines made below their pipeline root goes, and with a push its version. ML metadata goes
first: an artifact is marked for deletion, removed, and recorded as deleted, so at no moment a half-removed one counts
as live, and what a kill interrupts the next run ends. Links and other people's directories are left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..account import Say
from ..config import PipelineConfig, is_uri

_PUSHED_MODEL = "PushedModel"
_NUMBERED = re.compile(r"[^_.][^/]*/[^_.][^/]*/\d+")  # step, output, execution: how TFX names what a step makes


def remove_old(config: PipelineConfig, say: Say) -> None:
    """Removes what is older than `keep` says, and says what. Only for who is alone in the pipeline root.

    Args:
        config: of the run that ends.
        say: receives a line on what was removed, and one on each directory that could not be.
    """
    if config.keep is None or not Path(config.metadata).exists():
        return
    from tfx.orchestration import metadata

    with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
        _Remover(handle.store, config, say).remove(config.keep)


class _Remover:
    """One look at what is there.

    Args:
        store: ML metadata.
        config: of the pipelines.
        say: receives what happens, line by line.
    """

    def __init__(self, store: Any, config: PipelineConfig, say: Say):
        from ml_metadata.proto import metadata_store_pb2
        from tfx.dsl.compiler import constants

        self._store, self._say = store, say
        self._states, self._events = metadata_store_pb2.Artifact, metadata_store_pb2.Event
        self._run = constants.PIPELINE_RUN_CONTEXT_TYPE_NAME
        self._root = Path(config.pipeline_root)
        self._push_to = None if is_uri(config.push_to) else Path(config.push_to)
        found = (
            store.get_context_by_type_and_name(constants.PIPELINE_CONTEXT_TYPE_NAME, name)
            for name in config.pipeline_names
        )
        pipelines = [context.id for context in found if context is not None]
        self._executions = [{one.id for one in store.get_executions_by_context(pipeline)} for pipeline in pipelines]
        there = (self._states.LIVE, self._states.MARKED_FOR_DELETION)
        self._artifacts = {
            artifact.id: artifact
            for pipeline in pipelines
            for artifact in store.get_artifacts_by_context(pipeline)
            if artifact.state in there
        }

    def remove(self, keep: int) -> None:
        """Removes what the last `keep` runs and pushes do not need."""
        needed = self._needed(keep)
        # What somebody else's pipeline has used is not ours alone.
        old = self._not_used_elsewhere([number for number in sorted(self._ours()) if number not in needed])
        if not old:
            return
        self._record(old, self._states.MARKED_FOR_DELETION)
        removed, versions = [], []
        for artifact in old:
            try:
                versions += self._remove_version(artifact)
                _remove(artifact.uri)
            except OSError as error:
                self._say(f"Note: {error.filename} could not be removed ({error.strerror}); the next run tries again.")
            else:
                removed.append(artifact)
        self._record(removed, self._states.DELETED)
        pushed = f", and the pushed models {', '.join(versions)}" if versions else ""
        self._say(f"Removed, with keep: {keep}: {len(removed)} artifacts of older runs{pushed}.")

    def _needed(self, keep: int) -> set[int]:
        """The artifacts of the runs that stay."""
        executions: set[int] = set()
        for pipeline in self._executions:
            executions |= self._of_last_runs(pipeline, keep)
        executions |= self._with_their_runs(self._makers(self._last_pushes(keep)))
        return {event.artifact_id for event in self._events_of(executions)}

    def _of_last_runs(self, executions: set[int], keep: int) -> set[int]:
        """The executions of a pipeline's last runs."""
        found: set[int] = set()
        runs = 0
        for execution in sorted(executions, reverse=True):
            if execution in found:
                continue
            if runs == keep:
                break
            runs += 1
            found |= self._with_their_runs([execution])
        return found

    def _with_their_runs(self, executions: Iterable[int]) -> set[int]:
        """These executions, and all others of the same runs."""
        found = set(executions)
        for execution in tuple(found):
            for context in self._store.get_contexts_by_execution(execution):
                if context.type == self._run:
                    found |= {one.id for one in self._store.get_executions_by_context(context.id)}
        return found

    def _last_pushes(self, keep: int) -> list[int]:
        """The artifacts of the last pushes of each place that models are pushed to, if they are still there."""
        by_place: dict[str, list[int]] = {}
        for artifact in sorted(self._artifacts.values(), key=lambda artifact: artifact.id, reverse=True):
            version = _pushed_to(artifact)
            if version is not None and (is_uri(version) or os.path.isdir(version)):
                by_place.setdefault(os.path.dirname(version), []).append(artifact.id)
        return [artifact for pushes in by_place.values() for artifact in pushes[:keep]]

    def _makers(self, artifacts: list[int]) -> Iterator[int]:
        """The executions that made artifacts; later ones took them from the cache."""
        makers: dict[int, list[int]] = {}
        for event in self._store.get_events_by_artifact_ids(artifacts) if artifacts else ():
            if event.type == self._events.OUTPUT:
                makers.setdefault(event.artifact_id, []).append(event.execution_id)
        return (min(executions) for executions in makers.values())

    def _ours(self) -> Iterator[int]:
        """The artifacts that a step made in its own directory below the pipeline root."""
        for artifact in self._artifacts.values():
            relative = os.path.relpath(artifact.uri, self._root) if not is_uri(artifact.uri) else ""
            steps = [self._root.joinpath(*Path(relative).parts[:depth]) for depth in (1, 2, 3)]
            if _NUMBERED.fullmatch(relative) and not any(step.is_symlink() for step in steps):
                yield artifact.id

    def _not_used_elsewhere(self, artifacts: list[int]) -> list[Any]:
        own = set().union(*self._executions)
        events = self._store.get_events_by_artifact_ids(artifacts) if artifacts else ()
        used = {event.artifact_id for event in events if event.execution_id not in own}
        return [self._artifacts[number] for number in artifacts if number not in used]

    def _events_of(self, executions: set[int]) -> Iterable[Any]:
        return self._store.get_events_by_execution_ids(sorted(executions)) if executions else ()

    def _record(self, artifacts: list[Any], state: int) -> None:
        for artifact in artifacts:
            artifact.state = state
        self._store.put_artifacts(artifacts)

    def _remove_version(self, artifact: Any) -> list[str]:
        """Removes what was pushed, if it is where models are pushed to; its number, or nothing."""
        version = _pushed_to(artifact)
        if version is None or self._push_to is None or is_uri(version):
            return []
        directory = Path(version)
        ours = directory.parent == self._push_to and directory.name.isdecimal()
        if not ours or directory.is_symlink() or not directory.is_dir():
            return []
        # A server sees all of it or nothing; what a kill leaves of such a name, Pusher clears.
        unfinished = directory.with_name(f"unfinished-{uuid.uuid4().hex[:8]}")
        directory.rename(unfinished)
        shutil.rmtree(unfinished)
        return [directory.name]


def _pushed_to(artifact: Any) -> str | None:
    """The directory of the version that an artifact says was pushed."""
    properties = artifact.custom_properties
    if artifact.type != _PUSHED_MODEL or "pushed_destination" not in properties:
        return None
    return properties["pushed_destination"].string_value


def _remove(uri: str) -> None:
    """Removes what an execution made as one of its outputs, and what TFX noted of the execution."""
    directory = Path(uri)
    noted = directory.parents[1] / ".system" / "executor_execution" / directory.name
    for path in (directory, noted):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
