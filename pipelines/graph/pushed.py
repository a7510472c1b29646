"""Which structure is retrained: that of the model that was pushed last, found by its lineage in ML metadata.

    PushedModel <- Pusher <- ModelBlessing -> Model <- Retrainer <- MorphStructure
                                                                 <- TransformGraph <- Transform <- Schema

A MorphTrainer that trains to the end makes the structure beside the model, from the same TransformGraph.
The way leads over the blessing, which names the model that was trained: where several budgets are compared, what is
pushed is a copy. The schema comes along, so that new examples are validated against what the model in production was
made for and not against whatever they look like themselves. A pushed model of another trainer is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx
from tfx.orchestration import metadata
from tfx.types import standard_artifacts

from morph_core import MorphError
from morph_tfx.components import MorphStructure

from ..config import PipelineConfig
from .lineage import artifacts_of, made_from, made_with


def check_pushed(config: PipelineConfig) -> None:
    """Looks for something to retrain before anything runs: TFX tells of a Resolver's failure in its log only.

    Raises:
        MorphError: no model with a structure was pushed.
    """
    found = None
    if os.path.exists(config.metadata):
        with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
            found = latest_pushed(handle.store, config.pipeline_names)
    if found is None:
        raise MorphError(
            f"There is nothing to retrain: according to {config.metadata}, no run of "
            f"{' or '.join(config.pipeline_names)} has pushed a model to {config.push_to} yet. Run the morph pipeline "
            "first (morph-tfx run --config FILE), or name a structure: retrain_pipeline: {structure: PATH}."
        )


def pushed_models(
    store: mlmd.MetadataStore, pipelines: Iterable[str]
) -> Iterator[tuple[standard_artifacts.PushedModel, standard_artifacts.Model]]:
    """What these pipelines have pushed, the latest first, and the blessed model that each is."""
    models = {model.id: model for model in artifacts_of(store, pipelines, standard_artifacts.Model)}
    for pushed in artifacts_of(store, pipelines, standard_artifacts.PushedModel):
        blessing = made_from(store, pushed, "model_blessing", standard_artifacts.ModelBlessing)
        if pushed.get_int_custom_property("pushed") == 1 and blessing is not None:
            model = models.get(blessing.get_int_custom_property("current_model_id"))
            if model is not None:
                yield pushed, model


def latest_pushed(store: mlmd.MetadataStore, pipelines: Iterable[str]) -> dict[str, list[types.Artifact]] | None:
    """The latest `pushed_model` of these pipelines that has a structure, its `structure` and `schema`."""
    for pushed, model in pushed_models(store, pipelines):
        structure = made_from(store, model, "structure", MorphStructure) or made_with(
            store, model, "structure", MorphStructure
        )
        schema = _schema_of(store, model)
        if structure and schema:
            return {"structure": [structure], "schema": [schema], "pushed_model": [pushed]}
    return None


class LatestPushedStructure(tfx.dsl.experimental.ResolverStrategy):
    """Resolves `structure`, `schema` and `pushed_model` to those of the latest pushed model that has a structure.

    Args:
        pipelines: names of the pipelines whose pushes count.
    """

    def __init__(self, pipelines: list[str]):
        self._pipelines = pipelines

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        return latest_pushed(store, self._pipelines)


def _schema_of(store: mlmd.MetadataStore, model: types.Artifact) -> types.Artifact | None:
    """The schema that the raw examples of a model were parsed by."""
    graph = made_from(store, model, "transform_graph", standard_artifacts.TransformGraph)
    return made_from(store, graph or model, "schema", standard_artifacts.Schema)
