"""A user module: the network, its data and its preprocessing. Replace the three functions by your own.

Nothing in here knows about morphing. `build_model` returns the seed network, compiled; the widths that it gives to its
layers are where the search starts. `input_fn` turns example files into a `tf.data.Dataset`. `preprocessing_fn` is
TensorFlow Transform's: it runs before training and, unchanged, inside the served model.

The examples here have a feature "image" of 28 x 28 floats and an integer feature "label".
"""

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public import tfxio

LABEL = "label"
IMAGE = "image"
IMAGE_SHAPE = (28, 28, 1)


def preprocessing_fn(inputs):
    """Raw features, as tensors, to the features that `input_fn` reads. TensorFlow operations and tft analyzers only."""
    pixels = tft.scale_to_0_1(tf.cast(inputs[IMAGE], tf.float32), elementwise=False)
    return {IMAGE: tf.reshape(pixels, (-1, *IMAGE_SHAPE)), LABEL: inputs[LABEL]}


def input_fn(file_pattern, data_accessor, spec, batch_size):
    """One pass over the files as (features, label) batches. `spec` is the tft.TFTransformOutput of preprocessing_fn.

    With a fifth argument, `training`, it is told whether the examples are trained on: shuffle and augment only then.
    """
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1, label_key=LABEL)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec.transformed_metadata.schema)


def build_model(hparams):
    """The seed network, compiled. `hparams` is the mapping of that name in the configuration.

    Inputs are named as the features are. Any network of the functional API will do. Make every layer as wide as you
    would dare: a search takes away, and what is widened again afterwards is widened by one factor.
    """
    width = hparams.get("width", 32)
    image = keras.Input(IMAGE_SHAPE, name=IMAGE)
    x = image
    for stage in range(3):
        x = keras.layers.Conv2D(width * 2**stage, 3, padding="same", use_bias=False, name=f"conv{stage}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{stage}")(x)
        x = keras.layers.ReLU(name=f"relu{stage}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    probabilities = keras.layers.Dense(hparams.get("classes", 10), activation="softmax", name="probabilities")(x)
    model = keras.Model(image, probabilities)
    model.compile(
        optimizer=keras.optimizers.Adam(hparams.get("learning_rate", 1e-3)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
