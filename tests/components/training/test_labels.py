"""Labels that cannot be learned end before the first step, in one message."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from morph_core import MorphError
from morph_tfx.components.training import labels


def dataset(values, batch_size: int = 2) -> tf.data.Dataset:
    values = np.asarray(values)
    return tf.data.Dataset.from_tensor_slices((np.zeros((len(values), 3), np.float32), values)).batch(batch_size)


def model(outputs: int = 3, loss: object = "sparse_categorical_crossentropy") -> keras.Model:
    inputs = keras.Input((3,))
    made = keras.Model(inputs, keras.layers.Dense(outputs)(inputs))
    made.compile("sgd", loss)
    return made


def look(values, **options) -> dict[str, labels.Labels]:
    return {"training": labels.seen_in(dataset(values, **options))}


def test_a_pass_counts_batches_and_examples_and_finds_the_bounds():
    assert labels.seen_in(dataset([3, 1, 2])) == labels.Labels(2, 3, 1.0, 3.0, 0)
    assert labels.seen_in(dataset([0.5, np.nan, np.inf])) == labels.Labels(2, 3, 0.5, 0.5, 2)
    assert labels.seen_in(dataset([[1, 0], [0, 1]])) == labels.Labels(1, 2, 0.0, 1.0, 0)
    assert labels.seen_in(dataset([1.0, 2.0]).take(0)) == labels.Labels(0, 0, None, None, 0)


def test_labels_that_are_not_one_tensor_are_counted_only():
    several = dataset([1, 2, 3]).map(lambda x, y: (x, {"a": y, "b": y}))
    assert labels.seen_in(several) == labels.Labels(2)
    labels.check({"training": labels.seen_in(several)}, model(), "module.py")


def test_text_is_refused_with_the_vocabulary_that_makes_it_numbers():
    with pytest.raises(MorphError, match=r"their.py yields labels that are text.*vocab_filename='label_classes'"):
        labels.check_are_numbers(dataset(["cat", "dog"]), "their.py")


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        ([0, 3], model(), r"training split go from 0 to 3, but the model has 3 outputs .* labels from 0 to 2"),
        ([-1, 2], model(), r"go from -1 to 2.* A vocabulary gives -1 to a label"),
        ([0, 3], model(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)), "the model has 3 outputs"),
        ([0, 3], model(loss=keras.losses.sparse_categorical_crossentropy), "the model has 3 outputs"),
        ([0.0, 2.0], model(1, "binary_crossentropy"), "its loss is binary_crossentropy, so labels from 0 to 1"),
        ([0.0, np.nan], model(1, "mse"), "1 labels of the training split are NaN or infinite"),
    ],
)
def test_labels_that_the_loss_does_not_take_are_refused(values, given, message):
    with pytest.raises(MorphError, match=message):
        labels.check(look(values), given, "module.py")


@pytest.mark.parametrize(
    ("values", "given"),
    [
        ([0, 2], model()),
        ([-5.0, 7.0], model(1, "mse")),
        ([0.25, 1.0], model(1, "binary_crossentropy")),
        ([0, 255], model(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=255))),
        ([0, 9], model(loss=lambda true, predicted: predicted)),
    ],
)
def test_other_labels_are_taken(values, given):
    labels.check(look(values), given, "module.py")


def test_one_class_and_an_epoch_of_one_short_step_are_told():
    [one_class, short] = labels.remarks(look([1, 1], batch_size=8), batch_size=8, steps=2)
    assert one_class == "All labels of the training split are 1: nothing can be told apart there."
    assert short.startswith("The batch size is 8, and the training split has 2 examples: an epoch is one step")
    assert "the whole training 2" in short
    assert labels.remarks(look([1, 0]), batch_size=2, steps=2) == []
