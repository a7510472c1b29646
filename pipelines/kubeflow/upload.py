"""Uploads compiled jobs to Kubeflow Pipelines, each content once.

A job is uploaded as a version of the pipeline that it names; the version is named by a hash of the job's content, so
the same job is there once, however often it is submitted.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from morph_core import MorphError

from .api import KubeflowApi


@dataclass(frozen=True)
class Job:
    """A compiled job.

    Attributes:
        path: its file.
        pipeline: the pipeline it belongs to.
        version: the name of its content.
        root: address of its artifacts, or None for the cluster's own; each request that starts a run has to name it,
            for the server does not look for it in the job.
    """

    path: Path
    pipeline: str
    version: str
    root: str | None = None

    @classmethod
    def load(cls, path: Path) -> Job:
        """Reads the file that `morph-tfx compile` wrote.

        Raises:
            MorphError: it cannot be read or is no job of schema 2.1.
        """
        try:
            documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
        except OSError as error:
            raise MorphError(f"--job: {path} cannot be read: {error.strerror}.") from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise MorphError(f"--job: {path} is not YAML. 'morph-tfx compile' writes a job.") from error
        spec = documents[0] if documents and isinstance(documents[0], dict) else {}
        name = (spec.get("pipelineInfo") or {}).get("name")
        if spec.get("schemaVersion") != "2.1.0" or not name:
            raise MorphError(
                f"--job: {path} is no job for Kubeflow Pipelines v2: expected schemaVersion 2.1.0 and a "
                "pipelineInfo.name. 'morph-tfx compile' writes one."
            )
        if path.suffix not in (".yaml", ".yml"):
            raise MorphError(f"--job: expected a file name that ends in .yaml, got {path}. The API takes no other.")
        content = json.dumps(documents, sort_keys=True, separators=(",", ":"))
        return cls(
            path,
            name,
            f"{name[:48]}-{hashlib.sha256(content.encode()).hexdigest()[:12]}",
            spec.get("defaultPipelineRoot") or None,
        )


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


def runtime_config(root: str | None) -> Any:
    """What a run is started with beside its job."""
    return kfp_server_api.V2beta1RuntimeConfig(parameters={}, pipeline_root=root)


def version_reference(pipeline_id: str, version_id: str) -> Any:
    """A version, as requests name it."""
    return kfp_server_api.V2beta1PipelineVersionReference(pipeline_id=pipeline_id, pipeline_version_id=version_id)


def version_of(one: Any) -> tuple[str, str]:
    """The ids of the pipeline and of the version that a run or a recurring run is of; empty where it names none."""
    reference = one.pipeline_version_reference
    return (reference.pipeline_id or "", reference.pipeline_version_id or "") if reference else ("", "")
