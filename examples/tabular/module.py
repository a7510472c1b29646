"""The user module: columns to tensors, and the network. Nothing in it knows about morphing.

Transform learns a vocabulary for each column of strings, and the network an embedding of it; columns of numbers get
mean 0 and variance 1, and a missing number is the mean. For your own table, change the two lists of columns.
"""

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public import tfxio

LABEL = "left"
NUMBERS = ["months", "monthly_fee", "support_calls", "days_since_login"]
# Columns of strings, and how many different ones there may be: the most frequent, and one number for all others.
STRINGS = {"plan": 8, "country": 16, "payment": 8}


def dense(column, missing):
    """A column as (batch, 1). Transform gives one that is not in every row as a SparseTensor."""
    if isinstance(column, tf.SparseTensor):
        shape = (column.dense_shape[0], 1)
        column = tf.sparse.to_dense(tf.SparseTensor(column.indices, column.values, shape), default_value=missing)
    return tf.reshape(column, (-1, 1))


def preprocessing_fn(inputs):
    """Raw columns to the features that the network is trained on."""
    features = {LABEL: inputs[LABEL]}
    for name in NUMBERS:
        features[name] = dense(tft.scale_to_z_score(inputs[name]), missing=0.0)
    for name, size in STRINGS.items():
        features[name] = tft.compute_and_apply_vocabulary(
            dense(inputs[name], missing=""), top_k=size - 1, num_oov_buckets=1, vocab_filename=name
        )
    return features


def input_fn(file_pattern, data_accessor, spec, batch_size):
    """One pass over the files as (features, label) batches. `spec` is the tft.TFTransformOutput of preprocessing_fn."""
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1, label_key=LABEL)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec.transformed_metadata.schema)


def build_model(hparams):
    """The seed network, compiled; inputs are named as the features. Be generous with widths: the search takes away."""
    inputs = {name: keras.Input((1,), name=name) for name in NUMBERS}
    columns = list(inputs.values())
    for name, size in STRINGS.items():
        inputs[name] = keras.Input((1,), name=name, dtype="int64")
        embedded = keras.layers.Embedding(size, hparams["embedding"], name=f"{name}_embedding")(inputs[name])
        columns.append(keras.layers.Flatten(name=f"{name}_flat")(embedded))
    x = keras.layers.Concatenate(name="columns")(columns)
    for number in range(2):
        x = keras.layers.Dense(hparams["width"], activation="relu", name=f"dense{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="leaves")(x))
    model.compile(keras.optimizers.Adam(hparams["learning_rate"]), "binary_crossentropy", metrics=["accuracy"])
    return model
