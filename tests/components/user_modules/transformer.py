"""A user's module file for the digits as a text of eight rows: a small transformer of somebody else's layers."""

import keras
import keras_hub
from tfx_bsl.public import tfxio


def build_model(hparams):
    pixels = keras.Input((64,), name="image")
    x = keras.layers.Reshape((8, 8))(keras.layers.Rescaling(1 / 16)(pixels))
    x = keras.layers.Dense(32, name="rows")(x)
    x = x + keras_hub.layers.PositionEmbedding(8, name="positions")(x)
    for index in range(hparams.get("blocks", 2)):
        x = keras_hub.layers.TransformerEncoder(64, 4, name=f"block{index + 1}")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(pixels, keras.layers.Dense(10, activation="softmax", name="digit")(x))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def input_fn(file_pattern, data_accessor, spec, batch_size):
    dataset = data_accessor.tf_dataset_factory(
        file_pattern,
        tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key="label", num_epochs=1),
        spec,
    )
    return dataset.map(lambda features, label: (features["image"], label))
