"""What Beam's worker processes on this machine can import of a module file while Transform runs."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tfx.types import standard_artifacts
from tfx.utils import import_utils

from morph_core import MorphError
from morph_tfx.pipelines.graph.transform import Preprocessing, importable_in_workers, told_by_feature


@pytest.fixture
def module(tmp_path, request, monkeypatch) -> str:
    """A module file with a neighbour, and one that is called like a library."""
    neighbour = f"neighbour_of_{request.node.name}"
    (tmp_path / f"{neighbour}.py").write_text("VALUE = 7\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('not the library')\n")
    (tmp_path / "module.py").write_text(
        f"import json\nimport {neighbour}\n\n\ndef preprocessing_fn(inputs):\n"
        f"    return json.dumps([inputs, {neighbour}.VALUE])\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # as a local run has it
    return str(tmp_path / "module.py")


def started(code: str) -> str:
    """What a process started from here prints, without what this one has on its path alone."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_worker_imports_the_module_by_tfxs_name_with_its_neighbours_and_the_libraries(module):
    before = os.environ.get("PYTHONPATH")
    with importable_in_workers(module):
        name = import_utils.import_func_from_source(module, "preprocessing_fn").__module__
        assert name.startswith("user_module_")
        assert started(f"import {name}; print({name}.preprocessing_fn(5))") == "[5, 7]"
    assert os.environ.get("PYTHONPATH") == before
    with pytest.raises(subprocess.CalledProcessError):
        started(f"import {name}")


def test_what_fails_while_a_worker_ends_is_not_told_and_what_fails_before_is(module):
    """As TensorFlow's functions do, whose modules are gone before them."""
    code = """
class Outlives:
    def __del__(self):
        raise TypeError(self.when)
one, other = Outlives(), Outlives()
one.when, other.when = "earlier", "at the end"
del one
"""
    command = [sys.executable, "-c", code]
    assert "at the end" in subprocess.run(command, check=True, capture_output=True, text=True).stderr
    with importable_in_workers(module):
        told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert "TypeError: earlier" in told and "at the end" not in told


def test_the_path_that_was_there_stays_behind_and_comes_back(module, monkeypatch, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "further.py").write_text("VALUE = 3\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    with importable_in_workers(module):
        assert started("import further; print(further.VALUE)") == "3"
    assert os.environ["PYTHONPATH"] == str(tmp_path / "more")


SPECS = {name: tf.TensorSpec([None, 1], kind) for name, kind in (("x", tf.float32), ("kind", tf.string))}


def traced(function, label: str | None = None) -> tuple[list[str], dict]:
    """Which columns a function's analyzers read, and the dtypes of what it makes."""
    made = {}

    def remembering(inputs):
        made.update(Preprocessing(function, "their.py", label)(inputs))
        return made

    return list(tft.get_analyze_input_columns(remembering, SPECS)), {name: v.dtype for name, v in made.items()}


def test_a_label_that_is_left_text_becomes_a_number_by_a_vocabulary():
    assert traced(lambda inputs: dict(inputs), "kind") == (["kind"], {"x": tf.float32, "kind": tf.int64})


def test_other_text_and_labels_that_are_numbers_stay_as_they_are():
    assert traced(lambda inputs: dict(inputs)) == ([], {"x": tf.float32, "kind": tf.string})
    assert traced(lambda inputs: dict(inputs), "x") == ([], {"x": tf.float32, "kind": tf.string})


def test_a_feature_that_is_not_there_is_named_with_the_line_and_with_those_that_are():
    def preprocessing_fn(inputs):
        return {"x": inputs["age"]}

    line = preprocessing_fn.__code__.co_firstlineno + 1
    with pytest.raises(MorphError, match=rf"their.py, line {line}, asks for 'age', .* have the features kind, x\."):
        traced(preprocessing_fn)


def test_a_feature_of_another_type_is_told_with_the_types_of_all():
    with pytest.raises(
        MorphError, match=r"their.py, line \d+, fails: .*kind: string \(None, 1\), x: float32 \(None, 1\)"
    ):
        traced(lambda inputs: {"x": tft.scale_to_z_score(inputs["kind"])})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda inputs: None, r"their.py returned a NoneType; expected a dict of tensors"),
        (
            lambda inputs: {"x": tf.cast(inputs["x"], tf.uint8)},
            r"makes 'x' of uint8, .* Cast it: tf.cast\(..., tf.int64\)",
        ),
    ],
)
def test_what_transform_cannot_write_is_refused(function, message):
    with pytest.raises(MorphError, match=message):
        traced(function)


@pytest.fixture
def examples(tmp_path):
    """Examples of one split, whose third record departs."""
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.split_names = str(tmp_path), '["train"]'

    def write(**third: tf.train.Feature):
        usual = {"a": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))}
        (tmp_path / "Split-train").mkdir()
        path = str(tmp_path / "Split-train" / "data.gz")
        with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            for feature in (usual, usual, third):
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
        return [artifact]

    return write


@pytest.mark.parametrize(
    ("said", "third", "message"),
    [
        (
            "Error raised when handling tensor 'a' [while running 'Analyze']",
            {},
            r"'a' is missing .*record 3 of split 'train' .* has none",
        ),
        (
            'INVALID_ARGUMENT: Feature had wrong type, expected float_list, found int64_list for feature "a" [while',
            {"a": tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))},
            r"'a' is of another type .*record 3 of split 'train' .* has int64_list",
        ),
    ],
)
def test_an_example_that_departs_from_the_schema_is_named(examples, said, third, message):
    with pytest.raises(MorphError, match=message), told_by_feature(examples(**third)):
        raise RuntimeError(said)


def test_other_failures_stay_as_they_are(examples):
    with pytest.raises(RuntimeError, match="no space left"), told_by_feature(examples()):
        raise RuntimeError("no space left")
