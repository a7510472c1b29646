"""What a search adds to a training step: CPU time and memory of each gate against the plain step, and of Torch-Pruning.

All arms of a network live in one process and take turns, one step each in a new random order, on the same batch; the
ratio of an arm is the median over rounds of its CPU time (all threads) to that of the plain step of the same round, so
that a busy machine slows both. A search also looks at its cost every ten steps, outside of the step: that look is
measured by itself, and `with looks` adds a tenth of it to each step.

    python -m benchmarks.step [--network resnet20] [--gate fisher] [--rounds 30] [--torch-python PATH [--torch-only]]

Peak memory is the largest resident set of a process that takes a few steps of one arm (and a look), libraries included.
It differs from process to process, so that each arm has several, in turn with the others; their median counts.

    python -m benchmarks.step --memory [--repeats 3] [--network resnet20] [--gate fisher] [--torch-python PATH]

Torch-Pruning is measured by the same rules in an interpreter of its own, which `--torch-python` names; to make one:

    python3 -m venv DIR
    DIR/bin/pip install torch torchvision torch-pruning==1.6.1 --extra-index-url https://download.pytorch.org/whl/cpu
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import morph_core as morph

# Batch size, pixels and classes of each network.
NETWORKS = {"resnet20": (128, 32, 10), "resnet50": (8, 224, 1000)}
# Bounds on the median ratio.
BOUNDS = {"gamma": 1.03, "fisher": 1.03, "group_lasso": None, "logistic_sigmoid": 1.08}
MEMORY_BOUND = 1.03
LOOK_EVERY = 10
WARM_UP = 2
MEMORY_STEPS = 8
# What `step_torch.py` can measure the memory of.
TORCH_ARMS = ("plain", "BNScale", "GroupNorm")
TORCH = pathlib.Path(__file__).with_name("step_torch.py")


def resnet20(pixels: int, classes: int) -> keras.Model:
    """He et al., CIFAR-10: three stages of three blocks, 16, 32 and 64 channels, projections where widths change."""
    image = keras.Input((pixels, pixels, 3))
    x = _conv(image, 16, 1)
    for width in (16, 32, 64):
        for block in range(3):
            stride = 2 if width > 16 and block == 0 else 1
            y = _conv(_conv(x, width, stride), width, 1, relu=False)
            if stride == 2:
                x = layers.Conv2D(width, 1, stride, use_bias=False)(x)
                x = layers.BatchNormalization()(x)
            x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(image, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))


def _conv(x: object, width: int, stride: int, relu: bool = True) -> object:
    y = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    return layers.ReLU()(y) if relu else y


def network(name: str) -> keras.Model:
    """The network of that name, with random weights and logits as outputs."""
    _, pixels, classes = NETWORKS[name]
    if name == "resnet20":
        return resnet20(pixels, classes)
    return keras.applications.ResNet50(
        weights=None, input_shape=(pixels, pixels, 3), classes=classes, classifier_activation=None
    )


def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    size, pixels, classes = NETWORKS[name]
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, pixels, pixels, 3)).astype("float32"), rng.integers(0, classes, size)


def compiled(name: str, arm: str) -> keras.Model:
    """The network, or a search around it in the middle of its schedule, as it trains."""
    model = network(name)
    trained = model if arm == "plain" else morph.StructureSearch(model, target=0.5, gate=arm)
    trained.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return trained


def cpu(work: Callable) -> float:
    """The CPU seconds that it takes, all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def rounds(steps: dict[str, Callable], count: int, notice: Callable[[str], None]) -> dict[str, list[float]]:
    """CPU seconds of each arm, round by round, after some rounds to warm up."""
    seconds: dict[str, list[float]] = {arm: [] for arm in steps}
    order = list(steps)
    for number in range(-WARM_UP, count):
        random.Random(number).shuffle(order)
        for arm in order:
            spent = cpu(steps[arm])
            if number >= 0:
                seconds[arm].append(spent)
        notice(f"round {number + 1} of {count}")
    return seconds


def measure(name: str, gates: tuple[str, ...], count: int, notice: Callable[[str], None]) -> list[dict]:
    """A row for each arm."""
    x, y = batch(name)
    models = {}
    for arm in ("plain", *gates):
        models[arm] = compiled(name, arm)
        models[arm].train_on_batch(x, y)
        if arm != "plain":
            models[arm].update(0.3)
    seconds = rounds(
        {arm: lambda model=model: model.train_on_batch(x, y) for arm, model in models.items()}, count, notice
    )
    rows = []
    for arm, spent in seconds.items():
        look = 0.0
        if arm != "plain":
            look = statistics.median(cpu(lambda model=models[arm]: model.update(0.4)) for _ in range(5))
        rows.append(_row(arm, spent, seconds["plain"], look))
    return rows


def _row(arm: str, spent: list[float], plain: list[float], look: float = 0.0) -> dict:
    ratios = [a / b for a, b in zip(spent, plain, strict=True)]
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {
        "arm": arm,
        "seconds": statistics.median(spent),
        "ratio": statistics.median(ratios),
        "from": quarters[0],
        "to": quarters[2],
        "look": look,
        "with_looks": statistics.median(ratios) + look / LOOK_EVERY / statistics.median(plain),
    }


def torch_step(python: str, name: str, count: int, *options: str) -> dict:
    """What `step_torch.py` measured in that interpreter.

    OpenMP's threads sleep while they wait for one another: spinning would count as CPU time, on a busy machine as most.
    """
    command = [python, str(TORCH), name, *map(str, NETWORKS[name]), str(count), *options]
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def steps_of(name: str, arm: str, count: int) -> None:
    """Take some steps of one arm, and a look if it is a search's."""
    x, y = batch(name)
    model = compiled(name, arm)
    model.train_on_batch(x, y)
    if arm != "plain":
        model.update(0.3)
    for _ in range(count):
        model.train_on_batch(x, y)


