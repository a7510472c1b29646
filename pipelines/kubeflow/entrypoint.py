"""What the container of every step of a compiled job runs: one TFX executor, behind Kubeflow's own launcher.

    python -m morph_tfx.pipelines.kubeflow.entrypoint --executor_class_path X --json_serialized_invocation_args '{{$}}'

TFX has an entrypoint too, which was written for Vertex AI. Open-source Kubeflow Pipelines starts its launcher in the
container, and the launcher starts this. Six things differ, and each has its function here:

- Artifacts have remote URIs (`minio://bucket/key`), but the launcher has copied the inputs to `/minio/bucket/key` and
  copies the outputs from there: executors see the local paths, and what is reported has the remote ones again.
- Inputs arrive without their types (the launcher does not know them); the step's own specification names them.
- There is an output that no executor knows, `executor-logs`, which the launcher itself fills.
- ExampleGen's driver (which span, and a fingerprint of the files) is not run by anybody else.
- A run may have been given other values than were compiled (`parameters`).
- What is reported goes to a strict reader: no NaN and no nulls.

After the executor, the outputs are filled that Kubeflow's user interface shows (`views`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from morph_core import MorphError

LAUNCHER_ROOT = "MORPH_TFX_LAUNCHER_ROOT"
"""Environment variable for tests only: a directory that takes the place of `/`, below which `/minio` and so on lie."""

# Where the launcher keeps local copies of what has a URI of this scheme.
_MOUNTS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}

EXAMPLE_GEN_DRIVER = "--run_example_gen_driver"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one step.

    Returns:
        The exit code: 0, or 1 after an error that the user can mend, which is printed without a traceback. Any other
        error is raised.
    """
    arguments, beam_args = _parse(argv)
    try:
        _run(arguments, beam_args)
    except MorphError as error:
        print(f"{arguments.executor_class_path} failed: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def local_path(uri: str) -> str:
    """Where the launcher keeps the local copy of an artifact; the same text when it keeps none."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return _root() + mount + uri.removeprefix(scheme)
    return uri


def remote_uri(path: str) -> str:
    """The inverse of `local_path`: what other steps and people know the path as."""
    for scheme, mount in _MOUNTS.items():
        if path.startswith(_root() + mount):
            return scheme + path.removeprefix(_root() + mount)
    return path


def is_distributed(beam_args: Sequence[str]) -> bool:
    """Whether Beam's workers run in other containers, which do not see this one's files."""
    runners = [argument.partition("=")[2] for argument in beam_args if argument.startswith("--runner=")]
    return bool(runners) and runners[-1] not in ("DirectRunner", "PrismRunner", "direct")


def _root() -> str:
    return os.environ.get(LAUNCHER_ROOT, "").rstrip("/")


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags are those of TFX's entrypoint, because TFX's compiler writes them; what is left is for Beam."""
    parser = argparse.ArgumentParser(prog="python -m morph_tfx.pipelines.kubeflow.entrypoint", allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True, help="such as package.module.Executor")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="Kubeflow's ExecutorInput")
    parser.add_argument("--json_serialized_inputs_spec_args", default="{}", help="types of the inputs")
    parser.add_argument(EXAMPLE_GEN_DRIVER, action="store_true", help="find the span before the executor runs")
    return parser.parse_known_args(argv)


def _run(arguments: argparse.Namespace, beam_args: list[str]) -> None:
    invocation = json.loads(arguments.json_serialized_invocation_args)
    inputs_spec = json.loads(arguments.json_serialized_inputs_spec_args)

    # TFX takes seconds to import, and a wrong flag should not.
    from absl import logging
    from tfx.components.evaluator.executor import Executor as Evaluator
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as kubeflow
    from tfx.orchestration.portable import outputs_utils
    from tfx.types import artifact_utils
    from tfx.utils import import_utils

    import morph_tfx.components  # noqa: F401  makes our artifact types known by the names that jobs give them

    from ..graph.workers import watch_workers
    from .parameters import lay_over
    from .views import source_of

    logging.set_verbosity(logging.INFO)
    executor_class = import_utils.import_class_by_path(arguments.executor_class_path)
    is_beam = issubclass(executor_class, BaseBeamExecutor)
    watch_workers()
    localize = local_path if not (is_beam and is_distributed(beam_args)) else _local_path_unless_gs
    shown = prepare(invocation, inputs_spec, localize)

    message, inputs_message = _messages(invocation, inputs_spec)
    names = {0: ""}  # by number; outputs have neither yet, and without this TFX warns of each
    inputs = kubeflow.parse_raw_artifact_dict(message.inputs.artifacts, names)
    outputs = kubeflow.parse_raw_artifact_dict(message.outputs.artifacts, names)
    properties = kubeflow.parse_execution_properties(message.inputs.parameter_values, {}, inputs_message)
    outputs_utils.make_output_dirs(outputs)
    lay_over(properties)
    if arguments.run_example_gen_driver:
        _run_example_gen_driver(properties, outputs)

    task = Path(message.outputs.output_file).parent
    context_arguments: dict[str, Any] = {"unique_id": task.name, "tmp_dir": str(task / ".temp")}
    context_arguments["beam_pipeline_args" if is_beam else "extra_flags"] = beam_args
    executor_class(executor_class.Context(**context_arguments)).Do(inputs, outputs, properties)

    outputs_utils.tag_output_artifacts_with_version(outputs)
    if issubclass(executor_class, Evaluator) and "blessing" in outputs:
        # MLMD's numbers for the models become the names that Kubeflow knows them by.
        kubeflow.refactor_model_blessing(artifact_utils.get_single_instance(outputs["blessing"]), names)
    for artifacts in outputs.values():
        for artifact in artifacts:
            _make_finite(artifact)
    reported = kubeflow.translate_executor_output(outputs, names)
    report = {
        "artifacts": {name: _as_reported(artifacts) for name, artifacts in reported.items()},
        "parameterValues": _parameters(message.outputs.parameters, outputs),
    }
    for name, view in shown.items():
        source = outputs[source_of(name)]
        report["artifacts"][name] = _shown(view, artifact_utils.get_single_instance(source))
    _write(Path(message.outputs.output_file), report)


