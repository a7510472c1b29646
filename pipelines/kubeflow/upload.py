"""Uploads compiled jobs to Kubeflow Pipelines, each content once.

A job is uploaded as a version of the pipeline that it names; the version is named by a hash of the job's content, so
the same job is there once, however often it is submitted.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from morph_core import MorphError

from .api import KubeflowApi
from .parameters import most_target

MOST_BYTES = 1 << 24
"""Of a job; one of forty steps has 200,000."""

MOST_VALUES = 1_000_000
"""Values and keys in a job, with those that aliases stand for written out."""


@dataclass(frozen=True)
class Job:
    """A compiled job.

    Attributes:
        path: its file.
        pipeline: the pipeline it belongs to.
        version: the name of its content.
        parameters: what a run may be told, by name: each with its `parameterType`, and maybe its `defaultValue`.
        most_target: the largest `target` that a run may be told.
        root: address of its artifacts, or None for the cluster's own; each request that starts a run has to name it,
            for the server does not look for it in the job.
    """

    path: Path
    pipeline: str
    version: str
    root: str | None = None
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    most_target: float = 1.0

    @classmethod
    def load(cls, path: Path) -> Job:
        """Reads the file that `morph-tfx compile` wrote.

        Raises:
            MorphError: it cannot be read or is no job of schema 2.1.
        """
        try:
            documents = [document for document in yaml.safe_load_all(_text_of(path)) if document]
            values = _values_in(documents, {})
        except OSError as error:
            raise MorphError(f"--job: {path} cannot be read: {error.strerror}.") from error
        except MorphError:  # which is a ValueError, too
            raise
        except (ValueError, yaml.YAMLError) as error:  # a ValueError: what stands for no date, or is no text
            raise MorphError(f"--job: {path} is not YAML. 'morph-tfx compile' writes a job.") from error
        except RecursionError:
            values = MOST_VALUES + 1
        if values > MOST_VALUES:
            raise MorphError(
                f"--job: {path} stands for more than {MOST_VALUES:,} values, or they are nested without an end: more "
                "than a job can have. 'morph-tfx compile' writes one."
            )
        spec = _mapping(documents[0] if documents else None)
        name = _mapping(spec.get("pipelineInfo")).get("name")
        if spec.get("schemaVersion") != "2.1.0" or not name or not isinstance(name, str):
            raise MorphError(
                f"--job: {path} is no job for Kubeflow Pipelines v2: expected schemaVersion 2.1.0 and a "
                "pipelineInfo.name. 'morph-tfx compile' writes one."
            )
        if path.suffix not in (".yaml", ".yml"):
            raise MorphError(f"--job: expected a file name that ends in .yaml, got {path}. The API takes no other.")
        declared = _mapping(_mapping(_mapping(spec.get("root")).get("inputDefinitions")).get("parameters"))
        try:
            content = json.dumps(documents, sort_keys=True, separators=(",", ":"), default=str)
        except TypeError as error:
            raise MorphError(f"--job: {path} is no job: keys in it are no text ({error}).") from error
        version = f"{name[:48]}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        return cls(path, name, version, spec.get("defaultPipelineRoot") or None, declared, most_target(spec))


def _mapping(value: Any) -> dict[str, Any]:
    """The value, or nothing where it is no mapping: what is missing is told by what should have been in it."""
    return value if isinstance(value, dict) else {}


def _values_in(value: Any, known: dict[int, int]) -> int:
    """How many values there are, with those that aliases stand for written out; a RecursionError of one in itself."""
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    if id(value) not in known:
        known[id(value)] = 1 + sum(_values_in(one, known) for one in inside)
    return known[id(value)]


def _text_of(path: Path) -> str:
    """The text of a job's file."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise MorphError(
            f"--job: {path} is larger than {MOST_BYTES:,} bytes, more than a job can have. 'morph-tfx compile' writes "
            "one."
        )
    return content.decode("utf-8")


