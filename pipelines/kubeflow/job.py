"""What open-source Kubeflow Pipelines can run of what TFX compiles; the rest is refused by name, or changed.

TFX compiles for Vertex AI. `compiled` looks at a pipeline's nodes before TFX does, and has every executor run behind
our entrypoint (`entrypoint`). `adapt` changes the job that comes out: steps get the outputs that the user
interface shows (`views`), and ExampleGen is never served from Kubeflow's cache, whose key knows the name of a
directory but not the files in it (on Vertex a hook computes their fingerprint; here the hook is ignored). The
same holds for other steps that look at what changes outside of the job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from morph_core import MorphError

from ..config.location import LAUNCHER_ONLY
from . import entrypoint, views

COMMAND = ("python", "-m", entrypoint.__name__)
"""The container command of every step that runs a TFX executor."""

# Step names become names of tasks of an Argo workflow, which has no underscores or dots there.
_TASK_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
# What an importer takes: a bucket and something in it (`ParseProviderFromPath`, and `KeyFromURI` of the step after it).
_IMPORTABLE = re.compile(r"(gs|s3|minio)://[^/?]+/[^/?]")
_PATHS = {
    "input_base": "the data is read",
    "module_file": "the module file is read",
    "push_destination": "the model is pushed",
    "push_to": "pushed models are read",
}


def compiled(pipeline: Any, image: str) -> dict[str, Any]:
    """Has TFX compile a pipeline.

    Args:
        pipeline: any TFX pipeline.
        image: container image of the steps.

    Returns:
        The PipelineSpec, as parsed JSON, for `adapt`.

    Raises:
        MorphError: a node cannot run on open-source Kubeflow; it is named.
    """
    from tfx.orchestration.data_types import RuntimeParameter
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as runner

    _check(pipeline.components)
    root = pipeline.pipeline_info.pipeline_root
    if entrypoint.is_distributed(pipeline.beam_pipeline_args) and not root.startswith("gs://"):
        raise MorphError(
            f"Beam's workers run on other machines and cannot read the artifacts, which are at {root}: only Kubeflow's "
            "launcher can. Keep the pipeline's artifacts (kubeflow.pipeline_root) at a gs:// address, or let Beam run "
            "inside the steps (the direct runner)."
        )
    settings = runner.KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
    )
    spec = runner.KubeflowV2DagRunner(settings).run(pipeline, write_out=False)["pipelineSpec"]
    for node in pipeline.components:
        for value in node.exec_properties.values():
            if isinstance(value, RuntimeParameter) and value.default is not None:
                # TFX leaves the defaults to whoever starts the job.
                spec["root"]["inputDefinitions"]["parameters"][value.name]["defaultValue"] = value.default
    return spec


def _check(nodes: Iterable[Any]) -> None:
    """Refuses what open-source Kubeflow cannot run and TFX would compile, or fail at without saying which node."""
    from tfx import v1 as tfx
    from tfx.dsl.component.experimental.executor_specs import TemplatedExecutorContainerSpec
    from tfx.dsl.components.base.base_component import BaseComponent
    from tfx.dsl.components.base.executor_spec import ExecutorClassSpec

    for node in nodes:
        name, kind = node.id, type(node).__name__
        if isinstance(node, tfx.components.InfraValidator):
            raise MorphError(
                f"{name} (InfraValidator) cannot run on Kubeflow Pipelines v2: it would start a model server from "
                "inside a step, and TFX has no launcher for that there. Leave it out of the job; run it locally, or "
                "let the serving platform's own readiness check do its work."
            )
        if isinstance(node, tfx.dsl.Resolver):
            raise MorphError(
                f"{name} (Resolver) cannot run on open-source Kubeflow Pipelines, which looks nothing up in its "
                "metadata for a step. Name what it would find with an Importer (tfx.dsl.Importer(source_uri=...)) or a "
                "runtime parameter, or find it in a component of your own."
            )
        if isinstance(node, tfx.dsl.Importer):
            _check_importer(name, node.exec_properties.get("artifact_uri"))
        if not _TASK_NAME.fullmatch(name):
            raise MorphError(
                f"The step {name!r} has a name that Kubeflow's workflows do not take; expected letters, digits and "
                f"'-'. Give it another one: {kind}(...).with_id({re.sub('[^-a-zA-Z0-9]+', '-', name).strip('-')!r})."
            )
        if not isinstance(node, BaseComponent):
            continue
        spec = node.executor_spec
        if not isinstance(spec, (ExecutorClassSpec, TemplatedExecutorContainerSpec)):
            raise MorphError(
                f"{name} ({kind}) runs by {type(spec).__name__}, which cannot be compiled for Kubeflow; expected an "
                "executor class or a container. Run it locally, or give it an executor class."
            )
        if isinstance(spec, ExecutorClassSpec) and spec.executor_class.__module__ == "__main__":
            raise MorphError(
                f"The executor of {name} ({kind}) is defined in the script that compiles the job, where a container "
                "cannot find it. Move the component into a module that the image holds, and import it."
            )
        for key, what in _PATHS.items():
            value = node.exec_properties.get(key)
            if isinstance(value, str) and LAUNCHER_ONLY in value:  # Pusher's is JSON with the path inside
                raise MorphError(
                    f"{name}: {what} at a {LAUNCHER_ONLY} address, which TFX cannot open: only Kubeflow's launcher "
                    "can, and it copies artifacts alone. Give a gs:// address, or a path on a volume that the pods "
                    "mount."
                )


def _check_importer(name: str, uri: Any) -> None:
    """Refuses an address that Kubeflow's importer does, minutes into the run; a parameter has no value yet."""
    if isinstance(uri, str) and not _IMPORTABLE.match(uri):
        raise MorphError(
            f"{name} (Importer) names {uri}, and Kubeflow imports from object stores alone: expected an address below "
            "a bucket, gs://, s3:// or minio://BUCKET/KEY. What lies on a volume is read by a step that mounts it: "
            "ImportedModel(path=...) or ImportedStructure(path=...) of morph_tfx.components, or one of your own."
        )


