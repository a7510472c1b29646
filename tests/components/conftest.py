"""Real artifacts for the component tests: scikit-learn's digits as TFRecords, their schema, and Transform's output."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from sklearn.datasets import load_digits
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components import Transform
from tfx.components.transform import executor as transform_executor
from tfx.dsl.components.base import base_beam_executor, base_component
from tfx.types import channel_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

import morph_core as morph
from morph_tfx.components import MorphStructure, Retrainer, StructureExporter
from morph_tfx.components.training import user_module

USER_MODULES = pathlib.Path(__file__).parent / "user_modules"
DIGITS, RAW_DIGITS = str(USER_MODULES / "digits.py"), str(USER_MODULES / "raw_digits.py")
HALF = {"conv2d-1": 8, "conv2d-2": 12}  # about half of the FLOPs of the transformed digits' network
SCHEMA = """
feature { name: "image" type: FLOAT shape { dim { size: 64 } } presence { min_fraction: 1 } }
feature { name: "ink" type: BYTES shape { dim { size: 1 } } presence { min_fraction: 1 } }
feature { name: "label" type: INT shape { dim { size: 1 } } presence { min_fraction: 1 } }
"""


def example(image: np.ndarray, label: int) -> tf.train.Example:
    """A digit as the pipelines read it; odd digits are written in blue."""
    ink = b"blue" if label % 2 else b"black"
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                "image": tf.train.Feature(float_list=tf.train.FloatList(value=image)),
                "ink": tf.train.Feature(bytes_list=tf.train.BytesList(value=[ink])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
        )
    )


def write_split(artifact: Artifact, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """One gzipped TFRecord file in the layout of the Examples artifact."""
    path = pathlib.Path(artifact.uri) / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write(example(image, int(label)).SerializeToString())


def make(artifact_class: type[Artifact], uri: pathlib.Path, splits: str = "") -> Artifact:
    """An artifact of that class at that place."""
    artifact = artifact_class()
    artifact.uri = str(uri)
    if splits:
        artifact.split_names = splits
    return artifact


@pytest.fixture(scope="session")
def digits():
    """(images float (n, 64) in 0..16, labels int (n,)), the same order every time."""
    data = load_digits()
    return data.data.astype(np.float32), data.target


@pytest.fixture(scope="session")
def held_out(digits):
    """The digits that make the eval split."""
    images, labels = digits
    return images[1500:], labels[1500:]


@pytest.fixture(scope="session")
def examples(digits, tmp_path_factory):
    """Examples artifact with 1500 digits in train, 297 in eval."""
    images, labels = digits
    artifact = make(standard_artifacts.Examples, tmp_path_factory.mktemp("examples"), '["train", "eval"]')
    write_split(artifact, "train", images[:1500], labels[:1500])
    write_split(artifact, "eval", images[1500:], labels[1500:])
    return artifact


@pytest.fixture(scope="session")
def schema(tmp_path_factory):
    artifact = make(standard_artifacts.Schema, tmp_path_factory.mktemp("schema"))
    io_utils.write_pbtxt_file(f"{artifact.uri}/schema.pbtxt", text_format.Parse(SCHEMA, schema_pb2.Schema()))
    return artifact


@pytest.fixture(scope="session")
def transformed(examples, schema, tmp_path_factory):
    """(transformed examples, transform graph): TFX's own Transform, run once."""
    root = tmp_path_factory.mktemp("transform")
    component = Transform(
        examples=channel(examples),
        schema=channel(schema),
        module_file=DIGITS,
        disable_statistics=True,
    )
    outputs = {
        name: [make(channel.type, root / name)]
        for name, channel in component.outputs.items()
        if name in ("transform_graph", "transformed_examples", "updated_analyzer_cache")
    }
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        tmp_dir=str(root / "tmp"),
        unique_id="1",
    )
    transform_executor.Executor(context).Do(
        {"examples": [examples], "schema": [schema]}, outputs, component.exec_properties
    )
    return outputs["transformed_examples"][0], outputs["transform_graph"][0]


@pytest.fixture(scope="session")
def trained(transformed, tmp_path_factory):
    """A Model of Retrainer, trained for a moment on the transformed digits."""
    examples, graph = transformed
    return _trained(DIGITS, tmp_path_factory.mktemp("trained"), examples, HALF, transform_graph=channel(graph))


