"""How close to its budget a search ends: small networks, targets, costs, starting strengths and seeds.

The error of a run is how much of its budget the final structure uses, less 100 %; of several budgets the fullest
counts. It must never be above 0; how far below is what the table shows. Data are scikit-learn's digits, 8x8 pixels;
each search takes 220 steps. Gates that a strength means nothing to are run from one start. Finished runs are read back
from the output file, so that an interrupted suite goes on where it stopped.

    python -m benchmarks.budget [--gate fisher --gate logistic_sigmoid] [--seeds 3] [--output build/budget.jsonl]

With `--torch-python PATH`, an interpreter that has torch and torch-pruning (the head of `step.py` tells how to make
one), a second table has what Torch-Pruning leaves of the same networks when it is asked for half; `--torch-only` prints
that table alone.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import morph_core as morph

EPOCHS, BATCH, ROWS = 10, 64, 1400
TORCH = pathlib.Path(__file__).with_name("budget_torch.py")
# Strengths to start from, each a million times the one before, in units of the loss per seed's cost.
STARTS = (1e-6, 1.0, 1e6)
MLP_GOALS = ({"flops": 0.8}, {"flops": 0.5}, {"flops": 0.2}, {"flops": 0.05})
CONVOLUTIONAL_GOALS = ({"flops": 0.5}, {"params": 0.5}, {"flops": 0.5, "params": 0.6})


def mlp() -> keras.Model:
    """Three dense layers of 128."""
    pixels = keras.Input((8, 8, 1))
    x = layers.Flatten()(pixels)
    for _ in range(3):
        x = layers.Dense(128, activation="relu")(x)
    return keras.Model(pixels, layers.Dense(10)(x))


def resnet8() -> keras.Model:
    """A stem and one residual block for each of 16, 32 and 64 channels, with projections between them."""
    image = keras.Input((8, 8, 1))
    x = _conv(image, 16)
    for width in (16, 32, 64):
        stride = 1 if width == 16 else 2
        y = _conv(_conv(x, width, strides=stride), width, relu=False)
        if stride == 2:
            x = _conv(x, width, kernel=1, strides=2, relu=False)
        x = layers.ReLU()(layers.Add()([x, y]))
    return _classified(image, x)


def inception() -> keras.Model:
    """Two modules of four towers each: 1x1, 3x3, two 3x3, and a pooled one."""
    image = keras.Input((8, 8, 1))
    x = _conv(image, 24)
    for width in (12, 16):
        towers = [
            _conv(x, width, kernel=1),
            _conv(_conv(x, width, kernel=1), 2 * width),
            _conv(_conv(_conv(x, width // 2, kernel=1), width), width),
            _conv(layers.AveragePooling2D(3, 1, "same")(x), width, kernel=1),
        ]
        x = layers.MaxPooling2D()(layers.Concatenate()(towers))
    return _classified(image, x)


def depthwise() -> keras.Model:
    """Four separable blocks, as in MobileNet."""
    image = keras.Input((8, 8, 1))
    x = _conv(image, 24)
    for width, stride in ((32, 1), (48, 2), (48, 1), (64, 2)):
        x = layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = _conv(x, width, kernel=1)
    return _classified(image, x)


def _conv(x: Any, width: int, kernel: int = 3, strides: int = 1, relu: bool = True) -> Any:
    y = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    return layers.ReLU()(y) if relu else y


def _classified(image: Any, x: Any) -> keras.Model:
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


NETWORKS = {
    "MLP": (mlp, MLP_GOALS),
    "ResNet-8": (resnet8, CONVOLUTIONAL_GOALS),
    "Inception": (inception, CONVOLUTIONAL_GOALS),
    "depthwise": (depthwise, CONVOLUTIONAL_GOALS),
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1400, 8, 8, 1), float32 from -1 to 1, and labels (1400,)."""
    data = load_digits()
    return (data.images[:ROWS, ..., None] / 8 - 1).astype("float32"), data.target[:ROWS]


