"""What a SavedModel would do to the machine that runs it, read from its file before TensorFlow loads it.

A SavedModel is a program: its graph can read and write files, call other machines and start Python code, some of it
while it is loaded. What a network and its preprocessing need touches none of that, so a model whose graph does is
refused, and so is one whose files lie elsewhere. The file is read as a protocol buffer; nothing in it is executed.

The operations are those of TensorFlow that take the name of a file, the address of a machine or the number of a Python
function, or that make a graph out of text, where they could hide; the list holds what TensorFlow's own
`saved_model_cli scan` and modelscan look for. This is no sandbox (TensorFlow's SECURITY.md asks for one where nobody
knows who made a model): kernels have errors of their own, and a model can answer wrongly.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
from tfx.dsl.io import fileio

SAVED_MODEL_FILE = "saved_model.pb"

MOST_BYTES = 1 << 31
"""Of `saved_model.pb`: protocol buffers have no more."""

_READS = "reads files"
_WRITES = "writes files"
_CALLS = "calls other machines"
_HIDES = "makes a graph out of text that cannot be looked into"
_REFUSED = {
    "runs Python code of the process that loads it": r"PyFunc|PyFuncStateless|EagerPyFunc",
    _READS: r"ReadFile|MatchingFiles|.*(TextLine|TFRecord|FixedLengthRecord|LMDB|CSV|Sql|MatchingFiles)Dataset(V\d+)?"
    r"|(WholeFile|TextLine|TFRecord|FixedLengthRecord|LMDB)Reader(V\d+)?|RecordInput|LoadDataset|ImportEvent"
    r"|ListSnapshotChunksDataset|Snapshot\w*(Dataset|Reader)\w*|LoadAndRemapMatrix|GenerateVocabRemapping"
    r"|Restore|RestoreSlice",
    _WRITES: r"WriteFile|Save|SaveSlices|SaveDataset(V\d+)?|.*DatasetToTFRecord|CreateSummary\w+Writer|DistributedSave"
    r"|CacheDataset(V\d+)?|Debug(Gradient)?(Ref)?(Identity|NanCount|NumericSummary)(V\d+)?|FileSystemSetConfiguration",
    _CALLS: r"Rpc\w+|RemoteCall|RemoteFusedGraphExecute|DataService\w+|RegisterDataset(V\d+)?|Send|Recv|_Send|_Recv"
    r"|_HostSend|_HostRecv|GrpcServer\w*|.*Bigtable\w*|PubSub\w*",
    _HIDES: r"DatasetFromGraph|DeserializeIterator|IteratorFromStringHandle(V\d+)?",
}
_PATTERNS = {what: re.compile(pattern) for what, pattern in _REFUSED.items()}

# These belong to every SavedModel, where the variables are saved and restored; anywhere else they are used for files.
_OF_CHECKPOINTS = {"SaveV2": _WRITES, "MergeV2Checkpoints": _WRITES, "RestoreV2": _READS}

# What reads a file of the model's own when the attribute, or the tensor, says so, and any other file when it does not.
_TABLES = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})


def threat_of(directory: str) -> str | None:
    """What a SavedModel would do that no model needs to, in words that follow its name; None when there is nothing.

    Args:
        directory: with `saved_model.pb`.
    """
    if "://" not in directory and (link := _link_out(directory)) is not None:
        return f"its file {link} is a link to somewhere else"
    if fileio.exists(os.path.join(directory, SAVED_MODEL_FILE.replace(".pb", ".cpb"))):
        return "its graph lies in several files (saved_model.cpb), which are not looked into"
    if not fileio.exists(os.path.join(directory, SAVED_MODEL_FILE)):
        return f"it has no {SAVED_MODEL_FILE}"
    with fileio.open(os.path.join(directory, SAVED_MODEL_FILE), "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        return f"its {SAVED_MODEL_FILE} is larger than {MOST_BYTES:,} bytes"
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return f"its {SAVED_MODEL_FILE} is damaged: it is no SavedModel"
    return next(filter(None, map(_threat_in, model.meta_graphs)), None)


def threat_in(graph: Any) -> str | None:
    """The same of a graph before it is saved, without what comes only with a file: by its operations alone.

    Args:
        graph: a GraphDef, with its functions.
    """
    library = _library(graph)
    for nodes in (graph.node, *library.values()):
        for node in nodes:
            if (what := _threat_of_node(node, library)) is not None:
                return what
    return None


def _library(graph: Any) -> dict[str, Any]:
    """The nodes of each function of a GraphDef, by its name."""
    return {function.signature.name: function.node_def for function in graph.library.function}


def _link_out(directory: str) -> str | None:
    """The first file or directory in a directory that leads out of it."""
    top = os.path.realpath(directory)
    for place, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(place, name)
            if os.path.islink(path) and os.path.commonpath([top, os.path.realpath(path)]) != top:
                return os.path.relpath(path, top)
    return None


def _threat_in(graph: Any) -> str | None:
    for asset in graph.asset_file_def:
        name = asset.filename.replace("\\", "/")
        if posixpath.isabs(name) or ".." in name.split("/") or "://" in name:
            return f"its asset {asset.filename!r} leads out of it"
    library = _library(graph.graph_def)
    return threat_in(graph.graph_def) or _foreign_checkpoint(graph, library) or _foreign_table(graph, library)


def _threat_of_node(node: Any, library: dict[str, Any]) -> str | None:
    if (what := _what_it_does(node.op)) is not None:
        return f"it {what} (operation {node.op}, {node.name!r})"
    if node.op == "PrintV2" and node.attr["output_stream"].s.startswith(b"file:"):
        return f"it {_WRITES} (operation PrintV2, {node.name!r})"
    if node.op == "FixedUnigramCandidateSampler" and node.attr["vocab_file"].s:
        return f"it {_READS} (operation {node.op}, {node.name!r})"
    if node.op not in library and op_def_registry.get(node.op) is None:
        return f"it has the operation {node.op} ({node.name!r}), which no library that is installed here has"
    return None


@functools.cache
def _what_it_does(operation: str) -> str | None:
    return next((what for what, pattern in _PATTERNS.items() if pattern.fullmatch(operation)), None)


def _foreign_checkpoint(graph: Any, library: dict[str, Any]) -> str | None:
    """An operation on checkpoints outside of what saves and restores the variables."""
    saver = graph.saver_def
    of_saver = {_node_of(name) for name in (saver.save_tensor_name, saver.restore_op_name, saver.filename_tensor_name)}
    called = {name for node in graph.graph_def.node if node.name not in of_saver for name in _calls(node, library)}
    called |= set(graph.object_graph_def.concrete_functions)
    reached: set[str] = set()
    while called:
        name = called.pop()
        if name in reached or name not in library:
            continue
        reached.add(name)
        called |= {inner for node in library[name] for inner in _calls(node, library)}
    # Graphs of TensorFlow 1 have the operations of their saver among their own.
    outside = [] if saver.save_tensor_name else [graph.graph_def.node]
    for nodes in (*outside, *(library[name] for name in sorted(reached))):
        for node in nodes:
            if node.op in _OF_CHECKPOINTS:
                return f"it {_OF_CHECKPOINTS[node.op]} (operation {node.op}, {node.name!r})"
    return None


def _foreign_table(graph: Any, library: dict[str, Any]) -> str | None:
    """A lookup table that is filled from a file whose name stands in the graph, and not from an asset of the model."""
    assets = {_node_of(asset.tensor_info.name) for asset in graph.asset_file_def}
    for own, nodes in ((assets, graph.graph_def.node), *((set[str](), nodes) for nodes in library.values())):
        constants = {node.name for node in nodes if node.op == "Const"} - own
        for node in nodes:
            if node.op in _TABLES and len(node.input) > 1 and _node_of(node.input[1]) in constants:
                return f"it {_READS} that are no assets of it (operation {node.op}, {node.name!r})"
    return None


def _calls(node: Any, library: dict[str, Any]) -> Iterator[str]:
    """The functions of the model that a node names: as its operation or in its attributes."""
    if node.op in library:
        yield node.op
    for value in node.attr.values():
        functions: Iterable[Any] = (value.func, *value.list.func)
        yield from (function.name for function in functions if function.name)


def _node_of(tensor: str) -> str:
    """The node that a tensor or an input is of."""
    return tensor.lstrip("^").partition(":")[0]
