"""What a learned shape is worth: accuracy at a quarter of the FLOPs, against uniform widths and longer training.

Every arm is trained from scratch with the same recipe. `uniform` scales all widths by one factor; `uniform, twice as
long` is trained for as many epochs as search and retraining take together; the seed network itself is the ceiling. Two
networks: one whose widths are badly distributed (wide where images are large), which a search can repair, and one of
equal widths, which is a sensible shape to begin with.

    python benchmarks/accuracy.py --data DIR [--seeds 5] [--network NAME] [--output results.jsonl]

DIR holds `cifar10_16x16_20k.npz`: 20,000 training and 5,000 test images of CIFAR-10 averaged to 16x16 pixels, as uint8
arrays x_train, y_train, x_test, y_test. Finished runs are read back from the output file, so that an interrupted study
goes on where it stopped.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Iterable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import morph_core as morph

NETWORKS = {"front-heavy": (48, 48, 32, 32, 16, 16), "equal widths": (32, 32, 32, 32, 32, 32)}
ARMS = ("seed", "uniform", "uniform, twice as long", "gamma", "logistic_sigmoid", "fisher")
TARGET = 0.25
EPOCHS, BATCH, ROWS = 8, 100, 10_000


def load(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images as float32 of about zero mean and unit variance, and labels."""
    path = folder / "cifar10_16x16_20k.npz"
    if not path.exists():
        raise click.ClickException(f"{path} is missing; the head of this file says what it holds.")
    with np.load(path) as data:
        scale = lambda images: (images.astype("float32") / 255 - 0.47) / 0.25  # noqa: E731
        train, test = scale(data["x_train"][:ROWS]), scale(data["x_test"])
        return train, data["y_train"][:ROWS].astype("int32"), test, data["y_test"].astype("int32")


def network(widths: tuple[int, ...]) -> keras.Model:
    """Six convolutions with BatchNormalization, pooling after every second, for 16x16 images."""
    x = image = keras.Input((16, 16, 3))
    y = layers.RandomFlip("horizontal", name="flip")(x)
    x = layers.RandomTranslation(0.125, 0.125, name="shift")(y)
    for index, width in enumerate(widths):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{index + 1}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))
        if index % 2 and index < len(widths) - 1:
            x = layers.MaxPooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)))


def train(model: keras.Model, data: tuple, epochs: int) -> float:
    """Train with SGD on a cosine schedule; test accuracy."""
    steps = epochs * (len(data[0]) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(0.01, steps, warmup_target=0.1, warmup_steps=steps // 20)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data[0], data[1], batch_size=BATCH, epochs=epochs, verbose=0)
    return float((model.predict(data[2], batch_size=500, verbose=0).argmax(-1) == data[3]).mean())


def run(widths: tuple[int, ...], arm: str, seed: int, data: tuple) -> dict:
    """One training of one arm."""
    keras.utils.set_random_seed(seed)
    seed_network = network(widths)
    graph = morph.ChannelGraph.from_model(seed_network)
    started = time.process_time()
    if arm == "seed":
        student, structure = seed_network, morph.describe(graph, {})
    elif arm.startswith("uniform"):
        ones = morph.describe(graph, {group.name: 1 for group in graph.groups if group.prunable})
        structure = morph.expand(_proportional(graph, ones), graph, target=TARGET)
        student = morph.rebuild(seed_network, structure)
    else:
        search = morph.StructureSearch(seed_network, cost="flops", target=TARGET, gate=arm)
        train(search, data, EPOCHS)
        structure = search.structure()
        keras.utils.set_random_seed(1000 + seed)
        student = morph.rebuild(seed_network, structure)
    accuracy = train(student, data, EPOCHS * (2 if "twice" in arm else 1))
    return {
        "accuracy": accuracy,
        "flops": structure.costs["flops"]["structure"] / structure.costs["flops"]["seed"],
        "params": structure.costs["params"]["structure"],
        "widths": list(structure.widths.values()),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def _proportional(graph: morph.ChannelGraph, least: morph.Structure) -> morph.Structure:
    """The widest network of the seed's own proportions that is still below the target."""
    share = 1.0
    while True:
        widths = {name: max(1, int(entry["seed_width"] * share)) for name, entry in least.groups.items()}
        structure = morph.describe(graph, widths)
        if structure.costs["flops"]["structure"] <= TARGET * structure.costs["flops"]["seed"]:
            return structure
        share *= 0.98


@click.command()
@click.option("--data", "folder", required=True, type=click.Path(path_type=pathlib.Path), help="Folder of the images.")
@click.option("--seeds", default=5, show_default=True, help="Trainings of each arm.")
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these networks.")
@click.option("--output", default="build/accuracy.jsonl", show_default=True, type=click.Path(path_type=pathlib.Path))
def main(folder: pathlib.Path, seeds: int, names: tuple[str, ...], output: pathlib.Path) -> None:
    """Train every arm on every network with every seed, and print mean and standard deviation."""
    data = load(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    known = {(row["network"], row["arm"], row["seed"]) for row in done}
    for name in names or NETWORKS:
        widths = NETWORKS[name]
        for seed in range(seeds):
            for arm in ARMS:
                if (name, arm, seed) in known:
                    continue
                row = {"network": name, "arm": arm, "seed": seed, **run(widths, arm, seed, data)}
                done.append(row)
                with output.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                click.echo(f"seed {seed}, {name}, {arm}: {row['accuracy']:.3f}, widths {row['widths']}", err=True)
    show(f"Accuracy on 16x16 CIFAR-10 at {TARGET:.0%} of the FLOPs, {EPOCHS} epochs", done, NETWORKS, ARMS)


def show(title: str, rows: list[dict], networks: Iterable[str], arms: Iterable[str], with_time: bool = False) -> None:
    """The table of means.

    Args:
        title: of the table.
        rows: of finished runs: "network", "arm", "accuracy", "flops", "params", "cpu_seconds".
        networks, arms: in their order.
        with_time: whether processor time has a column.
    """
    table = Table(title=title)
    times = ("CPU s",) if with_time else ()
    for heading in ("network", "arm", "FLOPs", "parameters", "accuracy", *times, "n"):
        table.add_column(heading, justify="left" if heading in ("network", "arm") else "right")
    for name, arm in itertools.product(networks, arms):
        found = [row for row in rows if row["network"] == name and row["arm"] == arm]
        if found:
            accuracy = [100 * row["accuracy"] for row in found]
            spread = statistics.stdev(accuracy) if len(found) > 1 else 0.0
            table.add_row(
                name,
                arm,
                f"{statistics.mean(row['flops'] for row in found):.1%}",
                f"{statistics.mean(row['params'] for row in found):,.0f}",
                f"{statistics.mean(accuracy):.1f} ± {spread:.1f} %",
                *(f"{statistics.mean(row['cpu_seconds'] for row in found):.0f}" for _ in times),
                str(len(found)),
            )
    Console().print(table)


if __name__ == "__main__":
    main()