def peak(name: str, arm: str, torch_python: str | None) -> float:
    """Peak resident memory, in MiB, of a process of its own that takes a few steps of one arm."""
    if torch_python and arm.startswith("torch: "):
        return torch_step(torch_python, name, MEMORY_STEPS, "--one", arm.removeprefix("torch: "))["peak_mib"]
    command = [sys.executable, "-m", "benchmarks.step", "--network", name, "--one", arm]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.splitlines()[-1])


@click.command()
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only this one.")
@click.option(
    "--gate", "gates", multiple=True, type=click.Choice(list(BOUNDS)), default=list(BOUNDS), help="Only this."
)
@click.option("--rounds", "count", default=30, show_default=True, help="Steps of each arm.")
@click.option("--memory", "with_memory", is_flag=True, help="Measure peak memory instead, in processes for each arm.")
@click.option("--repeats", default=3, show_default=True, help="Processes of each arm, for its memory.")
@click.option("--torch-python", type=click.Path(exists=True), help="An interpreter with torch and torch-pruning.")
@click.option("--torch-only", is_flag=True, help="Measure Torch-Pruning alone.")
@click.option("--one", type=click.Choice(["plain", *BOUNDS]), hidden=True)
def main(
    names: tuple[str, ...],
    gates: tuple[str, ...],
    count: int,
    with_memory: bool,
    repeats: int,
    torch_python: str | None,
    torch_only: bool,
    one: str | None,
) -> None:
    """Measure and print a table for each network."""
    if torch_only and not torch_python:
        raise click.UsageError("--torch-only needs --torch-python, the interpreter that has torch and torch-pruning.")
    if one:
        steps_of(names[0], one, MEMORY_STEPS)
        click.echo(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    for name in names or NETWORKS:
        notice = lambda text, name=name: click.echo(f"{name}: {text}", err=True)  # noqa: E731
        if with_memory:
            arms = [] if torch_only else ["plain", *gates]
            arms += [f"torch: {arm}" for arm in TORCH_ARMS] if torch_python else []
            peaks: dict[str, list[float]] = {arm: [] for arm in arms}
            for number in range(repeats):
                for arm in arms:
                    peaks[arm].append(peak(name, arm, torch_python))
                    notice(f"peak of {arm}, {number + 1} of {repeats}: {peaks[arm][-1]:.0f} MiB")
            show_memory(name, peaks)
            continue
        rows = [] if torch_only else measure(name, gates, count, notice)
        caption = None
        if torch_python:
            peer = torch_step(torch_python, name, count)
            rows += [_row(f"torch: {arm}", spent, peer["seconds"]["plain"]) for arm, spent in peer["seconds"].items()]
            caption = _caption(peer)
        show(name, rows, caption)


def _caption(peer: dict) -> str:
    """What of the other arms is not in the table: the regulariser's call by itself, and what is done once."""
    plain = statistics.median(peer["seconds"]["plain"])
    parts = [
        f"{arm} {statistics.median(spent) / plain:.2%} (once: {peer['setup'][arm]:.2f} s)"
        for arm, spent in peer["regularize"].items()
        if not arm.startswith("plain")
    ]
    versions = ", ".join(f"{name} {version}" for name, version in peer["versions"].items())
    return f"{versions}. CPU time inside of pruner.regularize to a plain step: {'; '.join(parts)}."


def show(name: str, rows: list[dict], caption: str | None) -> None:
    """The table of one network's CPU time."""
    size, pixels, _ = NETWORKS[name]
    table = Table(
        title=f"A training step of {name}, batch {size}, {pixels}x{pixels} pixels",
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )
    for heading in ("step", "CPU s", "ratio", "middle half", "bound", "look, s", "with looks"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "step" else "right")
    for row in rows:
        arm = row["arm"]
        table.add_row(
            arm,
            f"{row['seconds']:.3f}",
            f"{row['ratio']:.3f}",
            f"{row['from']:.3f}-{row['to']:.3f}",
            _verdict(row["ratio"], BOUNDS.get(arm)),
            f"{row['look']:.3f}" if row["look"] else "",
            f"{row['with_looks']:.3f}" if row["look"] else "",
        )
    Console(width=130).print(table)


def show_memory(name: str, peaks: dict[str, list[float]]) -> None:
    """The table of one network's peak memory, each framework's arms against its own plain step."""
    size, pixels, _ = NETWORKS[name]
    table = Table(title=f"Peak memory of training {name}, batch {size}, {pixels}x{pixels} pixels", title_justify="left")
    for heading in ("step", "processes", "median MiB", "least-most", "ratio", "bound"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "step" else "right")
    for arm, found in peaks.items():
        plain = "torch: plain" if arm.startswith("torch: ") else "plain"
        ratio = statistics.median(found) / statistics.median(peaks[plain])
        table.add_row(
            arm,
            str(len(found)),
            f"{statistics.median(found):.0f}",
            f"{min(found):.0f}-{max(found):.0f}",
            f"{ratio:.3f}",
            _verdict(ratio, MEMORY_BOUND if arm in BOUNDS else None),
        )
    Console(width=130).print(table)


def _verdict(ratio: float, bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}: {'met' if ratio <= bound else 'MISSED'}"


if __name__ == "__main__":
    main()