def run(name: str, goal: dict[str, float], gate: str, start: float, seed: int) -> dict:
    """One search: how much of each budget it used in the end."""
    keras.utils.set_random_seed(seed)
    keras.backend.clear_session()
    started = time.process_time()
    model = NETWORKS[name][0]()
    first = next(iter(goal))
    strength = start / morph.ChannelGraph.from_model(model).cost(first)
    search = morph.StructureSearch(model, cost=first, target=goal, gate=gate, strength=strength)
    search.compile(keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search.fit(*digits(), batch_size=BATCH, epochs=EPOCHS, verbose=0)
    structure = search.structure()
    built = morph.rebuild(model, structure)
    graph = morph.ChannelGraph.from_model(built)
    # Counted on the rebuilt network, not taken from the structure's own account.
    used = {cost: graph.cost(cost) / structure.costs[cost]["seed"] / share for cost, share in goal.items()}
    return {
        "error": max(used.values()) - 1,
        "used": used,
        "widths": list(structure.widths.values()),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


@click.command()
@click.option(
    "--gate",
    "gates",
    multiple=True,
    default=("fisher", "logistic_sigmoid"),
    show_default=True,
    type=click.Choice(sorted(morph.GATES)),
    help="Gates to run.",
)
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these networks.")
@click.option("--seeds", default=3, show_default=True, help="Searches of each kind.")
@click.option("--output", default="build/budget.jsonl", show_default=True, type=click.Path(path_type=pathlib.Path))
@click.option("--torch-python", type=click.Path(exists=True), help="An interpreter with torch and torch-pruning.")
@click.option("--torch-only", is_flag=True, help="Measure Torch-Pruning alone.")
def main(
    gates: tuple[str, ...],
    names: tuple[str, ...],
    seeds: int,
    output: pathlib.Path,
    torch_python: str | None,
    torch_only: bool,
) -> None:
    """Run every search that is not in the output file yet, and print the table of errors."""
    if torch_only and not torch_python:
        raise click.UsageError("--torch-only needs --torch-python, the interpreter that has torch and torch-pruning.")
    if not torch_only:
        suite(gates, names, seeds, output)
    if torch_python:
        show_peer(**peer(torch_python, seeds))


def suite(gates: tuple[str, ...], names: tuple[str, ...], seeds: int, output: pathlib.Path) -> None:
    """Run every search that is not in the output file yet, and print the table of errors."""
    output.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    key = lambda row: (row["network"], json.dumps(row["goal"]), row["gate"], row["start"], row["seed"])  # noqa: E731
    known = {key(row) for row in done}
    wanted = [
        {"network": name, "goal": goal, "gate": gate, "start": start, "seed": seed}
        for seed in range(seeds)
        for gate in gates
        for name in names or NETWORKS
        for goal in NETWORKS[name][1]
        for start in (STARTS if morph.GATES[gate].takes_strength else STARTS[:1])
        if not (name == "MLP" and gate == "gamma")
    ]
    left = [row for row in wanted if key(row) not in known]
    for number, row in enumerate(left, start=1):
        row |= run(row["network"], row["goal"], row["gate"], row["start"], row["seed"])
        done.append(row)
        with output.open("a") as file:
            file.write(json.dumps(row) + "\n")
        click.echo(
            f"{number} of {len(left)}: {row['network']} {row['goal']} {row['gate']}: {row['error']:.2%}", err=True
        )
    show(done)


def show(rows: list[dict]) -> None:
    """Worst and median error of each kind of search, and of all."""
    table = Table(title=f"Share of the budget left unused by the final structure, {EPOCHS} epochs on digits")
    for heading in ("network", "gate", "budget", "runs", "median", "worst", "over budget", "more than 1 % under"):
        table.add_column(heading, justify="left" if heading in ("network", "gate", "budget") else "right")
    kinds = dict.fromkeys((row["network"], row["gate"], json.dumps(row["goal"])) for row in rows)
    for name, gate, goal in sorted(kinds, key=lambda kind: (list(NETWORKS).index(kind[0]), kind[1])):
        found = [row for row in rows if (row["network"], row["gate"], json.dumps(row["goal"])) == (name, gate, goal)]
        label = ", ".join(f"{cost} {share:.0%}" for cost, share in json.loads(goal).items())
        table.add_row(name, gate, label, *_summary(found))
    table.add_section()
    for gate in sorted({row["gate"] for row in rows}):
        table.add_row("all", gate, "", *_summary([row for row in rows if row["gate"] == gate]))
    table.add_row("all", "all", "", *_summary(rows))
    Console(width=120).print(table)


def _summary(rows: list[dict]) -> list[str]:
    errors = [row["error"] for row in rows]
    return [
        str(len(errors)),
        f"{-statistics.median(errors):.2%}",
        f"{-min(errors):.2%}",
        str(sum(error > 1e-9 for error in errors)),
        str(sum(error < -0.01 for error in errors)),
    ]


def peer(torch_python: str, seeds: int) -> dict:
    """What `budget_torch.py` found in that interpreter, on the same networks and the same data."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "digits.npz"
        images, labels = digits()
        np.savez(file, images=images, labels=labels)
        command = [torch_python, str(TORCH), str(file), *map(str, (EPOCHS, BATCH, seeds))]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    theirs = {row["network"]: row["flops"] for row in found["runs"]}
    ours = {name: morph.ChannelGraph.from_model(build()).cost("flops") for name, (build, _) in NETWORKS.items()}
    if theirs != ours:
        raise click.ClickException(f"The networks differ: FLOPs of {theirs} in {TORCH.name}, of {ours} here.")
    return found


def show_peer(versions: dict[str, str], runs: list[dict]) -> None:
    """What Torch-Pruning left of the FLOPs, each way of asking for half of them."""
    title = f"FLOPs left by Torch-Pruning {versions['torch-pruning']} (torch {versions['torch']}), 50 % wanted"
    table = Table(title=title, title_justify="left")
    for heading in ("asked for", "network", "runs", "left, median", "miss, points", "over 50 %", "narrowest layer"):
        table.add_column(heading, justify="left" if heading in ("asked for", "network") else "right")
    for arm in dict.fromkeys(row["arm"] for row in runs):
        rows = [row for row in runs if row["arm"] == arm]
        for name in NETWORKS:
            table.add_row(arm, name, *_missed([row for row in rows if row["network"] == name]))
        table.add_row(arm, "all", *_missed(rows), end_section=True)
    Console(width=120).print(table)


def _missed(rows: list[dict]) -> list[str]:
    left = [100 * row["left"] for row in rows]
    return [
        str(len(left)),
        f"{statistics.median(left):.1f} %",
        f"{min(left) - 50:+.1f} to {max(left) - 50:+.1f}",
        str(sum(share > 50 + 1e-9 for share in left)),
        str(min(row["narrowest"] for row in rows)),
    ]


if __name__ == "__main__":
    main()
