"""Statistics of BatchNormalization are those of the data afterwards; nothing else changes."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from tests.core.networks import random_structure, randomize, residual

DATA = np.random.default_rng(0).normal(3, 2, (48, 5)).astype("float32") * np.arange(1, 6, dtype="float32")
# Unequal batches, so that a plain mean over batches would be wrong.
BATCHES = [DATA[:10], DATA[10:40], DATA[40:]]


def normalized(**options):
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.BatchNormalization(name="norm", **options)(inputs))


def statistics(layer):
    return as_numpy(layer.moving_mean), as_numpy(layer.moving_variance)


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_the_statistics_are_those_of_the_data_whatever_the_momentum(momentum):
    model = normalized(momentum=momentum)
    assert morph.recalibrate(model, BATCHES) == 1
    mean, variance = statistics(model.get_layer("norm"))
    assert mean == pytest.approx(DATA.mean(0), rel=1e-5)
    assert variance == pytest.approx(DATA.var(0), rel=1e-4)
    assert model.get_layer("norm").momentum == momentum
    assert as_numpy(model(DATA)).std(0) == pytest.approx(np.ones(5), rel=1e-3)


def test_images_count_every_position():
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, layers.BatchNormalization(name="norm")(image))
    data = np.random.default_rng(1).normal(1, 3, (12, 4, 4, 3)).astype("float32")
    morph.recalibrate(model, [(data[:8], np.zeros(8)), (data[8:], np.zeros(4), np.ones(4))])
    mean, variance = statistics(model.get_layer("norm"))
    assert mean == pytest.approx(data.mean((0, 1, 2)), rel=1e-4)
    assert variance == pytest.approx(data.var((0, 1, 2)), rel=1e-4)


def test_only_so_many_steps_are_read():
    read = []

    def batches():
        for batch in BATCHES:
            read.append(batch)
            yield batch

    model = normalized()
    morph.recalibrate(model, batches(), steps=2)
    assert statistics(model.get_layer("norm"))[0] == pytest.approx(DATA[:40].mean(0), rel=1e-5)


def test_layers_of_nested_models_are_found():
    inner = normalized()
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.Sequential([inner, layers.Dense(2)])(inputs))
    assert morph.recalibrate(model, BATCHES) == 1
    assert statistics(inner.get_layer("norm"))[0] == pytest.approx(DATA.mean(0), rel=1e-5)


def test_a_shared_layer_gathers_from_all_its_calls():
    left, right = keras.Input((5,)), keras.Input((5,))
    norm = layers.BatchNormalization()
    model = keras.Model([left, right], layers.Add()([norm(left), norm(right)]))
    morph.recalibrate(model, [([DATA[:24], DATA[24:]],)])
    assert statistics(norm)[0] == pytest.approx(DATA.mean(0), rel=1e-5)
    assert statistics(norm)[1] == pytest.approx(DATA.var(0), rel=1e-4)


def test_a_frozen_layer_keeps_its_statistics_and_weights_stay():
    model = randomize(normalized())
    before = [as_numpy(weight) for weight in model.weights]
    model.get_layer("norm").trainable = False
    assert morph.recalibrate(model, BATCHES) == 0
    model.get_layer("norm").trainable = True
    assert all((as_numpy(weight) == old).all() for weight, old in zip(model.weights, before, strict=True))
    morph.recalibrate(model, BATCHES)
    for weight, old in zip(model.trainable_weights, before, strict=False):
        assert (as_numpy(weight) == old).all()


def test_statistics_that_were_no_numbers_are_mended():
    model = normalized()
    model.get_layer("norm").moving_mean.assign(np.full(5, np.nan))
    morph.recalibrate(model, BATCHES)
    assert statistics(model.get_layer("norm"))[0] == pytest.approx(DATA.mean(0), rel=1e-5)


def test_a_failure_on_the_way_leaves_the_model_as_it_was():
    model = randomize(normalized())
    before = statistics(model.get_layer("norm"))
    with pytest.raises(ValueError, match=r"shape|incompatible|dimension"):
        morph.recalibrate(model, [DATA, DATA[:, :3]])
    after = statistics(model.get_layer("norm"))
    assert all((old == new).all() for old, new in zip(before, after, strict=True))
    assert model.get_layer("norm").momentum == 0.99


@pytest.mark.parametrize(("batches", "message"), [([], "received no batch"), (DATA, r"one array of shape \(48, 5\)")])
def test_what_is_no_batch_is_refused(batches, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.recalibrate(normalized(), batches)


def test_a_narrowed_network_answers_as_in_training_again():
    """The inherited statistics are of the wider network: the narrowed one's outputs are off until they are mended."""
    rng = np.random.default_rng(2)
    data = rng.normal(size=(64, 8, 8, 1)).astype("float32")
    model = randomize(residual(12, blocks=2))
    morph.recalibrate(model, [data])
    structure = random_structure(morph.ChannelGraph.from_model(model), 0.5)
    student = morph.rebuild(model, structure, weights="inherit")
    off = np.abs(as_numpy(student(data)) - trained_view(student, data)).max()
    morph.recalibrate(student, [data])
    assert np.abs(as_numpy(student(data)) - trained_view(student, data)).max() < 0.01 * off


def trained_view(model, data):
    """The outputs in training mode, normalised by the batch's own statistics; the model's are left as they are."""
    before = model.get_weights()
    outputs = as_numpy(model(data, training=True))
    model.set_weights(before)
    return outputs


def test_a_network_without_batch_normalization_is_left_alone():
    inputs = keras.Input((5,))
    assert morph.recalibrate(keras.Model(inputs, layers.Dense(2)(inputs)), BATCHES) == 0
