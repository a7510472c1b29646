"""The retrain pipeline: the structure that is in production -> retrain on the newest data -> evaluate -> push.

Searching for a structure is rare, retraining it is routine. This pipeline searches for nothing: it takes the structure
of the model that was pushed last, trains it from scratch on the newest examples, and pushes the result only when it is
within the bound and not worse than the latest blessed model on those same examples. New examples are validated against
the schema that the pushed model was trained with. It shares configuration, module file, metadata store and place to
push to with the morph pipeline, and has its own name.

Where the latest pushed structure comes from depends on the runner. With ML metadata a Resolver follows the lineage
(`pushed`). Kubeflow Pipelines can execute no Resolver: there the component PushedStructure reads it out of the newest
model below `push_to`, when the job runs and not when it is compiled. A structure named in the configuration is
imported, on Kubeflow read by a step, and the schema is then inferred.

A night without anything new is left out: locally before the pipeline is built, on Kubeflow by a condition on what
PushedStructure says, under which all other steps stand.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import Any

from tfx import types
from tfx import v1 as tfx
from tfx.types import standard_artifacts

from morph_tfx.components import ImportedStructure, MorphStructure, PushedStructure, Retrainer

from ..config import PipelineConfig
from ..config.location import only_the_launcher_reads
from . import stages
from .pushed import LatestPushedStructure


def retrain_pipeline(
    config: PipelineConfig,
    *,
    resolve: bool = True,
    baseline: str | None = None,
) -> tfx.dsl.Pipeline:
    """Builds the retrain pipeline of a configuration.

    Args:
        config: what `load_config` returned.
        resolve: whether the runner can look things up in ML metadata, as LocalDagRunner does; Kubeflow cannot.
        baseline: without `resolve` and with an imported structure: path or address of the model to compare with.
            A structure that was looked up is compared with the model that it was found in.

    Returns:
        The pipeline, for any TFX runner; `run_pipeline` runs it here, `compile_pipeline` makes a job of it.
    """
    source = _source(config, resolve)
    with source.condition:
        data = stages.prepare(config, source.schema)
        retrainer = Retrainer(**data.arguments, structure=source.structure, **stages.training(config, config.retrain))
        judged = stages.evaluate_and_push(
            config,
            data,
            retrainer.outputs["model"],
            stages.LATEST_BLESSED if resolve else source.pushed_model or baseline,
        )
    return stages.assemble(config, config.retrain_pipeline_name, [source.node, *data.nodes, retrainer, *judged])


@dataclass(frozen=True)
class _Source:
    """Where the structure comes from.

    Attributes:
        node: that finds it.
        structure: channel of the structure.
        schema: channel of the schema that it was trained with, if that is known.
        pushed_model: channel of the model that it was found in, if it was.
        condition: a context for the steps that are left out without news.
    """

    node: Any
    structure: types.BaseChannel
    schema: types.BaseChannel | None = None
    pushed_model: types.BaseChannel | None = None
    condition: contextlib.AbstractContextManager[Any] = field(default_factory=contextlib.nullcontext)


def _source(config: PipelineConfig, resolve: bool) -> _Source:
    named = config.retrain_pipeline.structure
    if named is not None:
        directory = _artifact_directory(named)
        if resolve:
            source = tfx.dsl.Importer(source_uri=directory, artifact_type=MorphStructure)
        else:
            place = directory if only_the_launcher_reads(named) else named
            source = stages.read_or_imported(place, ImportedStructure, MorphStructure)
        source = source.with_id("Structure")
        return _Source(source, source.outputs["result"])
    if resolve:
        resolver = tfx.dsl.Resolver(
            strategy_class=LatestPushedStructure,
            config={"pipelines": list(config.pipeline_names)},
            structure=tfx.dsl.Channel(type=MorphStructure),
            schema=tfx.dsl.Channel(type=standard_artifacts.Schema),
            pushed_model=tfx.dsl.Channel(type=standard_artifacts.PushedModel),
        ).with_id("PushedStructure")
        return _Source(resolver, resolver.outputs["structure"], resolver.outputs["schema"])
    news = _judged_by(config) if config.data.has_spans else {}
    pushed = PushedStructure(push_to=config.push_to, **news)
    structure = pushed.outputs["structure"]
    found = (pushed, structure, pushed.outputs["schema"], pushed.outputs["model"])
    if not news:
        return _Source(*found)
    return _Source(*found, tfx.dsl.Cond(structure.future()[0].custom_property("has_news") == 1))


def _judged_by(config: PipelineConfig) -> dict[str, Any]:
    """What PushedStructure is told, to see whether there is anything to train: the data, and Retrainer's arguments."""
    return {
        **stages.source_of(config.data),
        "module_file": config.module_file,
        "custom_config": stages.training(config, config.retrain)["custom_config"],
        "settings": config.model_dump(mode="json", include={"data", "label", "retrain", "evaluate", "export"}),
    }


def _artifact_directory(structure: str) -> str:
    """A MorphStructure artifact is the directory; people name the file in it as well."""
    return os.path.dirname(structure) if os.path.basename(structure) == "structure.json" else structure
