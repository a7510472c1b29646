"""The smallest task that goes through every step of both pipelines: four numbers, two classes, one epoch a training.

Its data come in spans, one a night, so that each retraining has something new to learn from.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import yaml

from morph_tfx.pipelines.config import PipelineConfig, load_config

FEATURES = ("a", "b", "c", "d")

MODULE = """
import keras
import tensorflow as tf
from tfx_bsl.public import tfxio

FEATURES, LABEL = ("a", "b", "c", "d"), "label"


def preprocessing_fn(inputs):
    numbers = [tf.reshape(inputs[name], (-1, 1)) for name in FEATURES]
    return {LABEL: inputs[LABEL], "numbers": tf.concat(numbers, axis=1)}


def input_fn(file_pattern, data_accessor, spec, batch_size):
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1, label_key=LABEL)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec.transformed_metadata.schema)


def build_model(hparams):
    numbers = keras.Input((4,), name="numbers")
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(numbers)
    hidden = keras.layers.Dense(8, activation="relu", name="second")(hidden)
    model = keras.Model(numbers, keras.layers.Dense(2, activation="softmax", name="classes")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model
"""


def write_task(directory: Path, name: str = "small", **settings: object) -> PipelineConfig:
    """Writes module file and configuration, both named by the pipeline, and returns it.

    Args:
        directory: that holds everything, the data of `write_span` too.
        name: of the pipeline.
        settings: of the configuration, beside or instead of those here.
    """
    directory.mkdir(parents=True, exist_ok=True)
    module = directory / "module.py"
    module.write_text(MODULE, encoding="utf-8")
    splits = {split: f"span-{{SPAN}}/{split}/*" for split in ("train", "eval")}
    given = {
        "name": name,
        "data": {"format": "csv", "path": "data", "splits": splits},
        "module_file": module.name,
        "label": "label",
        "target": 0.6,
        "search": {"epochs": 1, "batch_size": 32},
        "retrain": {"epochs": 1, "batch_size": 32},
        "evaluate": {"lower_bound": 0.0, "max_drop": 1.0},  # what is tried is not the accuracy
        **settings,
    }
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    return load_config(file)


def write_span(directory: Path, span: int, rows: int = 200) -> None:
    """Another sample for each span: the class is whether the numbers' sum is above 0."""
    random = np.random.default_rng(span)
    for split, count in (("train", rows), ("eval", rows // 2)):
        file = directory / "data" / f"span-{span}" / split / "rows.csv"
        file.parent.mkdir(parents=True)
        numbers = random.normal(size=(count, len(FEATURES))).round(4)
        with open(file, "w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow([*FEATURES, "label"])
            writer.writerows([*map(repr, map(float, row)), int(row.sum() > 0)] for row in numbers)
