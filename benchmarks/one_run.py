"""What one run in place costs: its CPU time against training the seed for as many epochs.

All arms do all that a user's script does after its imports: build the network, compile, fit for all epochs. The run in
place searches during the first quarter, cuts the network to half of its FLOPs and trains it on, so it pays for the
analysis of the network, for the search and for tracing two training steps or more. "Uniform" trains a network of
uniform widths and half of the FLOPs from the first step on: no way to that budget can be much faster, and where half of
the FLOPs does not take half of the time, it shows. Each arm of each round is a process of its own; the ratios are those
of one round, so that a busy machine slows all, and the table has the median over rounds.

    python -m benchmarks.one_run [--network resnet20] [--rounds 5] [--epochs 8] [--steps 40]
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import morph_core as morph
from benchmarks.images import plain
from benchmarks.step import resnet20

BOUND = 0.8
ARMS = ("seed", "in place", "uniform")
BATCH = 100
# Each network, and the pixels of its images.
NETWORKS = {
    "resnet20": (lambda: resnet20(32, 10), 32),
    "plain": (lambda: plain((48, 48, 32, 32, 16, 16)), 16),
    "wide": (lambda: plain((64, 64, 128, 128, 256, 256)), 16),
    "mobilenetv2": (lambda: _mobilenet(), 64),
}


def _mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), alpha=0.5, weights=None, classes=10, classifier_activation=None
    )


def train(name: str, arm: str, epochs: int, steps: int) -> dict[str, float]:
    """One training of one arm: its CPU seconds in all, and the share of the seed's FLOPs that is left."""
    build, pixels = NETWORKS[name]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(steps * BATCH, pixels, pixels, 3)).astype("float32")
    labels = rng.integers(0, 10, steps * BATCH)
    started = time.process_time()
    model = build()
    trained = {
        "seed": lambda: model,
        "in place": lambda: morph.StructureSearch(model, target=0.5, search_fraction=0.25),
        "uniform": lambda: morph.rebuild(model, morph.uniform(morph.ChannelGraph.from_model(model), target=0.5)),
    }[arm]()
    trained.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    trained.fit(images, labels, batch_size=BATCH, epochs=epochs, verbose=0)
    left = 1.0
    if isinstance(trained, morph.StructureSearch):
        trained.result()
        left = trained.graph.cost("flops", trained.structure()) / trained.graph.cost("flops")
    return {"seconds": time.process_time() - started, "left": left}


def in_process(name: str, arm: str, epochs: int, steps: int) -> dict[str, float]:
    """As `train`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.one_run", "--one", arm, "--network", name]
    command += ["--epochs", str(epochs), "--steps", str(steps)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise click.ClickException(f"{' '.join(command)} failed:\n{answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


@click.command()
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these networks.")
@click.option("--rounds", default=5, show_default=True, help="Trainings of each arm.")
@click.option("--epochs", default=8, show_default=True, help="Of each training, in all.")
@click.option("--steps", default=40, show_default=True, help="Of an epoch, 100 images each.")
@click.option("--one", type=click.Choice(ARMS), hidden=True, help="One training in this process.")
def main(names: tuple[str, ...], rounds: int, epochs: int, steps: int, one: str | None) -> None:
    """Measure every network, and print the ratios."""
    if one is not None:
        print(json.dumps(train(names[0], one, epochs, steps)))
        return
    table = Table(title=f"CPU time of one run in place at half of the FLOPs, {epochs} epochs of {steps} steps")
    headings = ("network", "seed, s", "in place, s", "ratio, least to most", f"bound {BOUND}", "FLOPs left", "uniform")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for name in names or NETWORKS:
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        left = 1.0
        for number in range(rounds):
            for arm in random.Random(number).sample(ARMS, len(ARMS)):
                found = in_process(name, arm, epochs, steps)
                seconds[arm].append(found["seconds"])
                left = min(left, found["left"])
            click.echo(f"{name}, round {number + 1} of {rounds}", err=True)
        of_seed = {
            arm: [one / full for one, full in zip(taken, seconds["seed"], strict=True)]
            for arm, taken in seconds.items()
        }
        ratio = statistics.median(of_seed["in place"])
        table.add_row(
            name,
            f"{statistics.median(seconds['seed']):.1f}",
            f"{statistics.median(seconds['in place']):.1f}",
            _told(of_seed["in place"]),
            "met" if ratio <= BOUND else "missed",
            f"{left:.1%}",
            _told(of_seed["uniform"]),
        )
    Console(width=120).print(table)


def _told(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()
