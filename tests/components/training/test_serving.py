"""Signatures of exported models, for shapes of models and data that the digits do not have."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from morph_core import MorphError
from morph_tfx.components.training import serving
from morph_tfx.components.training.user_module import UserModule

MODULE = UserModule("their_module.py", build_model=lambda hparams: None, input_fn=lambda *all: None, signatures=None)
# As SchemaGen infers it when it is not asked for shapes.
LOOSE_SCHEMA = text_format.Parse(
    'feature { name: "pixels" type: INT } feature { name: "age" type: FLOAT } feature { name: "label" type: INT }',
    schema_pb2.Schema(),
)


def serialized(**features):
    def feature(values):
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    message = tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in features.items()}))
    return tf.constant([message.SerializeToString()] * 2)


def exported(model, schema, tmp_path):
    serving.export(model, serving.signatures(model, schema, MODULE), str(tmp_path / "model"))
    return tf.saved_model.load(str(tmp_path / "model")).signatures


def test_features_without_a_shape_are_made_dense_shaped_and_cast(tmp_path):
    image, age = keras.Input((2, 2), name="pixels"), keras.Input((1,), name="age")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(image), age])
    signatures = exported(keras.Model([image, age], joined), LOOSE_SCHEMA, tmp_path)
    answers = signatures["serving_default"](examples=serialized(pixels=[1, 2, 3, 4], age=[0.5]))["outputs"]
    assert answers.numpy().tolist() == [[1, 2, 3, 4, 0.5]] * 2


@pytest.mark.parametrize("structured", [True, False])
def test_several_outputs_keep_their_names(tmp_path, structured):
    age = keras.Input((1,), name="age")
    double = keras.layers.Rescaling(2.0, name="double")(age)
    triple = keras.layers.Rescaling(3.0, name="triple")(age)
    model = keras.Model(age, {"double": double, "triple": triple} if structured else [double, triple])
    signatures = exported(model, LOOSE_SCHEMA, tmp_path)
    answers = signatures["serving_default"](examples=serialized(age=[2.0]))
    assert {name: value.numpy().ravel().tolist() for name, value in answers.items()} == {
        "double": [4.0, 4.0],
        "triple": [6.0, 6.0],
    }
    raw = signatures["raw_tensors"](age=tf.constant([[2.0]]))
    assert np.allclose(raw["triple"], 6.0)


def test_a_signature_that_reads_files_is_refused_before_the_training(tmp_path):
    def signatures(model, spec):
        def read(path):
            return model(tf.strings.to_number(tf.io.read_file(path))[None, None])

        return {"from_file": (read, [tf.TensorSpec((), tf.string, name="path")])}

    age = keras.Input((1,), name="age")
    model = keras.Model(age, keras.layers.Rescaling(2.0)(age))
    module = dataclasses.replace(MODULE, signatures=signatures)
    with pytest.raises(
        MorphError, match=r"'from_file' cannot be exported: it reads files \(operation ReadFile.*their_module"
    ):
        serving.signatures(model, LOOSE_SCHEMA, module)


def test_outputs_are_named_by_the_classes_and_those_without_a_class_by_nothing():
    outputs = tf.constant([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    named = serving._named({"outputs": outputs}, [b"cat", b"dog"])
    assert named["all_classes"].numpy().tolist() == [[b"cat", b"dog", b""]] * 2
    assert named["predicted_class"].numpy().tolist() == [b"dog", b"cat"]
    # One output is the share of the second class; what makes it likely is the client's to say.
    assert set(serving._named({"outputs": outputs[:, :1]}, [b"cat", b"dog"])) == {"all_classes"}
    assert serving._named({"outputs": outputs}, []) == {}
