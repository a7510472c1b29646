"""Retrainer on real artifacts: the model it exports, what it answers, and what every mistake ends in."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.proto.trainer_pb2 import TrainArgs
from tfx.utils import io_utils, path_utils

import morph_core as morph
from morph_tfx.components import Retrainer
from tests.components.conftest import DIGITS, HALF, RAW_DIGITS, channel, fails_cleanly, narrowed, serialized


def load(artifact):
    return tf.saved_model.load(path_utils.serving_model_path(artifact.uri))


@pytest.fixture
def retrain(transformed, tmp_path):
    def make_component(**arguments):
        transformed_examples, transform_graph = transformed
        defaults = {
            "examples": channel(transformed_examples),
            "transform_graph": channel(transform_graph),
            "module_file": DIGITS,
            "custom_config": {"epochs": 3},
        }
        if "structure" not in arguments:
            arguments["structure"] = channel(narrowed(DIGITS, tmp_path, **HALF))
        return Retrainer(**{**defaults, **arguments})

    return make_component


@pytest.fixture
def raw_retrain(examples, schema, tmp_path):
    def make_component(**arguments):
        defaults = {
            "examples": channel(examples),
            "schema": channel(schema),
            "module_file": RAW_DIGITS,
            "custom_config": {"epochs": 4},
        }
        if "structure" not in arguments:
            arguments["structure"] = channel(narrowed(RAW_DIGITS, tmp_path, hidden=16))
        return Retrainer(**{**defaults, **arguments})

    return make_component


def test_the_model_answers_serialized_examples_through_the_transform_graph(retrain, run, held_out, capsys):
    outputs = run(retrain())
    images, labels = held_out
    serving = load(outputs["model"]).signatures["serving_default"]
    answers = serving(examples=serialized(images, labels, without=["label"]))["outputs"].numpy()
    assert answers.shape == (297, 10)
    assert (answers.argmax(axis=1) == labels).mean() > 0.85
    # The label falls away by itself, the vocabulary of the ink travels along.
    assert np.allclose(answers, serving(examples=serialized(images, labels))["outputs"], atol=1e-5)
    assert [path.name for path in pathlib.Path(outputs["model"].uri, "Format-Serving", "assets").iterdir()] == ["ink"]
    shown = capsys.readouterr().out
    assert "[retrain] starts: 141 steps in 3 epochs" in shown
    assert "[retrain] epoch 3/3  on the evaluation split: accuracy" in shown


def test_the_model_has_the_structures_widths_and_tells_where_it_comes_from(retrain, run):
    model = run(retrain())["model"]
    # conv 1 -> 8 and 8 -> 12 (3 x 3, no bias), their scales, offsets and statistics, then 2 x 2 x 12 + 2 inks -> 10
    params = 9 * 8 + 4 * 8 + 9 * 8 * 12 + 4 * 12 + (2 * 2 * 12 + 2) * 10 + 10
    assert sum(int(np.prod(variable.shape)) for variable in load(model).variables) == params
    assert model.get_float_custom_property("params_structure") == params
    assert model.get_float_custom_property("flops_fraction") < 0.6
    assert model.get_string_custom_property("structure_fingerprint").startswith("sha256:")
    assert model.get_string_custom_property("structure_uri").endswith("narrowed")
    assert 0 < model.get_float_custom_property("val_accuracy") <= 1


def test_the_exported_model_carries_its_structure_and_the_schema_of_the_raw_examples(
    retrain, raw_retrain, run, schema, tmp_path
):
    expected = io_utils.SchemaReader().read(f"{schema.uri}/schema.pbtxt")
    for name, make_component, looked_at in (("transformed", retrain, ""), ("raw", raw_retrain, '{"span": 7}')):
        structure = narrowed(DIGITS if make_component is retrain else RAW_DIGITS, tmp_path / name)
        structure.set_string_custom_property("trained_on", looked_at)  # as PushedStructure sets it
        component = make_component(structure=channel(structure), custom_config={"epochs": 1})
        extra = pathlib.Path(path_utils.serving_model_path(run(component, name)["model"].uri), "assets.extra")
        assert (extra / "structure.json").read_text() == pathlib.Path(structure.uri, "structure.json").read_text()
        assert text_format.Parse((extra / "schema.pbtxt").read_text(), schema_pb2.Schema()) == expected
        assert [file.read_text() for file in extra.glob("trained_on.json")] == ([looked_at] if looked_at else [])
        card = (extra / "MODEL_CARD.md").read_text()
        assert all(feature.name in card for feature in expected.feature)
        assert "| val_loss | " in card and "## How it was searched" in card


@pytest.mark.thorough
def test_without_transform_raw_tensors_and_serialized_examples_get_the_same_answer(raw_retrain, run, held_out):
    outputs = run(raw_retrain(custom_config={"epochs": 12}))
    images, labels = held_out
    signatures = load(outputs["model"]).signatures
    raw = signatures["raw_tensors"](image=tf.constant(images))["outputs"].numpy()
    assert (raw.argmax(axis=1) == labels).mean() > 0.6
    parsed = signatures["serving_default"](examples=serialized(images, labels, without=["label", "ink"]))["outputs"]
    assert np.allclose(raw, parsed, atol=1e-5)


@pytest.mark.thorough
def test_two_trainings_of_one_structure_start_from_different_weights(raw_retrain, run, held_out):
    models = [load(run(raw_retrain(custom_config={"epochs": 1}), name)["model"]) for name in ("one", "two")]
    weights = [np.concatenate([np.ravel(variable) for variable in model.variables]) for model in models]
    assert weights[0].shape == weights[1].shape
    assert not np.allclose(weights[0], weights[1])


@pytest.mark.thorough
def test_the_users_own_signatures_are_exported_beside_ours(raw_retrain, run, module_file, held_out):
    path = module_file("raw_digits")
    with open(path, "a") as file:
        file.write(
            """

