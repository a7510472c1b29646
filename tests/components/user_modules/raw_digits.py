"""A user's module file for the digits without Transform: the model itself scales and reshapes."""

import keras
from tfx_bsl.public import tfxio


def build_model(hparams):
    model = keras.Sequential(
        [
            keras.Input((64,), name="image"),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Dense(hparams.get("width", 24), activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="normalized"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def input_fn(file_pattern, data_accessor, spec, batch_size):
    dataset = data_accessor.tf_dataset_factory(
        file_pattern,
        tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key="label", num_epochs=1),
        spec,
    )
    return dataset.map(lambda features, label: (features["image"], label))
