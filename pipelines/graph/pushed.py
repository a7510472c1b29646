"""Which structure is retrained: that of the model that was pushed last, found by its lineage in ML metadata.

    PushedModel <- Pusher <- ModelBlessing -> Model <- Retrainer <- MorphStructure
                                                                 <- TransformGraph <- Transform <- Schema

A MorphTrainer that trains to the end makes the structure beside the model, from the same TransformGraph.
The way leads over the blessing, which names the model that was trained: where several budgets are compared, what is
pushed is a copy. The schema comes along, so that new examples are validated against what the model in production was
made for and not against whatever they look like themselves. A pushed model of another trainer is passed over.

Metadata says what was pushed once. Whether it is still there is asked of the place that it was pushed to: who deletes a
version there takes it back, and what was pushed before it counts again. What is there but damaged is passed over, too.
Both are said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import ml_metadata as mlmd
from google.protobuf import text_format
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.io import fileio
from tfx.orchestration import metadata
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from morph_core import MorphError
from morph_tfx.components import MorphStructure, StructureExporter
from morph_tfx.components.artifacts.saved_model import fault_of

from ..config import PipelineConfig
from .lineage import artifacts_of, made_from, made_with

Tell = Callable[[str], None]
"""Receives a sentence on each pushed model that is passed over."""


def check_pushed(config: PipelineConfig) -> None:
    """Looks for something to retrain before anything runs: TFX tells of a Resolver's failure in its log only.

    Raises:
        MorphError: no model with a structure was pushed.
    """
    found, gone = None, list[str]()
    if os.path.exists(config.metadata):
        with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
            found = latest_pushed(handle.store, config.pipeline_names, gone.append)
    if found is not None:
        return
    names = " or ".join(config.pipeline_names)
    if gone:
        raise MorphError(
            f"There is nothing to retrain: of what {names} pushed, nothing can be used. {' '.join(gone)} Restore one "
            "of them, run the morph pipeline under another name (name: in the configuration), which pushes anew, or "
            "name a structure: retrain_pipeline: {structure: PATH}."
        )
    raise MorphError(
        f"There is nothing to retrain: according to {config.metadata}, no run of {names} has pushed a model to "
        f"{config.push_to} yet. Run the morph pipeline first (morph-tfx run --config FILE), or name a structure: "
        "retrain_pipeline: {structure: PATH}."
    )


def pushed_models(
    store: mlmd.MetadataStore, pipelines: Iterable[str], tell: Tell
) -> Iterator[tuple[standard_artifacts.PushedModel, standard_artifacts.Model]]:
    """What these pipelines have pushed and what is still there, the latest first, and the blessed model that each is.

    Args:
        store: ML metadata.
        pipelines: names of the pipelines whose pushes count.
        tell: is told of each push that is not there any more or is damaged, while one is looked for.
    """
    models = {model.id: model for model in artifacts_of(store, pipelines, standard_artifacts.Model)}
    for pushed in artifacts_of(store, pipelines, standard_artifacts.PushedModel):
        blessing = made_from(store, pushed, "model_blessing", standard_artifacts.ModelBlessing)
        if pushed.get_int_custom_property("pushed") != 1 or blessing is None:
            continue
        model = models.get(blessing.get_int_custom_property("current_model_id"))
        if model is None:
            continue
        destination = pushed.get_string_custom_property("pushed_destination")
        fault = fault_of(destination)
        if fault is None:
            yield pushed, model
        else:
            tell(f"{destination} was pushed, and is passed over: {fault}.")


def latest_pushed(
    store: mlmd.MetadataStore, pipelines: Iterable[str], tell: Tell
) -> dict[str, list[types.Artifact]] | None:
    """The latest `pushed_model` of these pipelines that has a structure, its `structure` and `schema`."""
    for pushed, model in pushed_models(store, pipelines, tell):
        structure = made_from(store, model, "structure", MorphStructure) or made_with(
            store, model, "structure", MorphStructure
        )
        schema = _schema_of(store, model)
        if structure is None or schema is None:
            continue
        fault = _fault_of_structure(structure) or _fault_of_schema(schema)
        if fault is None:
            return {"structure": [structure], "schema": [schema], "pushed_model": [pushed]}
        destination = pushed.get_string_custom_property("pushed_destination")
        tell(f"{destination} was pushed, and is passed over, since what it was made from is damaged: {fault}")
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
        return latest_pushed(store, self._pipelines, print)


def _fault_of_structure(structure: types.Artifact) -> str | None:
    try:
        StructureExporter(structure).read()
    except MorphError as error:
        return str(error)
    return None


def _fault_of_schema(schema: types.Artifact) -> str | None:
    """What is wrong with a Schema artifact: it was deleted, or holds something else."""
    if not fileio.exists(schema.uri):
        return f"the schema in {schema.uri} is not there."
    try:
        found = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema.uri))
    except (OSError, RuntimeError, UnicodeDecodeError, text_format.ParseError) as error:
        return f"the schema in {schema.uri} cannot be read ({str(error).splitlines()[0]})."
    return None if found.feature else f"the schema in {schema.uri} names no feature."


def _schema_of(store: mlmd.MetadataStore, model: types.Artifact) -> types.Artifact | None:
    """The schema that the raw examples of a model were parsed by."""
    graph = made_from(store, model, "transform_graph", standard_artifacts.TransformGraph)
    return made_from(store, graph or model, "schema", standard_artifacts.Schema)
