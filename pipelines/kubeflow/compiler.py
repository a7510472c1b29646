"""Compiles a pipeline to a job for Kubeflow Pipelines v2 (schema 2.1, YAML).

TFX's KubeflowV2DagRunner does the compiling; this module decides what differs on a cluster. Paths: the pods find the
data, the module files and the place to push to where the configuration's `kubeflow` section says. The baseline:
open-source Kubeflow cannot execute a Resolver, so a job has none. A retraining compares with the model that was pushed
last; after a search Evaluator compares with `kubeflow.baseline_model` when one is given, and otherwise checks the
absolute bound only. What each step needs from the cluster is added to the compiled job (`platform`). What a
reader would not expect is said when compiling. The same configuration gives the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from morph_core import MorphError

from ..account import Say, quieten
from ..config import KubeflowConfig, PipelineConfig, PipelineKind
from ..graph.module_files import check_functions, without_wheels
from . import job
from .notes import notes_on
from .parameters import declare, parameters_of

_LOOK_OUTSIDE = frozenset({"PushedStructure", "ImportedModel", "ImportedStructure"})
"""Components whose parameters stay the same when what they read changes."""


def compile_pipeline(
    config: PipelineConfig,
    output: str | os.PathLike[str],
    say: Say = print,
    verbose: bool = False,
    pipeline: PipelineKind = "morph",
) -> Path:
    """Writes the job that `kfp` can load, upload and run.

    Args:
        config: what `load_config` returned, with its `kubeflow` section.
        output: the file to write; its name ends in .yaml.
        say: receives what a reader of the job should know.
        verbose: lets TFX log.
        pipeline: "morph" searches for a structure; "retrain" trains the latest pushed one anew, on the newest data.

    Returns:
        The path of the file.

    Raises:
        MorphError: no `kubeflow` section, another file name, or kfp is not installed. Nothing is written then.
    """
    output = Path(output)
    if output.suffix not in (".yaml", ".yml"):
        raise MorphError(f"--output: expected a name that ends in .yaml, got {output}. Kubeflow's schema 2.1 is YAML.")
    kubeflow = config.kubeflow
    if kubeflow is None:
        raise MorphError(
            "kubeflow: missing from the configuration, and needed to compile: at least the image is expected. "
            "For example: kubeflow: {image: registry.example.com/morph-tfx:1}"
        )
    if os.path.exists(config.module_file) and os.path.exists(config.preprocessing_file):
        check_functions(config)
    if not verbose:
        quieten()
    say("Loading TFX ...")
    try:
        from kfp import components

        from ..graph.morph_pipeline import morph_pipeline
        from ..graph.retrain_pipeline import retrain_pipeline
        from .platform import apply_settings
    except ModuleNotFoundError as error:
        raise MorphError(
            f"Compiling for Kubeflow needs {error.name}, which is not installed. Install it with: "
            "pip install 'morph-tfx[tfx,kubeflow]'"
        ) from error
    if not verbose:
        quieten()
    on_cluster = _on_cluster(config, kubeflow)
    with without_wheels():
        if pipeline == "retrain":
            built = retrain_pipeline(on_cluster, resolve=False, baseline=kubeflow.baseline_model)
        else:
            built = morph_pipeline(on_cluster, baseline=kubeflow.baseline_model)
    spec = job.compiled(built, kubeflow.image)
    spec["defaultPipelineRoot"] = on_cluster.pipeline_root
    kinds = {node.id: type(node).__name__ for node in built.components}
    offered = parameters_of(on_cluster, pipeline)
    declare(spec, offered, kinds)
    platform = apply_settings(spec, config, kubeflow, kinds)
    job.adapt(spec, fresh=[name for name, kind in kinds.items() if kind in _LOOK_OUTSIDE])
    documents = [yaml.safe_dump(document, sort_keys=True, width=120) for document in (spec, platform) if document]
    notes = notes_on(config, kubeflow, pipeline, offered)
    text = _header(built.id, notes) + "---\n".join(documents)
    components.load_component_from_text(text)  # raises if the kfp SDK cannot read what we are about to hand out
    _write(output, text)
    tasks = spec["root"]["dag"]["tasks"]
    say(f"Wrote {output}: {len(tasks)} steps, image {kubeflow.image}.")
    for note in notes:
        say(f"  - {note}")
    return output


def _on_cluster(config: PipelineConfig, kubeflow: KubeflowConfig) -> PipelineConfig:
    """The configuration as the pods see it."""

    def in_image(file: str) -> str:
        return f"{kubeflow.module_dir.rstrip('/')}/{Path(file).name}"

    return config.model_copy(
        update={
            "pipeline_root": kubeflow.pipeline_root or f"minio://mlpipeline/v2/artifacts/{config.name}",
            "data": config.data.model_copy(update={"path": kubeflow.data_path or config.data.path}),
            "push_to": kubeflow.push_to or config.push_to,
            "checkpoint_dir": kubeflow.checkpoint_dir,
            "retrain_pipeline": config.retrain_pipeline.model_copy(
                update={"structure": kubeflow.structure or config.retrain_pipeline.structure}
            ),
            **({} if kubeflow.beam is None else {"beam": kubeflow.beam, "beam_args": ()}),
            "module_file": in_image(config.module_file),
            "transform_module_file": in_image(config.preprocessing_file),
        }
    )


def _header(name: str, notes: Sequence[str]) -> str:
    lines = [f"Kubeflow Pipelines v2 job '{name}', written by 'morph-tfx compile'. Do not edit: compile again.", *notes]
    return "".join(f"# {line}\n" for line in lines)


def _write(output: Path, text: str) -> None:
    """Writes all or nothing."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise MorphError(
            f"--output: {output} cannot be written ({error.strerror or error}). Give a file in a directory that you "
            "may write to."
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, output)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
