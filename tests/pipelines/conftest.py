"""ML metadata in memory, filled through TFX's own publishing calls; a module file; a stand-in for Kubeflow's server."""

import itertools
import pathlib
import shutil

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.portable import execution_publish_utils as publish
from tfx.orchestration.portable.mlmd import context_lib
from tfx.types import Artifact

from morph_tfx.pipelines.config import parse_config


class Record:
    """What ran, as TFX's launcher records it in the store of a metadata handle, with places on the disk."""

    def __init__(self, handle: metadata.Metadata, directory: pathlib.Path, served: pathlib.Path):
        self._handle = handle
        self._directory = directory
        self._served = served
        self._numbers = itertools.count(1)
        self._run = ""

    @property
    def store(self) -> mlmd.MetadataStore:
        return self._handle.store

    def begin_run(self) -> None:
        """What follows belongs to a new run, until the next one begins."""
        self._run = f"run {next(self._numbers)}"

    def step(self, pipeline: str, step: str, inputs: dict[str, Artifact], **outputs: Artifact) -> None:
        """A step that received `inputs` and made `outputs`, which get their ids."""
        contexts, execution = self._started(pipeline, step, inputs)
        made, _ = publish.publish_succeeded_execution(
            self._handle, execution.id, contexts, {name: [artifact] for name, artifact in outputs.items()}
        )
        assert made is not None
        for name, artifact in outputs.items():  # what was recorded is a copy
            artifact.set_mlmd_artifact(made[name][0].mlmd_artifact)

    def cached(self, pipeline: str, step: str, inputs: dict[str, Artifact], **outputs: Artifact) -> None:
        """A step that took `outputs` from the cache."""
        contexts, execution = self._started(pipeline, step, inputs)
        publish.publish_cached_executions(
            self._handle, contexts, [execution], [{name: [artifact] for name, artifact in outputs.items()}]
        )

    def looked_up(self, pipeline: str, **outputs: Artifact) -> None:
        """A Resolver that found `outputs`."""
        contexts, execution = self._started(pipeline, "Resolver", {})
        found = {name: [artifact] for name, artifact in outputs.items()}
        publish.publish_internal_execution(self._handle, contexts, execution.id, found)

    def place(self, name: str) -> pathlib.Path:
        """An empty directory, another one each time."""
        directory = self._directory / f"{name}-{next(self._numbers)}"
        directory.mkdir()
        return directory

    def saved_model(self, name: str, *below: str) -> pathlib.Path:
        """A new directory that is, or has below it, a SavedModel that loads."""
        directory = self.place(name)
        shutil.copytree(self._served, directory.joinpath(*below), dirs_exist_ok=True)
        return directory

    def _started(self, pipeline, step, inputs):
        named = {"pipeline": pipeline, "pipeline_run": self._run}
        contexts = [
            context_lib.register_context_if_not_exists(self._handle, kind, name) for kind, name in named.items() if name
        ]
        execution = publish.register_execution(
            self._handle,
            metadata_store_pb2.ExecutionType(name=step),
            contexts,
            {name: [artifact] for name, artifact in inputs.items()},
        )
        return contexts, execution


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A SavedModel that loads."""
    from tests.components import saved_models  # imports TensorFlow

    return saved_models.save(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture
def record(served, tmp_path):
    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    with metadata.Metadata(config) as handle:
        yield Record(handle, tmp_path, served)


def made(kind: type[Artifact], **properties: int | str) -> Artifact:
    """An artifact with custom properties, at a place that is named by its kind."""
    artifact = kind()
    artifact.uri = f"/{kind.__name__}/{id(artifact)}"
    for name, value in properties.items():
        if isinstance(value, int):
            artifact.set_int_custom_property(name, value)
        else:
            artifact.set_string_custom_property(name, value)
    return artifact


@pytest.fixture
def config(tmp_path):
    """A configuration whose module file has a neighbour."""
    (tmp_path / "module.py").write_text("VALUE = 1\n")
    (tmp_path / "neighbour.py").write_text("OTHER = 2\n")
    text = """
name: x
data: {format: csv, path: data, eval_fraction: 0.2}
module_file: module.py
label: y
target: 0.5
search: {epochs: 1}
retrain: {epochs: 1}
evaluate: {lower_bound: 0}
"""
    return parse_config(text, "config.yaml", tmp_path)


@pytest.fixture(autouse=True)
def _no_credentials_of_our_own(monkeypatch):
    for name in ("KFP_TOKEN", "KFP_TOKEN_FILE", "KFP_COOKIE", "KFP_COOKIE_FILE", "KFP_ENDPOINT", "KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """A stand-in for the server of Kubeflow Pipelines, which lets in who has the token."""
    from tests.pipelines.kubeflow.server import TOKEN, KubeflowServer  # needs the extra 'kubeflow'

    with KubeflowServer(token=TOKEN) as running:
        yield running