def adapt(spec: dict[str, Any], fresh: Iterable[str] = ()) -> None:
    """Changes a job that TFX compiled, in place, to one that open-source Kubeflow runs.

    Args:
        spec: the PipelineSpec, as parsed JSON.
        fresh: components that are never served from the cache, besides ExampleGen.

    Raises:
        MorphError: a step depends on what this Kubeflow does not have.
    """
    executors = spec["deploymentSpec"]["executors"]
    uncached = set(fresh)
    for name, component in spec["components"].items():
        executor = executors[component["executorLabel"]]
        container = executor.get("container")
        if container is None or tuple(container.get("command", ())) != COMMAND:
            continue
        if container.pop("lifecycle", None) is not None:
            container["args"].insert(0, entrypoint.EXAMPLE_GEN_DRIVER)
            uncached.add(name)
        _add_views(component)
    tasks = spec["root"]["dag"]["tasks"]
    for name, task in tasks.items():
        component = task["componentRef"]["name"]
        if component in uncached:
            task["cachingOptions"] = {}
        if "importer" in executors[spec["components"][component]["executorLabel"]] and _condition(task):
            raise MorphError(
                f"{name} (Importer) stands in a Cond, which open-source Kubeflow does not allow for an importer. Move "
                "it out of the Cond; importing costs nothing."
            )
        _name_producers(task, tasks)


def _condition(task: Mapping[str, Any]) -> str:
    return task.get("triggerPolicy", {}).get("condition", "")


def _add_views(component: dict[str, Any]) -> None:
    outputs = component.get("outputDefinitions", {}).get("artifacts", {})
    for output, definition in list(outputs.items()):
        for view, kind in views.views_of(output, _title(definition["artifactType"])).items():
            if view in outputs:
                raise MorphError(
                    f"The output {view!r} has the name that this job uses for what Kubeflow shows of {output!r}. "
                    "Rename it."
                )
            outputs[view] = {"artifactType": {"schemaTitle": kind, "schemaVersion": "0.0.1"}}


def _title(artifact_type: Mapping[str, Any]) -> str:
    if "instanceSchema" in artifact_type:
        return (yaml.safe_load(artifact_type["instanceSchema"]) or {}).get("title", "")
    return artifact_type.get("schemaTitle", "")


def _name_producers(task: dict[str, Any], tasks: Mapping[str, Any]) -> None:
    """TFX names the producer of a parameter `X_task`, where it has named the task itself `X`."""
    for parameter in task.get("inputs", {}).get("parameters", {}).values():
        source = parameter.get("taskOutputParameter")
        if source is not None and source["producerTask"] not in tasks:
            source["producerTask"] = source["producerTask"].removesuffix("_task")
