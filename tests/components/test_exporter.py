"""Exporter on real artifacts: the files are the network that is pushed, and what every mistake ends in."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.components.evaluator import constants
from tfx.types import standard_artifacts
from tfx.utils import path_utils

import morph_core as morph
from morph_core.device import export as exporting
from morph_core.device.request import FORMATS
from morph_tfx.components import Exporter, MorphTrainer
from morph_tfx.components.exporter.executor import _classes, told
from morph_tfx.components.training import trained_model, user_module
from tests.components.conftest import DIGITS, RAW_DIGITS, channel, fails_cleanly, make, serialized
from tests.core.extras import needs_onnx


def load(model):
    """The SavedModel that is pushed."""
    return tf.saved_model.load(path_utils.serving_model_path(model.uri))


@pytest.fixture
def export(trained, transformed):
    """export(**arguments) makes an Exporter of the model on the transformed digits."""

    def make_component(**arguments):
        defaults = {
            "model": channel(trained),
            "examples": channel(transformed[0]),
            "transform_graph": channel(transformed[1]),
            "module_file": DIGITS,
            "keep_slower": True,
        }
        return Exporter(**{**defaults, **arguments})

    return make_component


@pytest.fixture
def raw_export(raw_trained, examples, schema, export):
    def make_component(**arguments):
        raw = {"model": channel(raw_trained), "examples": channel(examples), "schema": channel(schema)}
        return export(**{**raw, "transform_graph": None, "module_file": RAW_DIGITS, **arguments})

    return make_component


def blessing(blessed: bool, root: pathlib.Path):
    artifact = make(standard_artifacts.ModelBlessing, root / "blessing")
    artifact.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    return channel(artifact)


def files(artifact) -> list[str]:
    return sorted(path.name for path in pathlib.Path(artifact.uri).rglob("*"))


def summary(artifact) -> dict:
    return json.loads(pathlib.Path(artifact.uri, "export.json").read_text())


def test_the_file_answers_what_the_pushed_model_answers(export, run, trained, held_out, tmp_path, capsys):
    """LiteRT alone, on raw digits that are transformed here by hand, beside the SavedModel on serialized examples."""
    exported = run(export(model_blessing=blessing(True, tmp_path)))["exported_model"]
    assert files(exported) == ["export.json", "litert.tflite"]
    images, labels = held_out[0][:20], held_out[1][:20]
    expected = load(trained).signatures["serving_default"](examples=serialized(images, labels))["outputs"].numpy()
    interpreter = tf.lite.Interpreter(str(pathlib.Path(exported.uri, "litert.tflite")))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    vocabulary = pathlib.Path(trained.uri, "Format-Serving", "assets", "ink").read_text().split()
    for image, label, answer in zip(images, labels, expected, strict=True):
        ink = np.zeros((1, 2), np.float32)
        ink[0, vocabulary.index("blue" if label % 2 else "black")] = 1
        (found,) = runner(image=image.reshape(1, 8, 8, 1) / 16, ink=ink).values()
        np.testing.assert_allclose(found[0], answer, atol=1e-3)
    assert "litert: kept; " in capsys.readouterr().out


def test_the_summary_and_the_properties_say_what_each_file_is(export, run, trained):
    formats = ["litert", "litert-float16", "litert-int8"]
    exported = run(export(formats=formats, batch_size=4, max_accuracy_loss=0.5))["exported_model"]
    said = summary(exported)
    assert (said["model"], said["blessed"], said["batch_size"], said["examples"]) == (trained.uri, True, 4, 256)
    assert [form["format"] for form in said["forms"]] == formats
    for form in said["forms"]:
        path = pathlib.Path(exported.uri, form["file"])
        assert form["problem"] == "" and form["size"] == path.stat().st_size
        assert form["difference"] <= form["tolerance"] == FORMATS[form["format"]].tolerance
        assert form["accuracy"] == pytest.approx(form["model_accuracy"], abs=0.1)
        assert form["milliseconds"] > 0 and form["model_milliseconds"] > 0
    assert exported.get_string_custom_property("formats") == " ".join(formats)
    assert exported.get_int_custom_property("blessed") == 1
    assert exported.get_float_custom_property("litert_int8_bytes") == said["forms"][2]["size"]
    assert exported.get_float_custom_property("litert_accuracy") == said["forms"][0]["accuracy"]
    assert exported.get_string_custom_property("structure_fingerprint").startswith("sha256:")


@needs_onnx
def test_an_onnx_file_answers_what_the_litert_file_answers(raw_export, run, held_out):
    """Each by its own runtime, without any of our code."""
    onnxruntime = pytest.importorskip("onnxruntime")
    exported = run(raw_export(formats=["litert", "onnx"]))["exported_model"]
    assert files(exported) == ["export.json", "litert.tflite", "onnx.onnx"]
    for form in summary(exported)["forms"]:
        assert form["problem"] == "" and form["difference"] <= 1e-3 and form["size"] > 0
        assert form["accuracy"] == form["model_accuracy"] > 0
        assert form["milliseconds"] > 0
    session = onnxruntime.InferenceSession(pathlib.Path(exported.uri, "onnx.onnx").read_bytes())
    interpreter = tf.lite.Interpreter(str(pathlib.Path(exported.uri, "litert.tflite")))
    runner = interpreter.get_signature_runner()
    for image in held_out[0][:8]:
        image = image.reshape(1, 64)
        (found,) = session.run(None, {session.get_inputs()[0].name: image})
        (expected,) = runner(**dict.fromkeys(runner.get_input_details(), image)).values()
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_wrong_or_slower_is_said_and_not_kept(raw_export, run, monkeypatch, capsys):
    monkeypatch.setattr(exporting.Stopwatch, "milliseconds", lambda self, calls: [2.0, 1.0])
    formats = ["litert", "litert-int8"]
    component = raw_export(formats=formats, tolerances={"litert-int8": 1e-9}, keep_slower=False)
    exported = run(component)["exported_model"]
    assert files(exported) == ["export.json"]
    slower, wrong = summary(exported)["forms"]
    assert slower["problem"] == "it takes 2 ms here, the Keras model 1 ms"
    assert "outputs differ from the model's by" in wrong["problem"]
    assert (slower["file"], wrong["file"]) == (None, None) and wrong["size"] > 0
    assert exported.get_string_custom_property("formats") == ""
    shown = capsys.readouterr().out
    assert "litert: not kept: it takes 2 ms" in shown and "litert-int8: not kept: its outputs differ" in shown


def test_a_model_that_is_not_blessed_is_not_exported(raw_export, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(morph, "export", None)
    exported = run(raw_export(model_blessing=blessing(False, tmp_path)))["exported_model"]
    assert files(exported) == ["export.json"]
    assert summary(exported)["blessed"] is False and summary(exported)["forms"] == []
    assert exported.get_int_custom_property("blessed") == 0
    assert "Nothing is exported: the model is not blessed." in capsys.readouterr().out


def test_the_network_of_a_search_that_trained_it_to_the_end_is_read_back(examples, schema, run):
    """The search cuts its network in the middle of a run; what is read back has that network's weights."""
    search = MorphTrainer(
        examples=channel(examples),
        schema=channel(schema),
        module_file=RAW_DIGITS,
        target=0.5,
        gate="fisher",
        finish="in_place",
        search_fraction=0.5,
        custom_config={"epochs": 2},
    )
    model = run(search)["model"]
    seed = user_module.load({"module_file": RAW_DIGITS}).seed({})
    network, structure = trained_model.read_network(model.uri, seed)
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    images = np.random.default_rng(0).uniform(0, 16, (5, 64)).astype(np.float32)
    expected = load(model).signatures["raw_tensors"](image=tf.constant(images))["outputs"]
    np.testing.assert_allclose(network(images), expected, atol=1e-5)