@pytest.fixture(scope="session")
def raw_trained(examples, schema, tmp_path_factory):
    """The same on raw digits: one input, no Transform."""
    widths = {"hidden": 16}
    return _trained(RAW_DIGITS, tmp_path_factory.mktemp("raw_trained"), examples, widths, schema=channel(schema))


def _trained(module: str, root: pathlib.Path, examples: Artifact, widths: dict[str, int], **spec) -> Artifact:
    component = Retrainer(
        examples=channel(examples),
        structure=channel(narrowed(module, root, **widths)),
        module_file=module,
        custom_config={"epochs": 1},
        **spec,
    )
    outputs = {key: make(found.type, root / key) for key, found in component.outputs.items()}
    executor = component.executor_spec.executor_class()
    executor.Do(inputs_of(component), {key: [found] for key, found in outputs.items()}, component.exec_properties)
    return outputs["model"]


def channel(artifact: Artifact) -> types.BaseChannel:
    """An artifact as one component hands it to another."""
    return channel_utils.as_channel([artifact])


def inputs_of(component: base_component.BaseComponent) -> dict[str, list[Artifact]]:
    """The artifacts behind a component's input channels, as the launcher would resolve them."""
    return {name: list(channel.get()) for name, channel in component.inputs.items()}


@pytest.fixture
def run(tmp_path):
    """run(component, name="run") runs a component's executor as TFX's launcher does; returns its outputs by name."""

    def run_component(component: base_component.BaseComponent, name: str = "run") -> dict[str, Artifact]:
        outputs = {}
        for key, channel in component.outputs.items():
            outputs[key] = make(channel.type, tmp_path / name / key / "1")
            pathlib.Path(outputs[key].uri).mkdir(parents=True)
        executor = component.executor_spec.executor_class()
        executor.Do(inputs_of(component), {key: [value] for key, value in outputs.items()}, component.exec_properties)
        return outputs

    return run_component


def serialized(images, labels, without=()):
    """Digits as clients send them: serialized tf.Examples, maybe without some features."""
    requests = []
    for image, label in zip(images, labels, strict=True):
        request = example(image, int(label))
        for name in without:
            del request.features.feature[name]
        requests.append(request.SerializeToString())
    return tf.constant(requests)


@pytest.fixture
def module_file(tmp_path):
    """module_file(name, **replacements) copies a user module, with pieces of its text replaced; returns the path."""

    def write(name: str, *replacements: tuple[str, str]) -> str:
        text = (USER_MODULES / f"{name}.py").read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"user_{name}.py"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def damaged(tmp_path):
    """damaged(artifact) copies an artifact with its files, to be changed by the test."""

    def copy(artifact: Artifact) -> Artifact:
        twin = make(
            type(artifact), tmp_path / "damaged", artifact.split_names if "split_names" in dir(artifact) else ""
        )
        shutil.copytree(artifact.uri, twin.uri)
        return twin

    return copy


def narrowed(module: str, tmp_path: pathlib.Path, **widths: int) -> MorphStructure:
    """A structure of a user module's seed, with these widths, as an artifact; no search is needed for it."""
    seed = user_module.load({"module_file": module}).seed({})
    graph = morph.ChannelGraph.from_model(seed)
    artifact = make(MorphStructure, tmp_path / "narrowed")
    StructureExporter(artifact).write(morph.describe(graph, widths, goal={"cost": "flops", "target": 0.5}))
    return artifact


def fails_cleanly(run, component, message: str, tmp_path: pathlib.Path, error: type[BaseException] = morph.MorphError):
    """The component fails with that message; nothing but the empty output directories is left."""
    with pytest.raises(error, match=message):
        run(component, "failing")
    assert [path for path in (tmp_path / "failing").rglob("*") if path.is_file()] == []
    assert list((tmp_path / "failing").glob("*/*unfinished*")) == []


@pytest.fixture
def nothing_trains(monkeypatch):
    """Makes any training fail the test: for mistakes that must end before it."""

    def fit(*args, **kwargs):
        raise AssertionError("training started")

    monkeypatch.setattr(keras.Model, "fit", fit)
