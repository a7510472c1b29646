"""Rows by the hundred thousand on MorphTrainer's way to its first step: how much memory the process takes meanwhile.

    python -m tests.faults.many_rows [--rows 1000000] [--cached] [--search]

It reads as the component does: one pass over the labels, then batches to train on. A line for each tenth of the rows
has the resident memory; `--cached` is an `input_fn` that remembers what it read, for comparison, and `--search` trains
on the rows as well, for one epoch.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import channel_utils, standard_artifacts
from tfx.utils import io_utils

from morph_tfx.components import MorphTrainer
from morph_tfx.components.training import inputs

WIDTH = 64
"""Numbers in a row: 256 bytes of it are in memory where somebody keeps it."""

BATCH = 250
_SHARD = 50_000
_SCHEMA = f"""
feature {{ name: "values" type: FLOAT shape {{ dim {{ size: {WIDTH} }} }} presence {{ min_fraction: 1 }} }}
feature {{ name: "label" type: INT shape {{ dim {{ size: 1 }} }} presence {{ min_fraction: 1 }} }}
"""
_MODULE = f"""
import keras
from tfx_bsl.public import tfxio


def input_fn(file_pattern, data_accessor, spec, batch_size):
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key="label", num_epochs=1)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec)


def build_model(hparams):
    values = keras.Input(({WIDTH},), name="values")
    hidden = keras.layers.Dense(16, activation="relu", name="hidden")(values)
    model = keras.Model(values, keras.layers.Dense(10, activation="softmax", name="classes")(hidden))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model
"""


def trainer_of(directory: Path, rows: int, cached: bool = False) -> MorphTrainer:
    """A MorphTrainer, and examples for it: so many rows to train on, and a thousand to evaluate on."""
    module = directory / "module.py"
    remember = "    return data_accessor.tf_dataset_factory(file_pattern, options, spec)"
    module.write_text(_MODULE.replace(remember, f"{remember}.cache()") if cached else _MODULE)
    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    examples.uri, schema.uri = str(directory / "examples"), str(directory / "schema")
    examples.split_names = '["train", "eval"]'
    io_utils.write_pbtxt_file(f"{schema.uri}/schema.pbtxt", text_format.Parse(_SCHEMA, schema_pb2.Schema()))
    for split, count in (("train", rows), ("eval", 1000)):
        _write(directory / "examples" / f"Split-{split}", count)
    return MorphTrainer(
        examples=channel_utils.as_channel([examples]),
        schema=channel_utils.as_channel([schema]),
        module_file=str(module),
        target=0.5,
        custom_config={"epochs": 1, "batch_size": BATCH},
    )


def _write(split: Path, rows: int) -> None:
    split.mkdir(parents=True)
    random = np.random.default_rng(0)
    # A few different ones do: nobody recognises a row that was read before.
    different = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "values": tf.train.Feature(float_list=tf.train.FloatList(value=random.normal(size=WIDTH))),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(random.integers(10))])),
                }
            )
        ).SerializeToString()
        for _ in range(500)
    ]
    shards = -(-rows // _SHARD)
    for shard in range(shards):
        file = split / f"data_tfrecord-{shard:05}-of-{shards:05}.gz"
        with tf.io.TFRecordWriter(str(file), tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)) as to:
            for number in range(min(_SHARD, rows - shard * _SHARD)):
                to.write(different[number % len(different)])


def memory_over_rows(trainer: MorphTrainer, rows: int, looks: int = 10) -> Iterator[tuple[int, int]]:
    """Rows that were trained on so far, and the resident memory in bytes then.

    The first look is before anything of the training split was read, its labels included; `looks` follow on the way.
    """
    given: dict[str, Any] = {name: list(channel.get()) for name, channel in trainer.inputs.items()}
    *_, few = inputs.read_evaluation(given, trainer.exec_properties, BATCH)
    for batch in few:  # so that what the libraries load at their first use is there
        del batch
    yield 0, resident()
    read = inputs.read(given, trainer.exec_properties)
    steps = rows // BATCH
    assert read.steps_per_epoch == steps
    for step, batch in enumerate(read.train.take(steps), 1):
        del batch
        if step % (steps // looks) == 0:
            yield step * BATCH, resident()


def resident() -> int:
    """The resident set of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def search(trainer: MorphTrainer, directory: Path) -> int:
    """Runs the component; the largest resident set that this process ever had, in bytes."""
    outputs = {}
    for name, channel in trainer.outputs.items():
        artifact = channel.type()
        artifact.uri = str(directory / name)
        outputs[name] = [artifact]
    given = {name: list(channel.get()) for name, channel in trainer.inputs.items()}
    trainer.executor_spec.executor_class().Do(given, outputs, trainer.exec_properties)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # in units of 1024 bytes on Linux


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--cached", is_flag=True, help="With an input_fn that remembers what it read.")
@click.option("--search", "searches", is_flag=True, help="Also train on them for one epoch.")
def main(rows: int, cached: bool, searches: bool) -> None:
    """Prints rows and megabytes, line by line."""
    directory = Path(tempfile.mkdtemp(prefix="rows-"))
    try:
        trainer = trainer_of(directory, rows, cached)
        for seen, memory in memory_over_rows(trainer, rows):
            click.echo(f"{seen:,} rows: {memory / 1e6:.1f} MB")
        if searches:
            click.echo(f"a search over them: {search(trainer, directory) / 1e6:.1f} MB at most")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