def test_an_operation_without_a_counterpart_is_told_and_the_other_formats_are_kept(
    raw_export, run, monkeypatch, tmp_path
):
    right = exporting._litert_bytes

    def lacking(model, kind, *rest):
        if kind.name == "litert-int8":
            raise exporting.CannotExpress("Format 'litert-int8' cannot express operation Erfinv, in 'odd'.")
        return right(model, kind, *rest)

    monkeypatch.setattr(exporting, "_litert_bytes", lacking)
    exported = run(raw_export(formats=["litert-int8", "litert"]))["exported_model"]
    assert files(exported) == ["export.json", "litert.tflite"]
    lacks, kept = summary(exported)["forms"]
    assert "cannot express operation Erfinv, in 'odd'" in lacks["problem"] and lacks["size"] is None
    assert kept["file"] == "litert.tflite"


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_missing_extra_is_named_before_anything_is_converted(raw_export, run, tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    component = raw_export(formats=["onnx"])
    monkeypatch.setattr(exporting, "importlib", type("", (), {"import_module": staticmethod(missing)}))
    fails_cleanly(run, component, r"tf2onnx, which is not installed.*pip install 'morph-tfx\[onnx\]'", tmp_path)


def test_a_failure_in_the_middle_leaves_nothing(raw_export, run, tmp_path, monkeypatch):
    right = morph.export

    def full(network, file, *rest, format, **options):
        if format == "litert-float16":
            raise OSError("no space left on the device")
        return right(network, file, *rest, format=format, **options)

    monkeypatch.setattr(morph, "export", full)
    component = raw_export(formats=["litert", "litert-float16"])
    fails_cleanly(run, component, "no space left", tmp_path, error=OSError)


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (
            "Network/weights.npz",
            r"cannot be made again: it carries no Network/weights\.npz\. Expected the output 'model'",
        ),
        ("Format-Serving/assets.extra/structure.json", r"it carries no assets\.extra/structure\.json\. Expected"),
    ],
)
def test_a_model_of_another_trainer_is_refused(raw_export, run, raw_trained, damaged, tmp_path, remove, message):
    other = damaged(raw_trained)
    pathlib.Path(other.uri, remove).unlink()
    fails_cleanly(run, raw_export(model=channel(other)), message, tmp_path)


