"""A user's module file for the digits, after Transform: two inputs, one of them a vocabulary's one-hot."""

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public import tfxio

LABEL = "label"


def preprocessing_fn(inputs):
    """Images to [0, 1] and 8 x 8 x 1, the pen's colour to a one-hot of its place in the vocabulary."""
    ink = tft.compute_and_apply_vocabulary(inputs["ink"], vocab_filename="ink")
    return {
        "image": tf.reshape(tf.cast(inputs["image"], tf.float32) / 16.0, [-1, 8, 8, 1]),
        "ink": tf.reshape(tf.one_hot(ink, 2), [-1, 2]),
        LABEL: inputs["label"],
    }


def build_model(hparams):
    image = keras.Input((8, 8, 1), name="image")
    ink = keras.Input((2,), name="ink")
    x = image
    for width in hparams.get("widths", (16, 16)):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), ink])
    model = keras.Model({"image": image, "ink": ink}, keras.layers.Dense(10, name="digit")(x))
    model.compile(
        keras.optimizers.Adam(hparams.get("learning_rate", 0.01)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def input_fn(file_pattern, data_accessor, spec, batch_size):
    return data_accessor.tf_dataset_factory(
        file_pattern,
        tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key=LABEL, num_epochs=1),
        spec.transformed_metadata.schema,
    )