def values_of(job: Job, given: Iterable[str]) -> dict[str, Any]:
    """Values for a run's parameters, of the types that the job declares.

    Args:
        job: whose parameters they are.
        given: as people write them: NAME=VALUE.

    Raises:
        MorphError: no such parameter, or no such value of it.
    """
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in job.parameters:
            known = ", ".join(job.parameters) or "none"
            close = difflib.get_close_matches(name, job.parameters, n=1)
            hint = f"did you mean {close[0]}? " if close and close[0] != name else ""
            raise MorphError(
                f"--parameter {text}: expected NAME=VALUE with a parameter of {job.pipeline}; {hint}There are: "
                f"{known}. 'morph-tfx compile' says what they are."
            )
        values[name] = _value_of(name, value, _mapping(job.parameters[name]).get("parameterType", "STRING"))
        if name == "target" and not 0 < values[name] <= job.most_target:
            widens = "" if job.most_target == 1 else ": the job widens each structure to that (expand_to)"
            raise MorphError(
                f"--parameter target: expected a number above 0 and at most {job.most_target:g}{widens}, got {value!r}."
            )
    return values


def _value_of(name: str, text: str, kind: str) -> Any:
    expected = {"NUMBER_INTEGER": "a whole number", "NUMBER_DOUBLE": "a number"}
    if kind == "STRING":
        return text
    try:
        if kind == "NUMBER_INTEGER":
            return int(text)
        value = float(text) if kind == "NUMBER_DOUBLE" else json.loads(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(text)
        return value
    except ValueError:
        raise MorphError(
            f"--parameter {name}: expected {expected.get(kind, f'JSON, a {kind}')}, got {text!r}."
        ) from None


@dataclass(frozen=True)
class Version:
    """A job as Kubeflow Pipelines has it."""

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool  # by this call


def upload(api: KubeflowApi, job: Job) -> Version:
    """Uploads a job as a version of its pipeline, unless the same job is there.

    Raises:
        MorphError: as `KubeflowApi.call`.
    """
    pipelines = api.pipelines
    body: Any = kfp_server_api.V2beta1Pipeline(display_name=job.pipeline, **api.scope)
    if "name" in body.openapi_types:  # newer servers tell the two apart
        body.name = job.pipeline
    found, _ = api.create(
        f"create the pipeline {job.pipeline!r}",
        lambda: pipeline_named(api, job.pipeline),
        pipelines.pipeline_service_create_pipeline,
        body,
        key="pipeline_id",
    )

    def version() -> Any:
        listed = pipelines.pipeline_service_list_pipeline_versions
        scope = {"pipeline_id": found.pipeline_id}
        return next(api.each("look for the version", listed, "pipeline_versions", job.version, **scope), None)

    stored, uploaded = api.create(
        f"upload {job.path.name} as {job.version!r}",
        version,
        api.uploads.upload_pipeline_version,
        str(job.path),
        name=job.version,
        pipelineid=found.pipeline_id,
        key="pipeline_version_id",
    )
    return Version(found.pipeline_id, stored.pipeline_version_id, job.version, uploaded)


def pipeline_named(api: KubeflowApi, name: str) -> Any:
    """The pipeline of this name, or None where nothing was uploaded under it.

    Raises:
        MorphError: as `KubeflowApi.call`.
    """
    listed = api.pipelines.pipeline_service_list_pipelines
    return next(api.each("look for the pipeline", listed, "pipelines", name, **api.scope), None)


def runtime_config(root: str | None, parameters: Mapping[str, Any]) -> Any:
    """What a run is started with beside its job."""
    return kfp_server_api.V2beta1RuntimeConfig(parameters=dict(parameters), pipeline_root=root)


def version_reference(pipeline_id: str, version_id: str) -> Any:
    """A version, as requests name it."""
    return kfp_server_api.V2beta1PipelineVersionReference(pipeline_id=pipeline_id, pipeline_version_id=version_id)


def version_of(one: Any) -> tuple[str, str]:
    """The ids of the pipeline and of the version that a run or a recurring run is of; empty where it names none."""
    reference = one.pipeline_version_reference
    return (reference.pipeline_id or "", reference.pipeline_version_id or "") if reference else ("", "")
