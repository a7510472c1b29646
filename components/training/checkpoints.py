"""Where a component keeps its training's checkpoints, so that a killed execution, started again, loses one epoch.

Each execution has a place of its own below a base directory, named after everything that its training depends on: the
node, its parameters, the user's module by content, the URIs of its inputs, and the network. So the same execution finds
its checkpoints, and one that was asked for something else never sees them. The component removes them when its outputs
are written.

The base is `custom_config["checkpoint_dir"]`: a mounted volume, or a URI that TensorFlow can write to. Without it, it
lies in TFX's own directory of the node under the pipeline root, if the runner has one, as the local runner does. On
Kubeflow a pod's disk goes with the pod, so there is no checkpoint without that setting, and the log says so.
"""

import contextlib
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import tensorflow as tf
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact

from morph_core import MorphError
from morph_core.search.checkpoint import Directory, Storage

from .custom_config import custom_config_of

_UNFINISHED = ".unfinished"


class RemoteDirectory:
    """Checkpoints under a URI such as gs://bucket/path, through TFX's file systems.

    A file is uploaded under another name and renamed when it is whole. Where a rename is a copy, a reader may see part
    of it after a crash; it then fails its checksums, and the checkpoint before it serves.

    Args:
        uri: of the directory.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    def __str__(self) -> str:
        return self._uri

    def names(self) -> list[str]:
        if not fileio.exists(self._uri):
            return []
        names = [str(name).rstrip("/") for name in fileio.listdir(self._uri)]
        return [name for name in names if not name.endswith(_UNFINISHED)]

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        content = io.BytesIO()
        yield content
        fileio.makedirs(self._uri)
        unfinished = f"{self._uri}/{name}.{uuid.uuid4().hex[:8]}{_UNFINISHED}"
        try:
            with fileio.open(unfinished, "wb") as file:
                file.write(content.getvalue())
            fileio.rename(unfinished, f"{self._uri}/{name}", overwrite=True)
        finally:
            if fileio.exists(unfinished):
                fileio.remove(unfinished)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        with fileio.open(f"{self._uri}/{name}", "rb") as file:
            content = file.read()
        yield io.BytesIO(content)

    def remove(self, name: str) -> None:
        fileio.remove(f"{self._uri}/{name}")


def place(
    context: base_executor.BaseExecutor.Context | None,
    input_dict: Mapping[str, list[Artifact]],
    exec_properties: Mapping[str, Any],
    network: str,
) -> Storage | None:
    """Where the checkpoints of one execution lie; None where nothing would survive it.

    Args:
        context: of the executor; None when it runs outside a pipeline.
        input_dict: as given to the executor.
        exec_properties: likewise.
        network: fingerprint of the user's network.

    Raises:
        MorphError: `checkpoint_dir` has a scheme that TensorFlow cannot write to here.
    """
    config = custom_config_of(exec_properties)
    base = config.get("checkpoint_dir") or _directory_of_node(context)
    if not base:
        print(
            "No checkpoints: what is done so far is lost if this execution is killed. Name a directory that "
            "survives it in custom_config['checkpoint_dir'] (in a configuration: kubeflow.checkpoint_dir), such as a "
            "mounted volume or gs://...",
            flush=True,
        )
        return None
    node = context.pipeline_node.node_info.id if context is not None and context.pipeline_node else ""
    key = _key(node, input_dict, exec_properties, network)
    path = os.path.join(base, f"{node or 'execution'}-{key}")
    if "://" not in path:
        return Directory(path)
    try:
        fileio.exists(path)
    except Exception as error:  # each file system has errors of its own
        raise MorphError(
            f"checkpoint_dir {base} cannot be reached from here ({type(error).__name__}: {error}). Expected a path of "
            "this machine, or a URI that TensorFlow can read and write, such as gs://bucket/path, with the credentials "
            "to do so."
        ) from error
    return RemoteDirectory(path)


def clear(storage: Storage | None) -> None:
    """Takes the checkpoints of an execution away, whose outputs are written; of several machines, one does it."""
    if storage is None or not tf.distribute.get_strategy().extended.should_checkpoint:
        return
    if fileio.exists(str(storage)):
        fileio.rmtree(str(storage))


def _directory_of_node(context: base_executor.BaseExecutor.Context | None) -> str:
    """TFX makes a new directory for each execution in NODE/.system/stateful_working_dir; ours lies beside them."""
    stateful = context.stateful_working_dir if context is not None else None
    if not stateful:
        return ""
    return os.path.join(os.path.dirname(os.path.dirname(stateful.rstrip("/"))), "checkpoints")


def _key(node: str, input_dict: Mapping[str, list[Artifact]], exec_properties: Mapping[str, Any], network: str) -> str:
    facts = {
        "node": node,
        "properties": {name: str(value) for name, value in exec_properties.items() if value is not None},
        "module": _content(str(exec_properties.get("module_file") or "")),
        "inputs": {name: [artifact.uri for artifact in artifacts] for name, artifacts in input_dict.items()},
        "network": network,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _content(path: str) -> str:
    """A hash of a file; empty when there is none (a packed module has one in its name)."""
    if not path or not fileio.exists(path):
        return ""
    with fileio.open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
