"""The user module: how image bytes become tensors, and the network. Nothing in it knows about morphing.

Transform runs `preprocessing_fn` before training; its graph goes into the served model, which therefore takes image
bytes, too. MorphTrainer and Retrainer call `build_model` and `input_fn`.
"""

import keras
import tensorflow as tf
from tfx_bsl.public import tfxio

IMAGE, LABEL = "image", "label"
HEIGHT, WIDTH, COLORS = 8, 8, 1  # what the network sees, whatever the files hold


def decode(image):
    """PNG or JPEG bytes, a scalar string, to float32 (HEIGHT, WIDTH, COLORS) in 0 to 1."""
    pixels = tf.io.decode_image(image, channels=COLORS, expand_animations=False)
    pixels = tf.image.resize(tf.image.convert_image_dtype(pixels, tf.float32), (HEIGHT, WIDTH))
    return tf.ensure_shape(pixels, (HEIGHT, WIDTH, COLORS))


def preprocessing_fn(inputs):
    """Raw features to those that the network is trained on. The bytes come as (batch, 1)."""
    images = tf.map_fn(decode, inputs[IMAGE][:, 0], fn_output_signature=tf.float32)
    return {IMAGE: tf.reshape(images, (-1, HEIGHT, WIDTH, COLORS)), LABEL: inputs[LABEL]}


def input_fn(file_pattern, data_accessor, spec, batch_size):
    """One pass over the files as (features, label) batches. `spec` is the tft.TFTransformOutput of preprocessing_fn."""
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1, label_key=LABEL)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec.transformed_metadata.schema)


def build_model(hparams):
    """The seed network, compiled; its input is named as the feature. Be generous with widths: the search takes away."""
    image = x = keras.Input((HEIGHT, WIDTH, COLORS), name=IMAGE)
    for number, width in enumerate(hparams.get("widths", [32, 32, 32])):
        strides = 1 if number == 0 else 2
        x = keras.layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False, name=f"conv{number}")(x)
        # Momentum 0.9, not Keras' 0.99: an epoch has 25 steps only, and the moving averages must keep up.
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax", name="probabilities")(x))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
