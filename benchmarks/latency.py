"""How well a calibration tells what networks take: predicted milliseconds against measured ones.

A network is calibrated, once for each runtime; then networks of random widths are built and timed, all in turn. Beside
the tables' answers stand those of the estimate that was fitted on the same measurements (a factor for each FLOP, each
byte, and a constant), those of the roofline of a datasheet, and how well the same networks, built anew and timed some
minutes later, tell those times: nothing can predict better than the machine repeats itself.

    python -m benchmarks.latency [--network resnet20] [--runtime xla] [--configurations 50] [--folder build/latency]

Everything is kept in the folder: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import morph_core as morph
from benchmarks.step import resnet20
from morph_core.cost.devices import read_calibration
from morph_core.device import parts
from morph_core.device.runtimes import RUNTIMES, find_runtime
from morph_core.device.stopwatch import stopwatch_of
from morph_core.files import write_whole

# Seeds of the networks that are predicted; a calibration's own are small numbers.
FIRST_SEED = 1000
GOALS = "Goals: Spearman at least 0.97, median error at most 3 %."


def mobilenet() -> keras.Model:
    """MobileNetV2 at a third of its widths, for 64x64 pixels."""
    return keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=10)


def transformer() -> keras.Model:
    """Three blocks of attention and two dense layers each, for 64 tokens of 96 channels."""
    x = tokens = keras.Input((64, 32))
    x = layers.Dense(96)(x)
    for _ in range(3):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(6, 16)(y, y)])
        y = layers.Dense(192, activation="relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(96)(y)])
    return keras.Model(tokens, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


NETWORKS = {"resnet20": lambda: resnet20(32, 10), "mobilenet": mobilenet, "transformer": transformer}


def calibrated(name: str, runtime: str, folder: pathlib.Path, **options: int) -> morph.Calibration:
    """The calibration of a network, from the folder where it is there already."""
    path = folder / f"{name}-{runtime}.json"
    if path.exists():
        found = read_calibration(path)
        assert isinstance(found, morph.Calibration)
        return found

    def notice(progress) -> None:
        click.echo(f"\r{name}, {runtime}: calibrating, {progress.done} of {progress.total}   ", err=True, nl=False)

    return morph.calibrate(NETWORKS[name](), path, runtime=runtime, notice=notice, **options)


def measured(
    graph: morph.ChannelGraph,
    name: str,
    runtime: str,
    batch_size: int,
    count: int,
    rounds: int,
    repeats: int,
    folder: pathlib.Path,
) -> np.ndarray:
    """Milliseconds of a batch for each configuration: float array (rounds, configurations).

    In each round all networks are built anew, and timed in turn.
    """
    path = folder / f"{name}-{runtime}-batch{batch_size}-measured.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    chosen = find_runtime(runtime, "float32")
    stopwatch = stopwatch_of(chosen, repeats)
    for again in range(rounds):
        keys = [f"{number} {again}" for number in range(count)]
        if all(key in found for key in keys):
            continue
        calls = []
        for number in range(count):
            click.echo(f"\r{name}, {runtime}, round {again + 1}: {number + 1} of {count}   ", err=True, nl=False)
            network = parts.whole(graph, parts.random_widths(graph, FIRST_SEED + number), "float32", batch_size)
            calls.append(chosen.compiled(network, [parts.random_inputs(network)]))
        found |= dict(zip(keys, stopwatch.milliseconds(calls), strict=True))
        write_whole(path, json.dumps(found).encode())
    return np.array([[found[f"{number} {again}"] for number in range(count)] for again in range(rounds)])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the ranks."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def error(predicted: np.ndarray, times: np.ndarray) -> float:
    """Median of the relative differences."""
    return float(np.median(np.abs(predicted - times) / times))


def compared(predicted: np.ndarray, times: np.ndarray) -> str:
    """A cell of the table."""
    at_its_pace = predicted * np.median(times / predicted)
    return f"{spearman(predicted, times):.3f}, {error(predicted, times):.1%} ({error(at_its_pace, times):.1%})"


@click.command()
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only this one.")
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice(list(RUNTIMES)), help="Only this one.")
@click.option("--configurations", default=50, show_default=True, help="Networks of random widths.")
@click.option("--rounds", default=2, show_default=True, help="In which each of them is timed; at least 2.")
@click.option("--batch-size", default=1, show_default=True)
@click.option("--points", default=6, show_default=True, help="Of a calibration: widths of each operation.")
@click.option("--networks", default=8, show_default=True, help="Of a calibration: whole networks.")
@click.option("--repeats", default=30, show_default=True, help="Of each measurement.")
@click.option("--folder", type=click.Path(path_type=pathlib.Path), default="build/latency", show_default=True)
def main(
    names: tuple[str, ...],
    runtimes: tuple[str, ...],
    configurations: int,
    rounds: int,
    batch_size: int,
    points: int,
    networks: int,
    repeats: int,
    folder: pathlib.Path,
) -> None:
    """Calibrate, predict, measure, and print one table."""
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    table = Table(title=f"{configurations} networks of random widths, batch {batch_size}", title_justify="left")
    table.caption = f"Each cell: Spearman, median error (less a factor that all have in common). {GOALS}"
    for heading in ("network", "runtime", "ms", "tables", "estimate", "roofline (cpu)", "measured again"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("network", "runtime") else "right")
    for name in names or NETWORKS:
        for runtime in runtimes or RUNTIMES:
            options = {"batch_size": batch_size, "points": points, "networks": networks, "repeats": repeats}
            calibration = calibrated(name, runtime, folder, **options)
            graph = morph.ChannelGraph.from_model(NETWORKS[name]())
            times = measured(graph, name, runtime, batch_size, configurations, rounds, repeats, folder)
            seeds = range(FIRST_SEED, FIRST_SEED + configurations)
            widths = np.array([parts.random_widths(graph, seed) for seed in seeds], dtype=float)
            costs = [calibration, dataclasses.replace(calibration, tables=()), "cpu"]
            predicted = batch_size * graph.costs([morph.latency(cost) for cost in costs], widths)
            # The first round is that which a user would have seen; the others tell how much it would have been another.
            counted, *others = times
            cells = [compared(row, counted) for row in predicted]
            again = ", ".join(compared(other, counted) for other in others)
            table.add_row(name, runtime, f"{counted.min():.2f}-{counted.max():.2f}", *cells, again)
    click.echo(err=True)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