def signatures(model, spec):
    import tensorflow as tf

    names = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.range(10, dtype=tf.int64), tf.strings.as_string(tf.range(10)) + "!"), "?"
    )

    def classify(image):
        return {"name": names.lookup(tf.argmax(model(image), axis=-1))}

    assert [feature.name for feature in spec.feature] == ["image", "ink", "label"]
    return {"classify": (classify, [tf.TensorSpec([None, 64], tf.float32, name="image")])}
"""
        )
    model = load(run(raw_retrain(module_file=path))["model"])
    assert set(model.signatures) == {"serving_default", "raw_tensors", "classify"}
    images, _ = held_out
    expected = model.signatures["raw_tensors"](image=tf.constant(images))["outputs"].numpy().argmax(axis=1)
    names = model.signatures["classify"](image=tf.constant(images))["name"].numpy()
    assert list(names) == [b"%d!" % digit for digit in expected]


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_an_input_that_is_no_feature_ends_before_training(retrain, run, module_file, tmp_path, nothing_trains):
    renamed = module_file(
        "digits",
        ('name="ink"', 'name="colour"'),
        ('"ink": ink}', '"colour": ink}'),
        ("    return data_accessor", "    dataset = data_accessor"),
    )
    with open(renamed, "a") as file:
        file.write("    return dataset.map(lambda x, label: ({'image': x['image'], 'colour': x['ink']}, label))\n")
    component = retrain(module_file=renamed, structure=channel(narrowed(renamed, tmp_path)))
    message = (
        r"input 'colour' is none of the transformed features \(image, ink, label\)\. Give the input the feature's name"
    )
    fails_cleanly(run, component, message, tmp_path)


@pytest.mark.thorough
def test_a_single_input_takes_the_only_feature_of_its_shape(raw_retrain, run, module_file, tmp_path, held_out):
    renamed = module_file("raw_digits", ('name="image"', 'name="pixels"'))
    structure = channel(narrowed(renamed, tmp_path))
    model = run(raw_retrain(module_file=renamed, structure=structure, custom_config={"epochs": 1}))["model"]
    signatures = load(model).signatures
    images, labels = held_out
    raw = signatures["raw_tensors"](pixels=tf.constant(images))["outputs"]
    assert np.allclose(raw, signatures["serving_default"](examples=serialized(images, labels))["outputs"], atol=1e-5)


def test_a_structure_of_another_network_ends_before_training(raw_retrain, run, tmp_path, nothing_trains):
    component = raw_retrain(structure=channel(narrowed(DIGITS, tmp_path)))
    fails_cleanly(run, component, r"structure.json belongs to another network", tmp_path)


def test_hyperparameters_of_another_search_are_told_from_the_structure(raw_retrain, run, tmp_path, nothing_trains):
    component = raw_retrain(custom_config={"hparams": {"width": 99}})
    fails_cleanly(run, component, r"belongs to another network.*hyperparameters", tmp_path)


def test_a_failing_export_leaves_nothing(raw_retrain, run, tmp_path, monkeypatch):
    def full(*paths):
        raise OSError("no space left on the device")

    component = raw_retrain(custom_config={"epochs": 1})
    monkeypatch.setattr("morph_tfx.components.artifacts.staging.fileio.rename", full)
    fails_cleanly(run, component, "no space left", tmp_path, error=OSError)


@pytest.mark.parametrize("returned", ["[]", "{'serving_default': model.call}", "{'serving_default': (1, 2)}"])
def test_signatures_of_another_form_are_told_the_form(
    raw_retrain, run, module_file, tmp_path, nothing_trains, returned
):
    path = module_file(
        "raw_digits", ("def input_fn", f"def signatures(model, spec):\n    return {returned}\n\n\ndef input_fn")
    )
    component = raw_retrain(module_file=path)
    fails_cleanly(run, component, r"signatures in .* expected a dict", tmp_path)


@pytest.mark.thorough
def test_a_training_that_diverges_writes_nothing(raw_retrain, run, tmp_path, module_file):
    diverging = module_file("raw_digits", ('"adam"', "keras.optimizers.SGD(float('nan'))"))
    component = raw_retrain(module_file=diverging)
    fails_cleanly(run, component, r"training diverged: the loss is nan .* learning rate", tmp_path)


def test_a_signature_that_fails_does_so_before_training(raw_retrain, run, module_file, tmp_path, nothing_trains):
    returned = "{'short': (lambda x: {'y': model(x)}, [tf.TensorSpec([None, 63])])}"
    path = module_file(
        "raw_digits",
        ("import keras", "import keras\nimport tensorflow as tf"),
        ("def input_fn", f"def signatures(model, spec):\n    return {returned}\n\n\ndef input_fn"),
    )
    component = raw_retrain(module_file=path)
    fails_cleanly(run, component, r"serving signature 'short' cannot be made", tmp_path)


def test_retrainer_needs_the_same_shared_arguments_as_morph_trainer(raw_retrain):
    with pytest.raises(morph.MorphError, match=r"Retrainer needs exactly one of module_file"):
        raw_retrain(module_file=None)


MAP = 'dataset.map(lambda features, label: (features["image"], label))'


def changed_labels(raw_retrain, module_file, tmp_path, labels: str, *replacements, **arguments):
    """A Retrainer of the raw digits whose input_fn yields these labels; `number` is that of the batch."""
    changed = f'dataset.enumerate().map(lambda number, batch: (batch[0]["image"], ({labels})))'
    labels_of_batch = (MAP, changed.replace("label", "batch[1]"))
    path = module_file(
        "raw_digits", ("import keras\n", "import keras\nimport tensorflow as tf\n"), labels_of_batch, *replacements
    )
    structure = channel(narrowed(path, tmp_path, hidden=16))
    return raw_retrain(module_file=path, structure=structure, **{"custom_config": {"epochs": 1}, **arguments})


@pytest.mark.parametrize(
    ("labels", "outputs", "message"),
    [
        ("label", 7, r"labels of the training split go from 0 to 9, but the model has 7 outputs .* from 0 to 6"),
        ("tf.sqrt(tf.cast(label, tf.float32) - 3)", 10, r"\d+ labels of the training split are NaN"),
        ("tf.strings.as_string(label)", 10, r"yields labels that are text"),
    ],
    ids=["beyond the outputs", "NaN", "text"],
)
def test_labels_that_cannot_be_learned_end_before_training(
    raw_retrain, run, module_file, tmp_path, nothing_trains, labels, outputs, message
):
    fewer = ("keras.layers.Dense(10,", f"keras.layers.Dense({outputs},")
    fails_cleanly(run, changed_labels(raw_retrain, module_file, tmp_path, labels, fewer), message, tmp_path)


def test_a_label_beyond_the_outputs_that_only_a_later_batch_has_ends_in_one_message(
    raw_retrain, run, module_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("morph_tfx.components.training.inputs._LOOKED_AT", 1)
    late = "label + 10 * tf.cast(number > 4, tf.int64)"
    component = changed_labels(raw_retrain, module_file, tmp_path, late, train_args=TrainArgs(num_steps=12))
    fails_cleanly(run, component, r"A batch of input_fn in .* cannot be trained on: .*label value of 1\d", tmp_path)


def test_odd_labels_and_batches_are_told(raw_retrain, run, module_file, tmp_path, capsys):
    large = {"epochs": 1, "batch_size": 4096}
    run(changed_labels(raw_retrain, module_file, tmp_path, "label * 0 + 3", custom_config=large))
    told = capsys.readouterr().out
    assert "Note: All labels of the training split are 3" in told
    assert "Note: The batch size is 4096, and the training split has 1500 examples" in told
