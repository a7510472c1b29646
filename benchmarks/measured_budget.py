"""Whether a network that was searched under a budget in milliseconds is that fast, by the clock.

A network is calibrated on this machine, and searched under shares of what it takes; the result is built and timed. What
it learns does not matter here: inputs and labels are drawn at random, and the search is short.

    python -m benchmarks.measured_budget [--network resnet20] [--runtime litert] [--target 0.5] [--folder build/latency]

Calibrations are those of `benchmarks.latency`, and taken from its folder where they are there.
"""

from __future__ import annotations

import os
import pathlib
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import morph_core as morph
from benchmarks.latency import NETWORKS, calibrated
from morph_core.device.runtimes import RUNTIMES

EPOCHS, STEPS, BATCH = 6, 10, 16


def searched(name: str, path: pathlib.Path, target: float, seed: int) -> tuple[keras.Model, morph.Structure]:
    """The seed, and what a short search leaves of it under a share of its latency."""
    keras.utils.set_random_seed(seed)
    model = NETWORKS[name]()
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(STEPS * BATCH, *model.input_shape[1:])).astype("float32")
    y = rng.integers(0, model.output_shape[-1], STEPS * BATCH)
    search = morph.StructureSearch(model, cost=f"latency:{path}", target=target, multiple_of="auto")
    search.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return model, search.structure()


@click.command()
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only this one.")
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice(list(RUNTIMES)), help="Only this one.")
@click.option("--target", "targets", multiple=True, type=click.FloatRange(0, 1), default=(0.75, 0.5), show_default=True)
@click.option("--seeds", default=2, show_default=True, help="Searches of each.")
@click.option("--folder", type=click.Path(path_type=pathlib.Path), default="build/latency", show_default=True)
def main(
    names: tuple[str, ...], runtimes: tuple[str, ...], targets: tuple[float, ...], seeds: int, folder: pathlib.Path
) -> None:
    """Calibrate, search, time, and print one table."""
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    table = Table(title="Milliseconds of one example", title_justify="left")
    table.caption = "The goal: measured within 5 % of the budget, never over it by more than the machine repeats."
    figures = ("target", "seed", "seed now", "budget", "predicted", "measured", "off", "repeats")
    for heading in ("network", "runtime", *figures):
        table.add_column(heading, no_wrap=True, justify="right" if heading in figures else "left")
    for name in names or NETWORKS:
        for runtime in runtimes or RUNTIMES:
            calibration = calibrated(name, runtime, folder)
            whole = morph.ChannelGraph.from_model(NETWORKS[name]()).cost(morph.latency(calibration))
            for target in targets:
                for seed in range(seeds):
                    click.echo(f"\r{name}, {runtime}, {target}, search {seed + 1} of {seeds}   ", err=True, nl=False)
                    model, structure = searched(name, folder / f"{name}-{runtime}.json", target, seed)
                    found = morph.measure(model, structure, calibration)
                    budget = target * whole
                    times = (whole, found.seed, budget, found.predicted, found.structure)
                    shares = (found.structure / budget - 1, found.repeatability)
                    cells = [*(f"{each:.3f}" for each in times), *(f"{each:+.1%}" for each in shares)]
                    table.add_row(name, runtime, f"{target:g}", *cells)
    click.echo(err=True)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
