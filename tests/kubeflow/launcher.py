"""A stand-in for open-source Kubeflow Pipelines: executes a compiled job, task by task, as its driver and launcher do.

What it does follows the sources of the backend (kubeflow/pipelines, backend/src/v2) of the releases in `RELEASES`, each
check with the file that it follows:

- A task starts when the tasks it depends on have succeeded, and not when one was skipped (`depends`,
  compiler/argocompiler/dag.go). Its driver (`driver/container.go`) resolves the inputs
  (`resolveInputs`, driver/resolve.go), evaluates the condition, provisions the outputs (`provisionOutputs`,
  driver/driver.go) and looks into the cache (`getFingerPrint`, driver/cache.go, hashed by `cacheutils/cache.go`).
- The launcher (component/launcher_v2.go) copies input artifacts from the object store to `/minio/bucket/key`, makes
  directories, puts the values in the place of the placeholders, runs the container's command, reads the output file
  strictly, and copies output artifacts back: files only, since an object store has no empty directories
  (objectstore/object_store.go). Nothing else survives a task.
- An input is at an address of an object store, with something below the bucket, or the task fails
  (`fetchNonDefaultBuckets`, component/launcher_v2.go; `ParseBucketConfigForArtifactURI` and `KeyFromURI`,
  objectstore/config.go). What an importer names is, too (`ImportSpecToMLMDArtifact`, component/importer_launcher.go).
- An output that the launcher can upload lies below the run's root (`uploadOutputArtifacts`; `KeyFromURI`).
- The root comes with the request that starts the run, or from the configuration of the namespace; that of the job is
  read by nobody (`RootDAG`, driver/root_dag.go; `DefaultPipelineRoot`, config/env.go). The user interface fills it in,
  and so does our client.
- Types of input artifacts are lost on the way (metadata/converter.go), every artifact says where its store's session
  comes from (`RecordArtifact`, metadata/client.go), and every task gets the output `executor-logs`.

What is different: a pod is a directory, `/` of its mounts is named by an environment variable, the image is this
interpreter, retries do not wait, and the second document of a job (Kubernetes settings) is not applied.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.pipeline_spec import pipeline_spec_pb2

from morph_tfx.pipelines.kubeflow.entrypoint import LAUNCHER_ROOT
from tests.kubeflow.conditions import ConditionError, holds
from tests.kubeflow.pods import run_module

PROTOS: Any = pipeline_spec_pb2
_SCHEMES = {"minio": "minio", "s3": "s3", "gs": "gcs"}
_DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"  # config/env.go
# objectstore/config.go
_BUCKET = re.compile(r"^([a-z][a-z0-9]+)://(?:/)?([^/?]+)(/[^?]*)?(\?.+)?$")
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")  # driver/util.go
_ARGO_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")


class Refused(Exception):
    """The API server or the driver would not run this."""


@dataclass(frozen=True)
class Release:
    """What releases of Kubeflow Pipelines do differently, as far as a step can tell.

    Attributes:
        names_outputs: outputs carry their names, and the output file lies beside them and not in /tmp
            (`provisionOutputs`, driver/driver.go; since 2.15).
        keys_volumes: the names of mounted claims are part of the cache's key (driver/cache.go; since 2.15).
        logs_attempts: the log of each attempt has its own address, and that of a failed one is kept, too
            (`qualifyExecutorLogsForRetry` and `uploadOutputArtifacts`, component/launcher_v2.go; since 2.16).
        downloads_exactly: an input is what lies at its key or below, not everything whose key starts like it
            (`isBlobKeyUnderPrefix`, objectstore/object_store.go; since 2.17).
        resolves_early: the driver replaces the parameters in a container's arguments, all of which need a value
            (`resolveContainerArgs`, driver/util.go; since 2.17).
    """

    names_outputs: bool
    keys_volumes: bool
    logs_attempts: bool
    downloads_exactly: bool
    resolves_early: bool


RELEASES = {
    "2.14.3": Release(False, False, False, False, False),
    "2.17.0": Release(True, True, True, True, True),
}


@dataclass(frozen=True)
class Stored:
    """An artifact as ML Metadata has it."""

    id: int
    title: str
    uri: str
    metadata: dict[str, Any]


@dataclass
class Task:
    """How one task ended.

    Attributes:
        state: "succeeded", "cached", "failed", "skipped" (its condition does not hold) or "omitted" (something before
            it failed, or was skipped or omitted itself).
        message: why it failed.
        attempts: how often its container was started.
        log: what the last attempt printed.
        command: that of the last attempt, every placeholder replaced.
        outputs: artifacts by the name of the output.
        parameters: output parameters.
    """

    state: str
    message: str = ""
    attempts: int = 0
    seconds: float = 0.0
    log: str = ""
    command: list[str] = field(default_factory=list)
    outputs: dict[str, Stored] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """How a job ended, and each of its tasks by name."""

    id: str
    tasks: dict[str, Task]

    @property
    def succeeded(self) -> bool:
        return not any(task.state == "failed" for task in self.tasks.values())

    def in_state(self, state: str) -> set[str]:
        return {name for name, task in self.tasks.items() if task.state == state}

    def __str__(self) -> str:
        lines = [
            f"{name:28} {task.state:10} {task.seconds:6.1f} s  {task.message}" for name, task in self.tasks.items()
        ]
        logs = [f"--- {name}\n{task.log[-4000:]}" for name, task in self.tasks.items() if task.state == "failed"]
        return "\n".join(["", *lines, *logs])


class Cluster:
    """An object store, the metadata, the cache and a place for pods.

    Args:
        directory: where all of it lies.
        environment: variables of every container, as an image would set them.
        workers: how many pods run at the same time.
        publish_logs: whether tasks get the output `executor-logs`, as they do by default.
        input_type: the type that input artifacts arrive with: empty, as with ML Metadata, or `{"schemaTitle":
            "system.Artifact"}`, as with other backends.
        release: whose sources are followed.
        fresh: whether each container imports all that it needs itself, as in an image; otherwise other people's
            packages are there already (`run_module`), which saves most of the time of small steps.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        workers: int = 2,
        publish_logs: bool = True,
        input_type: Mapping[str, str] | None = None,
        release: str = "2.17.0",
        fresh: bool = False,
    ):
        self.directory, self.fresh = directory, fresh
        self.release = RELEASES[release]
        self.environment = dict(environment or {})
        self.workers = workers
        self.publish_logs = publish_logs
        self.input_type = dict(input_type or {"instanceSchema": ""})
        self.artifacts: list[Stored] = []
        self._cache: dict[str, Task] = {}
        self._lock = threading.Lock()
        self._runs = itertools.count(1)

    def stored(self, uri: str) -> Path:
        """Where the object store keeps what has this URI."""
        scheme, _, key = uri.partition("://")
        return self.directory / "store" / scheme / key

    def run(self, job: Path, parameters: Mapping[str, Any] | None = None, root: str = "") -> Run:
        """Executes a job to its end.

        Args:
            job: the YAML file.
            parameters: values of the job's runtime parameters.
            root: of the artifacts, as the request that starts a run names it.

        Raises:
            Refused: the job would not be accepted.
        """
        document, *platform = yaml.safe_load_all(job.read_text(encoding="utf-8"))
        spec = _accepted(document)
        values = _root_parameters(spec, parameters or {})
        volumes = _volumes(platform[0]) if platform else {}
        return _Execution(self, spec, volumes, f"run-{next(self._runs)}", root or _DEFAULT_ROOT, values).run()

    def record(self, title: str, uri: str, metadata: Mapping[str, Any]) -> Stored:
        """Puts an artifact into the metadata store, which keeps fewer kinds of values than JSON has."""
        with self._lock:
            kept = {name: _kept_value(name, value) for name, value in metadata.items()}
            artifact = Stored(len(self.artifacts) + 1, title, uri, kept)
            self.artifacts.append(artifact)
            return artifact

    def imported(self, title: str, uri: str, metadata: Mapping[str, Any], reimport: bool) -> Stored:
        """The artifact of an importer: the one that is there already, unless it is to be imported again."""
        for artifact in self.artifacts:
            same = all(artifact.metadata.get(name) == value for name, value in metadata.items())
            if not reimport and same and (artifact.title, artifact.uri) == (title, uri):
                return artifact
        return self.record(title, uri, metadata)

    def cached(self, key: str) -> Task | None:
        return self._cache.get(key)

    def remember(self, key: str, task: Task) -> None:
        self._cache[key] = task

    def root(self, pod: Path) -> str:
        """How a container calls the `/` of its pod, without the slash."""
        return str(pod)

    def start(self, command: list[str], pod: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Runs the container of a pod to its end. The image is this interpreter and its packages."""
        environment = self.environment_of(pod, variables)
        if not self.fresh and command[:2] == ["python", "-m"]:
            return run_module(command[2], command[3:], pod, environment)
        return subprocess.run(
            command, cwd=pod, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip

    def environment_of(self, pod: Path, variables: Mapping[str, str]) -> dict[str, str]:
        """What the process of a pod finds in its environment."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, LAUNCHER_ROOT: self.root(pod), **variables}

    def download(self, uri: str, pod: Path) -> None:
        """Copies every object whose key is the URI's, or below it. That there is none is no error."""
        source = self.stored(uri)
        more = "" if self.release.downloads_exactly or uri.endswith("/") else "*"
        for found in source.parent.glob(glob.escape(source.name) + more):
            target = local(pod, uri).parent / found.name
            if found.is_dir():
                shutil.copytree(found, target, dirs_exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found, target)

    def upload(self, uri: str, pod: Path) -> None:
        """Copies a file, or every file of a directory, to the object store. That there is none is no error."""
        source = local(pod, uri)
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        for file in files:
            target = self.stored(uri) / file.relative_to(source) if source.is_dir() else self.stored(uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def local(pod: Path, uri: str) -> Path:
    """The launcher's path for a URI, inside a pod."""
    scheme, _, key = uri.partition("://")
    if scheme not in _SCHEMES:
        raise Refused(f"failed to generate local path for URI {uri}: unsupported storage scheme")
    return pod / _SCHEMES[scheme] / key


def _bucket(uri: str) -> tuple[str, str]:
    """The bucket of an address, with its scheme, and the key in it."""
    match = _BUCKET.match(uri)
    if match is None:
        raise Refused(f"parse bucket config failed: unrecognized uri format: {uri!r}")
    if match[1] not in (*_SCHEMES, "mem"):
        raise Refused(f"parse bucket config failed: unsupported Cloud bucket: {uri!r}")
    return f"{match[1]}://{match[2]}", (match[3] or "").strip("/")


def _volumes(platform: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the claims that each executor mounts."""
    executors = platform["platforms"]["kubernetes"].get("deploymentSpec", {}).get("executors", {})
    found = {}
    for label, settings in executors.items():
        mounts = settings.get("pvcMount", [])
        found[label] = [
            mount.get("constant") or mount["pvcNameParameter"]["runtimeValue"]["constant"] for mount in mounts
        ]
    return found


def _accepted(document: dict[str, Any]) -> Any:
    """The job as a message, if the API server takes it."""
    if document.get("schemaVersion") != "2.1.0":
        raise Refused(f"KFP only supports schema version 2.1.0, but this job has {document.get('schemaVersion')}")
    spec = json_format.ParseDict(document, PROTOS.PipelineSpec())
    deployment = _deployment(spec)
    for name, task in spec.root.dag.tasks.items():
        if not _ARGO_NAME.fullmatch(name):
            raise Refused(f"task {name!r}: a workflow's task name has letters, digits and '-' only")
        if task.component_ref.name not in spec.components:
            raise Refused(f"component spec for {task.component_ref.name!r} not found")
        component = spec.components[task.component_ref.name]
        kind = deployment.executors[component.executor_label].WhichOneof("spec")
        if kind not in ("container", "importer"):
            raise Refused(f"executor of {name!r}: non-container and non-importer executor not implemented")
        if kind == "importer" and task.trigger_policy.condition:
            raise Refused("triggerPolicy.condition on importer task is not supported")
        unknown = _dependencies(task) - set(spec.root.dag.tasks)
        if unknown:
            raise Refused(f"task {name!r}: cannot find producer task {sorted(unknown)}")
    return spec


def _deployment(spec: Any) -> Any:
    config = json_format.MessageToDict(spec.deployment_spec)
    return json_format.ParseDict(config, PROTOS.PipelineDeploymentConfig(), ignore_unknown_fields=True)


def _root_parameters(spec: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    declared = spec.root.input_definitions.parameters
    for name in given:
        if name not in declared:
            raise Refused(f"parameter {name!r} is not an input of the job")
    values = dict(given)
    for name, definition in declared.items():
        if name in values:
            continue
        if definition.HasField("default_value"):
            values[name] = json_format.MessageToDict(definition.default_value)
        elif not definition.is_optional:
            raise Refused(f"parameter {name!r} has neither a default value nor one that was given")
    return values


def _dependencies(task: Any) -> set[str]:
    found = set(task.dependent_tasks)
    for artifact in task.inputs.artifacts.values():
        found.add(artifact.task_output_artifact.producer_task)
    for parameter in task.inputs.parameters.values():
        if parameter.WhichOneof("kind") == "task_output_parameter":
            found.add(parameter.task_output_parameter.producer_task)
    return found


def _title(schema: Any) -> str:
    if schema.WhichOneof("kind") == "instance_schema":
        return yaml.safe_load(schema.instance_schema)["title"]
    return schema.schema_title


def _kept_value(name: str, value: Any) -> Any:
    """A value after its stay in ML Metadata."""
    if value is None:
        raise Refused(f"metadata {name!r}: unknown or unsupported value type: null")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return {"list": value}
    if isinstance(value, dict):
        return {"struct": value}
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return np.format_float_positional(value, trim="-")  # PbValueToText, metadata/converter.go
    return json.dumps(value)


def _argument(value: Any) -> str:
    """`pbValueToString`, driver/util.go: as `_text`, but large and small numbers that are not whole as 1e-05."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or float(value).is_integer():
        return _text(value)
    return repr(float(value))


class _Execution:
    """One run of one job."""

    def __init__(
        self,
        cluster: Cluster,
        spec: Any,
        volumes: dict[str, list[str]],
        run_id: str,
        root: str,
        parameters: dict[str, Any],
    ):
        self.cluster, self.spec, self.volumes, self.parameters = cluster, spec, volumes, parameters
        self.id, self.release = run_id, cluster.release
        _bucket(root)
        self.root = f"{root.partition('?')[0].rstrip('/')}/{spec.pipeline_info.name}/{run_id}"
        self.executors = _deployment(spec).executors
        self.tasks = dict(spec.root.dag.tasks)
        self.done: dict[str, Task] = {}

    def run(self) -> Run:
        waiting = {name: _dependencies(task) for name, task in self.tasks.items()}
        running: dict[Future[Task], str] = {}
        with ThreadPoolExecutor(self.cluster.workers) as pool:
            while waiting or running:
                for name in [name for name, before in waiting.items() if before <= set(self.done)]:
                    before = waiting.pop(name)
                    if all(self.done[other].state in ("succeeded", "cached") for other in before):
                        running[pool.submit(self._timed, name)] = name
                    else:
                        self.done[name] = Task("omitted")
                if not running:
                    if waiting and not any(before <= set(self.done) for before in waiting.values()):
                        raise Refused(f"these tasks wait for each other: {sorted(waiting)}")
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self.done[running.pop(future)] = future.result()
        return Run(self.id, {name: self.done[name] for name in self.tasks})

    def _timed(self, name: str) -> Task:
        start = time.monotonic()
        try:
            task = self._task(name)
        except (Refused, ConditionError) as error:
            task = Task("failed", str(error))
        task.seconds = time.monotonic() - start
        return task

    def _task(self, name: str) -> Task:
        spec = self.tasks[name]
        component = self.spec.components[spec.component_ref.name]
        executor = self.executors[component.executor_label]
        invocation = PROTOS.ExecutorInput()
        json_format.ParseDict({"inputs": self._inputs(spec, component)}, invocation)
        if executor.WhichOneof("spec") == "importer":
            return self._import(executor.importer, component, spec)
        if spec.trigger_policy.condition and not holds(spec.trigger_policy.condition, invocation):
            return Task("skipped")
        container = self._resolved(executor.container, invocation)
        key = self._key(component, executor.container, invocation, self.volumes.get(component.executor_label, []))
        hit = self.cluster.cached(key) if spec.caching_options.enable_cache else None
        if hit is not None:
            return Task("cached", outputs=hit.outputs, parameters=hit.parameters)
        salt = uuid.uuid4().hex[:8]
        task = Task("failed")
        for attempt in range(1 + spec.retry_policy.max_retry_count):
            pod = self.cluster.directory / "pods" / self.id / f"{name}-{attempt}"
            pod.mkdir(parents=True)
            task = self._launch(name, component, container, copy.deepcopy(invocation), pod, salt, attempt)
            task.attempts = attempt + 1
            shutil.rmtree(pod)  # nothing survives a pod
            if task.state == "succeeded":
                if spec.caching_options.enable_cache:
                    self.cluster.remember(key, task)
                break
        return task

    def _inputs(self, spec: Any, component: Any) -> dict[str, Any]:
        """What `resolveInputs` gives: values by name, converted to text where text is declared, and artifacts."""
        values: dict[str, Any] = {}
        for name, parameter in spec.inputs.parameters.items():
            kind = parameter.WhichOneof("kind")
            if kind == "component_input_parameter":
                if parameter.component_input_parameter not in self.parameters:
                    continue
                values[name] = self.parameters[parameter.component_input_parameter]
            elif kind == "task_output_parameter":
                source = parameter.task_output_parameter
                values[name] = self.done[source.producer_task].parameters[source.output_parameter_key]
            elif kind == "runtime_value" and parameter.runtime_value.WhichOneof("value") == "constant":
                values[name] = json_format.MessageToDict(parameter.runtime_value.constant)
            else:
                raise Refused(f"parameter {name!r}: spec of type {kind} not implemented")
        for name, definition in component.input_definitions.parameters.items():
            if name not in values:
                if not definition.is_optional and not definition.HasField("default_value"):
                    raise Refused(f"neither value nor default value provided for non-optional parameter {name!r}")
                continue
            kind = PROTOS.ParameterType.ParameterTypeEnum.Name(definition.parameter_type)
            if kind == "STRING":
                values[name] = _text(values[name])
            expected = {"STRING": str, "BOOLEAN": bool, "LIST": list, "STRUCT": dict}.get(kind, (int, float))
            if not isinstance(values[name], expected) or (kind.startswith("NUMBER") and isinstance(values[name], bool)):
                raise Refused(f"input parameter {name!r} type mismatch: expect {kind}, got {values[name]!r}")
        artifacts = {}
        for name, artifact in spec.inputs.artifacts.items():
            source = artifact.task_output_artifact
            stored = self.done[source.producer_task].outputs.get(source.output_artifact_key)
            if stored is None:
                raise Refused(f"cannot find output artifact key {source.output_artifact_key!r} in producer task")
            runtime = {"name": str(stored.id), "uri": stored.uri, "metadata": stored.metadata}
            artifacts[name] = {"artifacts": [{**runtime, "type": self.cluster.input_type}]}
        return {"parameterValues": values, "artifacts": artifacts}

    def _import(self, importer: Any, component: Any, spec: Any) -> Task:
        [key] = component.output_definitions.artifacts
        address = importer.artifact_uri
        if address.WhichOneof("value") == "constant":
            uri = address.constant.string_value
        else:
            parameter = spec.inputs.parameters[address.runtime_parameter]
            uri = self.parameters[parameter.component_input_parameter]
        try:
            bucket, _ = _bucket(uri)
        except Refused:
            raise Refused(
                "failed to execute importer component: failed to create MLMD artifact from ImporterSpec: no provider "
                f"scheme found in artifact URI: {uri}"
            ) from None
        session = {"Provider": bucket.partition("://")[0], "Params": {"fromEnv": "true"}}
        metadata = {**json_format.MessageToDict(importer.metadata), "store_session_info": json.dumps(session)}
        return Task(
            "succeeded",
            outputs={key: self.cluster.imported(_title(importer.type_schema), uri, metadata, importer.reimport)},
        )

    def _outputs(self, name: str, component: Any, pod: Path, salt: str) -> dict[str, Any]:
        """What `provisionOutputs` gives."""
        task_root = f"{self.root}/{name}/{salt}"
        definitions = {
            output: {
                "type": json_format.MessageToDict(definition.artifact_type),
                "metadata": json_format.MessageToDict(definition.metadata),
            }
            for output, definition in component.output_definitions.artifacts.items()
        }
        if self.cluster.publish_logs:
            definitions["executor-logs"] = {"type": {"schemaTitle": "system.Artifact"}}
        if self.release.names_outputs:
            definitions = {output: {"name": output, **definition} for output, definition in definitions.items()}
        artifacts = {
            output: {"artifacts": [{"uri": f"{task_root}/{output}", **definition}]}
            for output, definition in definitions.items()
        }
        root = self.cluster.root(pod)
        files = {
            output: {"outputFile": f"{root}/tmp/kfp/outputs/{output}"}
            for output in component.output_definitions.parameters
        }
        output_file = f"{root}/tmp/kfp_outputs/output_metadata.json"
        if self.release.names_outputs:
            output_file = str(local(Path(root or "/"), task_root) / "output_metadata.json")
        return {"artifacts": artifacts, "parameters": files, "outputFile": output_file}

    def _resolved(self, container: Any, invocation: Any) -> Any:
        """The container with the parameters in its arguments replaced, where that is the driver's work."""
        if not self.release.resolves_early:
            return container
        values = json_format.MessageToDict(invocation).get("inputs", {}).get("parameterValues", {})

        def value_of(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise Refused(f"failed to resolve container args: parameter {match[1]!r} not found in executor input")
            return _argument(values[match[1]])

        resolved = copy.deepcopy(container)
        for parts in (resolved.command, resolved.args):
            # Those with outputs are left for the launcher.
            parts[:] = [part if "$.outputs" in part else _PLACEHOLDER.sub(value_of, part) for part in parts]
        return resolved

    def _on_host(self, pod: Path, path: str) -> Path:
        return pod / path.removeprefix(self.cluster.root(pod)).lstrip("/")

    def _key(self, component: Any, container: Any, invocation: Message, claims: list[str]) -> str:
        """The fingerprint by which the cache knows a task: neither URIs nor contents are in it, but artifacts' ids."""
        inputs = json_format.MessageToDict(invocation).get("inputs", {})
        names = {
            name: [artifact["name"] for artifact in artifacts["artifacts"]]
            for name, artifacts in inputs.get("artifacts", {}).items()
        }
        outputs = json_format.MessageToDict(component.output_definitions)
        command = [*container.command, *container.args]
        logs = self.cluster.publish_logs
        volumes = sorted(set(claims)) if self.release.keys_volumes else []
        key = [
            self.spec.pipeline_info.name,
            names,
            inputs.get("parameterValues"),
            outputs,
            logs,
            volumes,
            container.image,
            command,
        ]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def _launch(
        self, name: str, component: Any, container: Any, invocation: Any, pod: Path, salt: str, attempt: int
    ) -> Task:
        json_format.ParseDict({"outputs": self._outputs(name, component, pod, salt)}, invocation)
        logs = invocation.outputs.artifacts.get("executor-logs")
        if logs is not None and self.release.logs_attempts:
            logs.artifacts[0].uri += f"-{attempt}"
        for key, artifacts in invocation.inputs.artifacts.items():
            self._download(key, artifacts.artifacts[0].uri, pod)
        for parameter in invocation.outputs.parameters.values():
            self._on_host(pod, parameter.output_file).parent.mkdir(parents=True, exist_ok=True)
        for artifacts in invocation.outputs.artifacts.values():
            local(pod, artifacts.artifacts[0].uri).parent.mkdir(parents=True, exist_ok=True)
        placeholders = _placeholders(invocation, component, self.cluster.root(pod))
        command = [_replaced(part, placeholders) for part in [*container.command, *container.args]]
        variables = {**self.cluster.environment, **{variable.name: variable.value for variable in container.env}}
        process = self.cluster.start(command, pod, variables)
        task = Task("failed", log=process.stdout, command=command)
        if process.returncode != 0:
            status = f"signal {-process.returncode}" if process.returncode < 0 else f"exit status {process.returncode}"
            task.message = f"failed to execute component: {status}"
        output = PROTOS.ExecutorOutput()
        if logs is not None:
            local(pod, logs.artifacts[0].uri).write_text(process.stdout, encoding="utf-8")
        if process.returncode != 0:
            if logs is not None and self.release.logs_attempts:
                task.outputs["executor-logs"] = self._published("executor-logs", logs.artifacts[0], output, pod)
            return task
        output_file = self._on_host(pod, invocation.outputs.output_file)
        if output_file.exists():
            try:
                json_format.Parse(output_file.read_text(encoding="utf-8"), output)
            except json_format.ParseError as error:
                task.message = f"failed to unmarshall ExecutorOutput: {error}"
                return task
        task.parameters = self._collected(invocation, output, component, pod)
        for key, artifacts in invocation.outputs.artifacts.items():
            task.outputs[key] = self._published(key, artifacts.artifacts[0], output, pod)
        task.state = "succeeded"
        return task

    def _download(self, key: str, uri: str, pod: Path) -> None:
        try:
            bucket, path = _bucket(uri)
        except Refused as error:
            raise Refused(
                f"failed to execute component: failed to fetch non default buckets: failed to parse bucketConfig for "
                f"output artifact {key!r} with uri {uri!r}: {error}"
            ) from None
        if not path:
            raise Refused(
                f"failed to execute component: failed to download input artifact {key!r} from remote storage URI "
                f"{uri!r}: URI {uri!r} has empty key given prefixed bucket {bucket!r}"
            )
        self.cluster.download(uri, pod)

    def _collected(self, invocation: Any, output: Any, component: Any, pod: Path) -> dict[str, Any]:
        values = {name: json_format.MessageToDict(value) for name, value in output.parameter_values.items()}
        for name, parameter in invocation.outputs.parameters.items():
            if name in values:
                continue
            file = self._on_host(pod, parameter.output_file)
            if not file.exists():
                raise Refused(f"failed to read output parameter {name!r}: no file {file}")
            kind = component.output_definitions.parameters[name].parameter_type
            text = file.read_text(encoding="utf-8")
            values[name] = text if kind == PROTOS.ParameterType.STRING else json.loads(text)
        return values

    def _published(self, key: str, artifact: Any, output: Any, pod: Path) -> Stored:
        metadata = json_format.MessageToDict(artifact.metadata)
        uri = artifact.uri
        # The launcher's own output stays where it is, whatever is reported.
        if key != "executor-logs" and key in output.artifacts and output.artifacts[key].artifacts:
            reported = output.artifacts[key].artifacts[0]
            uri = reported.uri or uri
            metadata.update(json_format.MessageToDict(reported.metadata))
        if uri.partition("://")[0] in _SCHEMES:  # otherwise the launcher only warns
            if not uri.startswith(f"{self.root}/"):
                raise Refused(
                    f"failed to upload output artifact {key!r}: URI {uri!r} does not have expected bucket prefix "
                    f"{self.root!r}"
                )
            self.cluster.upload(uri, pod)
        session = json.dumps({"Provider": self.root.partition("://")[0], "Params": {}})
        return self.cluster.record(
            _title(artifact.type), uri, {"display_name": key, "store_session_info": session, **metadata}
        )


def _placeholders(invocation: Any, component: Any, root: str) -> dict[str, str]:
    """What `getPlaceholders` gives, with the defaults that the launcher adds."""
    complete = PROTOS.ExecutorInput()
    complete.CopyFrom(invocation)
    for name, definition in component.input_definitions.parameters.items():
        if name not in complete.inputs.parameter_values and definition.HasField("default_value"):
            complete.inputs.parameter_values[name].CopyFrom(definition.default_value)
    found = {"{{$}}": json_format.MessageToJson(complete, indent=None)}
    for side in ("inputs", "outputs"):
        for name, artifacts in getattr(complete, side).artifacts.items():
            uri = artifacts.artifacts[0].uri
            found[f"{{{{$.{side}.artifacts['{name}'].uri}}}}"] = uri
            if uri.partition("://")[0] in _SCHEMES:
                found[f"{{{{$.{side}.artifacts['{name}'].path}}}}"] = str(local(Path(root or "/"), uri))
    for name, value in complete.inputs.parameter_values.items():
        found[f"{{{{$.inputs.parameters['{name}']}}}}"] = _text(json_format.MessageToDict(value))
    for name, parameter in complete.outputs.parameters.items():
        found[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = parameter.output_file
    return found


def _replaced(text: str, placeholders: Mapping[str, str]) -> str:
    for placeholder, value in placeholders.items():
        text = text.replace(placeholder, value)
    return text
