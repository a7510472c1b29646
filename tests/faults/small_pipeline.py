"""The smallest data, module file and configuration with which every step of the pipeline has something to do.

All of it comes out alike each time, however often a run is killed: random numbers have a seed, Transform computes
nothing from the data, and the module brings the rows into an order of their own, since Beam shuffles them.
"""

import csv
from pathlib import Path

import numpy as np

MODULE = '''
"""Two classes of points with four measurements."""
import keras
import tensorflow as tf
from tfx_bsl.public import tfxio

LABEL = "kind"
NAMES = [f"m{number}" for number in range(4)]


def preprocessing_fn(inputs):
    return {name: inputs[name] for name in [*NAMES, LABEL]}


def input_fn(file_pattern, data_accessor, spec, batch_size):
    options = tfxio.TensorFlowDatasetOptions(batch_size=1000, num_epochs=1, shuffle=False, label_key=LABEL)
    whole = data_accessor.tf_dataset_factory(file_pattern, options, spec.transformed_metadata.schema)

    def in_order(features, label):
        order = tf.argsort(features["m0"][:, 0])
        return {name: tf.gather(column, order) for name, column in features.items()}, tf.gather(label, order)

    return whole.map(in_order).unbatch().batch(batch_size)


def build_model(hparams):
    keras.utils.set_random_seed(1)
    inputs = {name: keras.Input((1,), name=name) for name in NAMES}
    x = keras.layers.Concatenate()(list(inputs.values()))
    for number in range(2):
        x = keras.layers.Dense(12, activation="relu", name=f"dense{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="kinds")(x))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
'''
CONFIG = """
name: small
data: {format: csv, path: data, eval_fraction: 0.3}
module_file: module.py
label: kind
target: 0.5
search: {epochs: 40, batch_size: 50}
retrain: {epochs: 40, batch_size: 50}
evaluate: {lower_bound: 0}
push_to: pushed
"""
_ROWS = 150


def prepare(directory: Path, more: str = "") -> Path:
    """Writes data, module file and configuration into a directory.

    Args:
        directory: made where it is missing.
        more: further lines of the configuration.

    Returns:
        The path of the configuration.
    """
    (directory / "data").mkdir(parents=True)
    (directory / "module.py").write_text(MODULE)
    (directory / "config.yaml").write_text(CONFIG + more)
    points = np.random.default_rng(0).normal(size=(_ROWS, 4))
    with (directory / "data" / "points.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"m{number}" for number in range(4)), "kind"])
        for point in points:
            writer.writerow([*(f"{value:.6f}" for value in point), int(point[0] * point[1] > 0)])
    return directory / "config.yaml"
