"""Files for devices: they answer as the Keras model does, or are not written."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.device import export as exporting
from morph_core.device.request import FORMATS, check_request
from tests.core.extras import needs_onnx
from tests.core.networks import batch_for, conv, mlp, network, randomize

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="files are written with TensorFlow")


def images():
    return network(conv(8, "b"))


def two_inputs():
    """Named against their order, with as many outputs."""
    last, first = keras.Input((3,), name="z"), keras.Input((4,), name="a")
    joined = layers.Concatenate()([first, last])
    return randomize(keras.Model([last, first], [layers.Dense(2)(joined), layers.Dense(3)(last)]))


def one_of_no_counterpart():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(keras.ops.erfinv(layers.Dense(3, name="odd")(inputs))))


EACH = [pytest.param(name, marks=[needs_onnx] if name == "onnx" else []) for name in FORMATS]


@pytest.mark.parametrize("format", EACH)
def test_a_file_answers_as_the_model_does(tmp_path, format):
    model = images()
    path = tmp_path / f"model{FORMATS[format].suffix}"
    examples = batch_for(model, count=16)
    labels = np.asarray(model(examples)).argmax(-1)
    done = morph.export(model, path, examples, format=format, labels=labels, keep_slower=True)
    assert done.problem == "" and done.path == str(path)
    assert done.difference <= FORMATS[format].tolerance
    assert done.size == path.stat().st_size
    assert done.accuracy is not None and done.accuracy[1] == 1.0
    assert min(done.milliseconds) > 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_kept_file_is_the_network(tmp_path):
    """Run by LiteRT without any of our code."""
    import tensorflow as tf

    model = images()
    examples = batch_for(model, count=2)
    morph.export(model, tmp_path / "model.tflite", examples, batch_size=2, keep_slower=True)
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], examples)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, np.asarray(model(examples)), atol=1e-5)


@pytest.mark.parametrize("format", ["litert", "litert-int8", pytest.param("onnx", marks=needs_onnx)])
def test_several_inputs_and_outputs_keep_their_places(tmp_path, format):
    model = two_inputs()
    path = tmp_path / f"model{FORMATS[format].suffix}"
    assert morph.export(model, path, batch_for(model, count=8), format=format, keep_slower=True).problem == ""


@pytest.mark.parametrize("format", ["litert", pytest.param("onnx", marks=needs_onnx)])
def test_a_sequential_model_out_of_a_file_is_written(tmp_path, format):
    """Keras gives it no `input` until it was called."""
    keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)]).save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    path = tmp_path / f"model{FORMATS[format].suffix}"
    assert morph.export(model, path, np.ones((2, 4)), format=format, keep_slower=True).problem == ""
    assert path.is_file()


def test_a_wrong_file_is_not_kept(tmp_path, monkeypatch):
    model = images()
    other = images()
    randomize(other, seed=1)
    right = exporting._litert_bytes
    monkeypatch.setattr(exporting, "_litert_bytes", lambda model, *rest: right(other, *rest))
    done = morph.export(model, tmp_path / "model.tflite", batch_for(model, count=4))
    assert "outputs differ from the model's by" in done.problem and done.path == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_loses_too_much_accuracy_is_not_kept(tmp_path, monkeypatch):
    """Ten examples, of which the file gets one wrong that the model gets right."""
    model = mlp()
    examples = batch_for(model, count=10)
    labels = np.asarray(model(examples)).argmax(-1)
    right = exporting._litert_runner

    def one_wrong(*arguments):
        answer, call = right(*arguments)
        turned = iter([True] + [False] * 100)
        return lambda batch: [-out if next(turned) else out for out in answer(batch)], call

    monkeypatch.setattr(exporting, "_litert_runner", one_wrong)

    def exported(bound):
        given = {"labels": labels, "tolerance": np.inf, "keep_slower": True, "max_accuracy_loss": bound}
        return morph.export(model, tmp_path / "model.tflite", examples, **given)

    refused = exported(0.05)
    assert refused.problem == "its accuracy is 90.0%, the model's 100.0%: a loss of more than 5.0%"
    assert list(tmp_path.iterdir()) == []
    assert exported(0.1).problem == ""


def test_a_slower_file_is_not_kept_unless_asked_for(tmp_path, monkeypatch):
    model = mlp()
    monkeypatch.setattr(exporting.Stopwatch, "milliseconds", lambda self, calls: [2.0, 1.0])
    done = morph.export(model, tmp_path / "model.tflite", batch_for(model, count=4))
    assert done.problem == "it takes 2 ms here, the Keras model 1 ms"
    assert list(tmp_path.iterdir()) == []
    assert morph.export(model, tmp_path / "model.tflite", batch_for(model, count=4), keep_slower=True).problem == ""


@pytest.mark.parametrize("format", ["litert", pytest.param("onnx", marks=needs_onnx)])
def test_an_operation_without_a_counterpart_is_named(tmp_path, format):
    model = one_of_no_counterpart()
    path = tmp_path / f"model{FORMATS[format].suffix}"
    message = rf"Format '{format}' cannot express operation Erfinv, in '.*[Ee]rfinv.*'. Replace the layer"
    with pytest.raises(morph.MorphError, match=message):
        morph.export(model, path, batch_for(model), format=format)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_python_code_is_refused(tmp_path):
    class Written(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(morph.MorphError, match=r"Model '.*' \(Written\) is not a functional Keras model"):
        morph.export(Written(), tmp_path / "model.tflite", np.ones((2, 4)))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(exporting.importlib, "import_module", missing)
    message = r"needs tf2onnx, which is not installed. .* pip install 'morph-tfx\[onnx\]'"
    with pytest.raises(morph.MorphError, match=message):
        exporting._onnx_bytes(mlp())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model.bin", {"format": "tflite"}, "Unknown format 'tflite'. .*Expected one of litert, litert-float16, "),
        ("model.onnx", {}, "A file of format 'litert' ends in .tflite; received .*model.onnx. Name it so, or choose"),
        ("none/model.tflite", {}, "none is no directory that you may write to"),
        ("model.tflite", {"batch_size": 0}, "batch_size is 0; expected a whole number from 1"),
        ("model.tflite", {"batch_size": 9}, "batch_size is 9, and 4 examples are no batch of it"),
        ("model.tflite", {"labels": np.zeros(2, int)}, r"labels have shape \(2,\); expected a whole number for each"),
        ("model.tflite", {"max_accuracy_loss": 0.1}, "max_accuracy_loss is 0.1, but without labels no accuracy"),
        (
            "model.tflite",
            {"examples": np.zeros((4, 3))},
            r"examples have shapes \[\(3,\)\], the model's inputs \[\(32,\)\]",
        ),
    ],
)
def test_a_wrong_argument_is_refused(tmp_path, name, options, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.export(mlp(), tmp_path / name, **{"examples": np.zeros((4, 32)), **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": []}, r"formats is \[\]; expected a list of different ones of litert, litert-float16, "),
        ({"formats": "litert"}, "formats is 'litert'; expected a list"),
        ({"formats": ["litert", "litert"]}, "expected a list of different ones"),
        ({"formats": ["litert-int16"]}, "Unknown format 'litert-int16'. Did you mean 'litert-int8'?"),
        ({"tolerances": {"onnx": 0.1}}, r"tolerances names 'onnx', which is none of the formats \(litert\)"),
        ({"tolerances": {"litert": 0}}, r"tolerances\['litert'\] is 0; expected a number above 0"),
        ({"max_accuracy_loss": -0.1}, "max_accuracy_loss is -0.1; expected a share from 0 to 1"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number from 1"),
    ],
)
def test_what_is_asked_of_several_formats_is_checked_without_a_model(options, message):
    with pytest.raises(morph.MorphError, match=message):
        check_request(**{"formats": ["litert"], **options})