def test_weights_with_a_pickle_are_refused(raw_export, run, raw_trained, damaged, tmp_path):
    other = damaged(raw_trained)
    np.savez(pathlib.Path(other.uri, "Network", "weights.npz"), paths=np.array([object()], dtype=object))
    message = r"cannot be read .*Restore the file, or train the model again"
    fails_cleanly(run, raw_export(model=channel(other)), message, tmp_path)


def test_another_module_than_the_models_is_refused(raw_export, run, module_file, tmp_path):
    other = module_file("raw_digits", ('hparams.get("width", 24)', "20"))
    fails_cleanly(run, raw_export(module_file=other), "was made for another network", tmp_path)


def test_a_bound_on_accuracy_needs_classes(raw_export, run, module_file, tmp_path):
    scores = "lambda features, label: (features['image'], tf.stack([tf.cast(label, tf.float32) / 3] * 2))"
    other = module_file(
        "raw_digits",
        ("import keras", "import keras\nimport tensorflow as tf"),
        ('lambda features, label: (features["image"], label)', scores),
    )
    component = raw_export(module_file=other, max_accuracy_loss=0.1)
    fails_cleanly(run, component, r"max_accuracy_loss is 0\.1, but the accuracy cannot be measured", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ["tflite"]}, "Unknown format 'tflite'"),
        ({"formats": ["litert"], "tolerances": {"onnx": 1}}, "tolerances names 'onnx'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"module_file": None}, "Exporter needs exactly one of module_file"),
        ({"transform_graph": None}, "Exporter needs transform_graph"),
        ({"custom_config": {"hparam": {}}}, "Did you mean 'hparams'"),
    ],
)
def test_what_can_be_seen_without_data_is_refused_when_the_pipeline_is_built(export, arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        export(**arguments)


def test_labels_are_classes_where_there_is_a_score_for_each():
    inputs = keras.Input((2,))
    scores = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    one = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    column = tf.constant([[1], [2]], tf.int64)
    assert list(_classes(scores, column, 2)) == [1, 2]
    assert list(_classes(scores, tf.constant([1.0, 2.0]), 2)) == [1, 2]
    assert list(_classes(scores, tf.constant([[0.0, 1, 0], [0, 0, 1]]), 2)) == [1, 2]
    assert _classes(scores, tf.constant([0.5, 2.0]), 2) is None
    assert _classes(one, column, 2) is None
    assert _classes(scores, {"a": column}, 2) is None


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            {"problem": "", "difference": 0.01, "accuracy": 0.9},
            "litert: kept; 1,200 bytes, outputs within 0.01 of the model's, accuracy 90.0% (model 91.0%), "
            "0.5 ms (model 1 ms)",
        ),
        (
            {"problem": "it takes 0.5 ms here", "difference": None, "accuracy": None},
            "litert: not kept: it takes 0.5 ms here; 1,200 bytes, 0.5 ms (model 1 ms)",
        ),
        ({"problem": "cannot express Erfinv", "size": None}, "litert: not kept: cannot express Erfinv"),
    ],
)
def test_what_came_of_a_format_is_told_in_a_line(form, expected):
    numbers = {"size": 1200, "model_accuracy": 0.91, "milliseconds": 0.5, "model_milliseconds": 1.0}
    assert told({"format": "litert", **numbers, **form}) == expected