def prepare(invocation: dict[str, Any], inputs_spec: Mapping[str, Any], localize: Any = local_path) -> dict[str, Any]:
    """Makes an ExecutorInput of the launcher one that TFX understands, in place.

    Args:
        invocation: the ExecutorInput, as parsed JSON.
        inputs_spec: the step's ComponentInputsSpec, as parsed JSON.
        localize: the function that maps URIs to what the executor sees.

    Returns:
        The outputs that TFX does not know and that are ours to fill, by name, as they were in the ExecutorInput. The
        launcher's own output (`executor-logs`) is dropped.
    """
    declared = inputs_spec.get("artifacts", {})
    for name, artifacts in invocation.get("inputs", {}).get("artifacts", {}).items():
        for artifact in artifacts.get("artifacts", []):
            artifact["uri"] = localize(artifact["uri"])
            if not _has_type(artifact) and name in declared:
                artifact["type"] = declared[name]["artifactType"]
    outputs = invocation.get("outputs", {}).get("artifacts", {})
    views = {}
    for name in list(outputs):
        [artifact] = outputs[name]["artifacts"]
        title = artifact.get("type", {}).get("schemaTitle", "")
        if title.startswith("system."):
            del outputs[name]
            if title != "system.Artifact":
                views[name] = artifact
        else:
            artifact["uri"] = localize(artifact["uri"])
    return views


def _has_type(artifact: Mapping[str, Any]) -> bool:
    """Whether an input says what it is. Behind some launchers the type is empty, `system.Artifact` or `Artifact`."""
    kind = artifact.get("type", {})
    title = kind.get("schemaTitle", "")
    return bool(kind.get("instanceSchema")) or ("." in title and not title.startswith("system."))


def _local_path_unless_gs(uri: str) -> str:
    """Dataflow's and other workers open gs:// themselves; the launcher does not mind that its local copy is unused."""
    return uri if uri.startswith("gs://") else local_path(uri)


def _messages(invocation: dict[str, Any], inputs_spec: dict[str, Any]) -> tuple[Any, Any]:
    """Both as the protocol buffers that TFX's functions take."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    protos: Any = pipeline_spec_pb2
    message = json_format.ParseDict(invocation, protos.ExecutorInput(), ignore_unknown_fields=True)
    inputs_message = json_format.ParseDict(inputs_spec, protos.ComponentInputsSpec(), ignore_unknown_fields=True)
    return message, inputs_message


def _run_example_gen_driver(properties: dict[str, Any], outputs: Mapping[str, list[Any]]) -> None:
    """Finds the newest span that the file patterns match, and a fingerprint of its files."""
    from tfx.components.example_gen import driver

    nothing: Any = None  # it wants the metadata, the pipeline and the component, and looks at none of them
    resolved = driver.FileBasedDriver(nothing).resolve_exec_properties(properties, nothing, nothing)
    driver.update_output_artifact(resolved, outputs["examples"][0].mlmd_artifact)


def _make_finite(artifact: Any) -> None:
    """Writes NaN and infinity among an artifact's properties as text: JSON has no number for them.

    A declared property has a type that text does not fit, so it is dropped there.
    """
    message = artifact.mlmd_artifact
    for kind, properties in (("custom", message.custom_properties), ("declared", message.properties)):
        for name in list(properties):
            value = properties[name]
            number = value.double_value if value.HasField("double_value") else 0.0
            if math.isfinite(number):
                continue
            if kind == "custom":
                value.string_value = str(number)
            else:
                del properties[name]


def _as_reported(artifacts: Any) -> dict[str, Any]:
    """One output as the launcher reads it: remote URIs, also where a property holds one, and no nulls."""
    from google.protobuf import json_format

    message = json_format.MessageToDict(artifacts)
    for artifact in message["artifacts"]:
        artifact["uri"] = remote_uri(artifact["uri"])
        artifact["metadata"] = {
            name: remote_uri(value) if isinstance(value, str) else value
            for name, value in artifact.get("metadata", {}).items()
            if value is not None
        }
    return message


def _parameters(wanted: Mapping[str, Any], outputs: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Values of the outputs that other steps take as parameters."""
    from tfx.types.value_artifact import ValueArtifact

    values = {}
    for name in wanted:
        [artifact] = outputs.get(name) or [None]
        if not isinstance(artifact, ValueArtifact):
            raise MorphError(
                f"The output {name!r} is to become a parameter of another step, but it is "
                f"{type(artifact).__name__}; expected one of TFX's value artifacts (String, Integer, Float, Boolean)."
            )
        values[name] = artifact.read()
    return values


def _shown(view: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """Fills one output for the user interface from the output that it shows."""
    from .views import fill

    file = Path(local_path(view["uri"]))
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = fill(view["type"]["schemaTitle"], source, file)
    return {"artifacts": [{"uri": view["uri"], "metadata": metadata}]}


def _write(file: Path, report: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
