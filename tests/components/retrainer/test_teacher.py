"""A Retrainer with a teacher: the model that it learns from, how it listens, and what every mistake ends in."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_artifacts
from tfx.utils import io_utils, path_utils

import morph_core as morph
from morph_tfx.components import Retrainer
from morph_tfx.components.training import serving, teacher, trained_model, user_module
from tests.components.conftest import DIGITS, RAW_DIGITS, channel, fails_cleanly, make, narrowed
from tests.components.retrainer.test_retrainer import load, raw_retrain, retrain

__all__ = ["raw_retrain", "retrain"]


@pytest.fixture
def written(schema, transformed, tmp_path):
    """written(module_file, model) exports a network as the components do; returns the Model artifact."""

    def write(module_file, model, name="teacher"):
        module = user_module.load({"module_file": module_file})
        if module_file == DIGITS:
            spec = tft.TFTransformOutput(transformed[1].uri)
        else:
            spec = io_utils.parse_pbtxt_file(f"{schema.uri}/schema.pbtxt", schema_pb2.Schema())
        artifact = make(standard_artifacts.Model, tmp_path / name)
        structure = morph.describe(morph.ChannelGraph.from_model(model), {})
        entries = serving.signatures(model, spec, module)
        trained_model.write(artifact, model, entries, structure, "nowhere", spec, {})
        return artifact

    return write


def seed_of(module_file, seed=1):
    keras.utils.set_random_seed(seed)
    return user_module.load({"module_file": module_file}).seed({})


@pytest.mark.parametrize("module_file", [DIGITS, RAW_DIGITS])
def test_a_model_that_was_written_answers_what_the_network_is_given(module_file, written):
    model, student = seed_of(module_file), seed_of(module_file, seed=2)
    rng = np.random.default_rng(0)
    x = {tensor.name: rng.uniform(size=(5, *tensor.shape[1:])).astype("float32") for tensor in student.inputs}
    given = x if len(x) > 1 else next(iter(x.values()))
    (answers,) = teacher.read(written(module_file, model), student)(given)
    assert answers.numpy() == pytest.approx(model(given).numpy(), abs=1e-5)


def test_a_pushed_model_and_one_that_keras_exports_will_do(written, tmp_path):
    model, student = seed_of(RAW_DIGITS), seed_of(RAW_DIGITS, seed=2)
    x = np.random.default_rng(0).uniform(size=(5, *student.inputs[0].shape[1:])).astype("float32")
    pushed = make(standard_artifacts.Model, path_utils.serving_model_dir(written(RAW_DIGITS, model).uri))
    model.export(str(tmp_path / "exported" / "Format-Serving"), verbose=False)
    exported = make(standard_artifacts.Model, tmp_path / "exported")
    for artifact in (pushed, exported):
        (answers,) = teacher.read(artifact, student)(x)
        assert answers.numpy() == pytest.approx(model(x).numpy(), abs=1e-5)


def test_outputs_are_put_in_order_by_name(tmp_path):
    def two_heads(order, seed):
        keras.utils.set_random_seed(seed)
        start = keras.Input((4,), name="x")
        heads = {name: keras.layers.Dense(2, name=name)(start) for name in ("left", "right")}
        return keras.Model(start, [heads[name] for name in order])

    model, student = two_heads(["right", "left"], 1), two_heads(["left", "right"], 2)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default", lambda x: dict(zip(("right", "left"), model(x), strict=True)), [tf.TensorSpec((None, 4))]
    )
    archive.write_out(str(tmp_path / "model" / "Format-Serving"), verbose=False)
    x = np.ones((3, 4), "float32")
    left, right = teacher.read(make(standard_artifacts.Model, tmp_path / "model"), student)(x)
    assert [left.numpy().tolist(), right.numpy().tolist()] == [part.numpy().tolist() for part in model(x)][::-1]


def test_the_student_comes_to_answer_as_its_teacher(raw_retrain, run, written, held_out, capsys):
    """One that always says the same digit: nobody learns that from the labels."""
    model = seed_of(RAW_DIGITS)
    head = model.layers[-1]
    head.set_weights([0 * head.get_weights()[0], np.eye(10)[3] * 10])
    component = raw_retrain(
        teacher=channel(written(RAW_DIGITS, model)), distill={"weight": 1.0, "temperature": 1.0},
        custom_config={"epochs": 2},
    )  # fmt: skip
    outputs = run(component)
    images, _ = held_out
    answers = load(outputs["model"]).signatures["raw_tensors"](image=tf.constant(images))["outputs"].numpy()
    assert (answers.argmax(axis=1) == 3).mean() > 0.95
    assert "(temperature 1, weight 1 beside the labels)" in capsys.readouterr().out


@pytest.mark.thorough
def test_after_transform_a_model_teaches_its_narrower_self(retrain, run, tmp_path):
    whole = run(retrain(structure=channel(narrowed(DIGITS, tmp_path / "whole"))), "whole")["model"]
    taught = run(retrain(teacher=channel(whole)), "taught")["model"]
    assert taught.get_float_custom_property("val_accuracy") > 0.85
    assert set(load(taught).signatures) == {"serving_default", "transformed_tensors"}


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_settings_without_a_teacher_are_refused(raw_retrain):
    for arguments in ({"distill": {"weight": 0.3}}, {"custom_config": {"distill": True}}):
        with pytest.raises(morph.MorphError, match=r"but this Retrainer has no teacher. Give it teacher="):
            raw_retrain(**arguments)


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        ({"temprature": 2.0}, r"distill is \{'temprature': 2.0\}; expected true, false, or a dict with some of"),
        ({"weight": 2.0}, r"distill has the weight 2.0; expected a number of the teacher, above 0 and at most 1"),
    ],
)
def test_wrong_settings_are_refused_in_the_constructor(raw_retrain, tmp_path, distill, message):
    somewhere = channel(make(standard_artifacts.Model, tmp_path / "teacher"))
    with pytest.raises(morph.MorphError, match=message):
        raw_retrain(teacher=somewhere, distill=distill)
    with pytest.raises(morph.MorphError, match="custom_config that is a RuntimeParameter"):
        raw_retrain(teacher=somewhere, distill={"weight": 0.3}, custom_config=RuntimeParameter("config", str))


def test_a_teacher_that_is_not_there_ends_before_training(raw_retrain, run, tmp_path, nothing_trains):
    component = raw_retrain(teacher=channel(make(standard_artifacts.Model, tmp_path / "teacher")))
    fails_cleanly(run, component, r"There is no SavedModel in .*teacher.* so there is no teacher", tmp_path)


def test_a_damaged_teacher_ends_before_training(raw_retrain, run, written, tmp_path, nothing_trains):
    artifact = written(RAW_DIGITS, seed_of(RAW_DIGITS))
    pathlib.Path(artifact.uri, "Format-Serving", "saved_model.pb").write_bytes(b"no model")
    message = r"The teacher in .* is not loaded: its saved_model\.pb is damaged"
    fails_cleanly(run, raw_retrain(teacher=channel(artifact)), message, tmp_path)


def other_network(tmp_path, pixels, classes):
    start = keras.Input((pixels,), name="image")
    model = keras.Model(start, keras.layers.Dense(classes)(start))
    model.export(str(tmp_path / "other" / "Format-Serving"), verbose=False)
    return channel(make(standard_artifacts.Model, tmp_path / "other"))


@pytest.mark.parametrize(
    ("pixels", "classes", "message"),
    [
        (63, 10, r"has no signature that takes what the network takes, image: float32 \(None, 64\): it has \{.*63"),
        (64, 9, r"gives the outputs \{.*9\)\}, but the network that it is to teach gives \{.*10\)\}"),
    ],
)
def test_a_teacher_of_other_shapes_ends_before_training(
    raw_retrain, run, tmp_path, nothing_trains, pixels, classes, message
):
    fails_cleanly(run, raw_retrain(teacher=other_network(tmp_path, pixels, classes)), message, tmp_path)


def test_a_teacher_is_an_input_of_its_own():
    assert "teacher" in Retrainer.SPEC_CLASS.INPUTS


def test_a_teacher_that_reads_files_is_not_loaded(tmp_path):
    module = tf.Module()
    module.serve = tf.function(tf.io.read_file, input_signature=[tf.TensorSpec((), tf.string)])
    tf.saved_model.save(module, str(tmp_path / "model" / "Format-Serving"))
    with pytest.raises(morph.MorphError, match=r"The teacher in .* is not loaded: it reads files \(operation ReadFile"):
        teacher.read(make(standard_artifacts.Model, tmp_path / "model"), seed_of(RAW_DIGITS))
