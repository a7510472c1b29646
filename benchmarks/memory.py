"""Whether the memory of a training step grows with its data: peaks of a MorphTrainer on some and on ten times as much.

Each size runs in a process of its own, which searches for one epoch and reports the largest resident set that it ever
had, the libraries included. A record has 256 numbers (1 kB as it is parsed); TFX's reader shuffles in a buffer of
10,000 records, which the smaller size fills as well.

    python -m benchmarks.memory [--records 20000] [--factors 1,10]
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from .memory_module import FEATURE, LABEL, WIDTH

_SHARD = 5000
_SCHEMA = f"""
feature {{ name: "{FEATURE}" type: FLOAT shape {{ dim {{ size: {WIDTH} }} }} presence {{ min_fraction: 1 }} }}
feature {{ name: "{LABEL}" type: INT shape {{ dim {{ size: 1 }} }} presence {{ min_fraction: 1 }} }}
"""


@click.command()
@click.option("--records", default=20_000, show_default=True, help="Training records of the smallest size.")
@click.option("--factors", default="1,10", show_default=True, help="Sizes, as multiples of that.")
@click.option("--worker", hidden=True, help="A directory with examples: search on them and print the peak.")
def main(records: int, factors: str, worker: str | None) -> None:
    """Measures and prints a table."""
    if worker is not None:
        print(json.dumps(_search(pathlib.Path(worker))))
        return
    table = Table(title="Peak resident memory of a MorphTrainer process", title_justify="left")
    for heading in ("training records", "parsed [MB]", "steps", "peak [MB]", "seconds"):
        table.add_column(heading, justify="right")
    for factor in map(int, factors.split(",")):
        with tempfile.TemporaryDirectory() as directory:
            _write(pathlib.Path(directory), records * factor)
            start = time.monotonic()
            command = [sys.executable, "-m", "benchmarks.memory", "--worker", directory]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            size = records * factor * WIDTH * 4 / 1e6
            row = [f"{records * factor:,}", f"{size:.0f}", found["steps"], found["peak_mb"], time.monotonic() - start]
            table.add_row(*(value if isinstance(value, str) else f"{value:.0f}" for value in row))
    Console().print(table)


def _write(directory: pathlib.Path, records: int) -> None:
    """Examples in the layout of TFX's artifact: shards of the training split, and one small evaluation split."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    # Few different records are enough: what is read is not recognised.
    serialized = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    FEATURE: tf.train.Feature(float_list=tf.train.FloatList(value=random.normal(size=WIDTH))),
                    LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[int(random.integers(10))])),
                }
            )
        ).SerializeToString()
        for _ in range(500)
    ]
    for split, count in (("train", records), ("eval", 1000)):
        folder = directory / f"Split-{split}"
        folder.mkdir()
        shards = -(-count // _SHARD)
        for shard in range(shards):
            name = folder / f"data_tfrecord-{shard:05}-of-{shards:05}.gz"
            with tf.io.TFRecordWriter(str(name), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
                for number in range(min(_SHARD, count - shard * _SHARD)):
                    writer.write(serialized[number % len(serialized)])


def _search(directory: pathlib.Path) -> dict[str, float]:
    """Runs the executor on the examples; the number of steps and the peak of this process."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx.types import channel_utils, standard_artifacts
    from tfx.utils import io_utils

    from morph_core import Structure
    from morph_tfx.components import MorphTrainer

    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    examples.uri, schema.uri = str(directory), str(directory / "schema")
    examples.split_names = '["train", "eval"]'
    io_utils.write_pbtxt_file(f"{schema.uri}/schema.pbtxt", text_format.Parse(_SCHEMA, schema_pb2.Schema()))
    component = MorphTrainer(
        examples=channel_utils.as_channel([examples]),
        schema=channel_utils.as_channel([schema]),
        module_file=str(pathlib.Path(__file__).with_name("memory_module.py")),
        target=0.5,
        custom_config={"epochs": 1, "batch_size": 128},
    )
    outputs = {}
    for name, channel in component.outputs.items():
        artifact = channel.type()
        artifact.uri = str(directory / name)
        outputs[name] = [artifact]
    inputs = {name: list(channel.get()) for name, channel in component.inputs.items()}
    component.executor_spec.executor_class().Do(inputs, outputs, component.exec_properties)
    structure = Structure.load(str(directory / "structure" / "structure.json"))
    # ru_maxrss is in kilobytes of 1024 bytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"peak_mb": peak, "steps": structure.settings["steps"]}


if __name__ == "__main__":
    main()
