"""What ML metadata knows about the models of some pipelines: which there are, and what each was made from.

TFX's channels see the artifacts of their own pipeline only. The two pipelines of a configuration share a metadata store
but not a name, so what one of them looks for may have been made by the other: these questions go to the store itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.orchestration.portable.mlmd import event_lib
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

A = TypeVar("A", bound=Artifact)


def artifacts_of(store: mlmd.MetadataStore, pipelines: Iterable[str], kind: type[A]) -> list[A]:
    """The live artifacts of one kind that the runs of these pipelines made or looked up, the latest first."""
    found: dict[int, Any] = {}
    for pipeline in pipelines:
        context = store.get_context_by_type_and_name(constants.PIPELINE_CONTEXT_TYPE_NAME, pipeline)
        if context is not None:
            found.update((artifact.id, artifact) for artifact in store.get_artifacts_by_context(context.id))
    live = [
        artifact
        for artifact in found.values()
        if artifact.type == kind.TYPE_NAME and artifact.state == metadata_store_pb2.Artifact.LIVE
    ]
    return sorted(_deserialized(store, live, kind), key=lambda artifact: artifact.id, reverse=True)


def made_from(store: mlmd.MetadataStore, artifact: Artifact, key: str, kind: type[A]) -> A | None:
    """The artifact that the step which made `artifact` received as its input `key`, or None when it had none.

    Args:
        store: ML metadata.
        artifact: from that store.
        key: name of the input, such as "structure" of a Retrainer.
        kind: of the input. What has this name but is of another kind does not count.
    """
    return _beside(store, artifact, metadata_store_pb2.Event.INPUT, key, kind)


def made_with(store: mlmd.MetadataStore, artifact: Artifact, key: str, kind: type[A]) -> A | None:
    """The artifact that the step which made `artifact` made as its output `key`, or None when it has none.

    Args:
        store: ML metadata.
        artifact: from that store.
        key: name of the output, such as "structure" of a MorphTrainer.
        kind: of the output. What has this name but is of another kind does not count.
    """
    return _beside(store, artifact, metadata_store_pb2.Event.OUTPUT, key, kind)


def _beside(store: mlmd.MetadataStore, artifact: Artifact, event_type: int, key: str, kind: type[A]) -> A | None:
    """An input or output of the step that made an artifact."""
    makers = [
        event.execution_id
        for event in store.get_events_by_artifact_ids([artifact.id])
        if event.type == metadata_store_pb2.Event.OUTPUT  # a Resolver's outputs are INTERNAL_OUTPUT
    ]
    if not makers:
        return None
    # Later executions took the artifact from the cache.
    events = store.get_events_by_execution_ids([min(makers)])
    by_key = event_lib.reconstruct_artifact_id_multimap([event for event in events if event.type == event_type])
    found = store.get_artifacts_by_id(list(by_key.get(key, ())))
    return next(iter(_deserialized(store, [one for one in found if one.type == kind.TYPE_NAME], kind)), None)


def _deserialized(store: mlmd.MetadataStore, artifacts: list[Any], kind: type[A]) -> list[A]:
    if not artifacts:
        return []
    return artifact_utils.deserialize_artifacts(store.get_artifact_type(kind.TYPE_NAME), artifacts)  # type: ignore
