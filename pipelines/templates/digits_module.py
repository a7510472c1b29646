"""The demo's user module: scikit-learn's 8 x 8 digits and a small residual network.

Nothing in here knows about morphing: this is what a module file for any Keras network looks like. The widths follow no
wisdom at all, on purpose (a wide first stage, although its feature maps are the largest and its job the simplest):
finding better ones is the search's work.
"""

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public import tfxio

LABEL = "label"
IMAGE = "image"
IMAGE_SHAPE = (8, 8, 1)


def preprocessing_fn(inputs):
    """64 numbers of 0 to 16 become an 8 x 8 image of 0 to 1; Transform finds the largest number in the data."""
    pixels = tft.scale_to_0_1(inputs[IMAGE], elementwise=False)
    return {IMAGE: tf.reshape(pixels, (-1, *IMAGE_SHAPE)), LABEL: inputs[LABEL]}


def input_fn(file_pattern, data_accessor, spec, batch_size):
    """One pass over the files as (features, label) batches. `spec` is the tft.TFTransformOutput of preprocessing_fn."""
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1, label_key=LABEL)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec.transformed_metadata.schema)


def _conv(x, width, name, strides=1):
    x = keras.layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    # Momentum 0.9, not Keras' 0.99: an epoch has 17 steps only, and the moving averages must keep up with the weights.
    return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


def _block(x, width, name):
    """Two convolutions and the shortcut around them; the Add ties the block's output channels to its input channels."""
    y = keras.layers.ReLU(name=f"{name}a_relu")(_conv(x, width, f"{name}a"))
    y = _conv(y, width, f"{name}b")
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([x, y]))


def build_model(hparams):
    """Conv-BN-ReLU blocks with shortcuts, two stages, compiled."""
    first, second = hparams.get("widths", [32, 32])
    image = keras.Input(IMAGE_SHAPE, name=IMAGE)
    x = keras.layers.ReLU(name="stem_relu")(_conv(image, first, "stem"))
    x = _block(x, first, "block1")
    x = keras.layers.ReLU(name="down_relu")(_conv(x, second, "down", strides=2))
    x = _block(x, second, "block2")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax", name="probabilities")(x))
    model.compile(
        optimizer=keras.optimizers.Adam(hparams.get("learning_rate", 3e-3)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
