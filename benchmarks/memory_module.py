"""The user module of `memory.py`: a small dense network on raw examples, read as TFX reads them."""

import keras
from tfx_bsl.public import tfxio

FEATURE, LABEL, WIDTH = "values", "label", 256


def build_model(hparams):
    model = keras.Sequential(
        [
            keras.Input((WIDTH,), name=FEATURE),
            keras.layers.Dense(32, use_bias=False, name="hidden"),
            keras.layers.BatchNormalization(name="normalized"),
            keras.layers.ReLU(name="activated"),
            keras.layers.Dense(10, activation="softmax", name="class"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def input_fn(file_pattern, data_accessor, spec, batch_size):
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key=LABEL, num_epochs=1)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec)
