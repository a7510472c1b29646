"""Is there a better shape at all: what FLOPs are worth in each layer, around uniform widths.

Trains many networks from scratch whose widths are uniform ones, each times a factor drawn at random, scaled to the
budget. A linear fit of the accuracy to the logarithms of the widths tells how many points one per cent more FLOPs are
worth in each layer. Where uniform widths are the best shape, they are worth the same in all (the condition of
Lagrange), and no search can find a better one nearby. An F-test says whether the figures differ by more than chance.

    python -m benchmarks.shapes --data DIR [--network well-shaped] [--shapes 40] [--target flops=0.25]
                                [--widths 11,11,11,13,15,38] [--output FILE]

Only validation images are looked at. Finished trainings are read back from the output file.
"""

from __future__ import annotations

import math
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

import morph_core as morph
from benchmarks.images import NETWORKS, accuracy, load, train
from benchmarks.tables import read, write

OUTPUT = pathlib.Path("docs/results/shapes.jsonl")
# Each factor is up to this power of e, either way.
POWER = 0.5


def drawn(graph: morph.ChannelGraph, share: float, number: int) -> morph.Structure:
    """The widths of one draw: the widest of its proportions that cost at most a share of the seed's FLOPs."""
    prunable = [group for group in graph.groups if group.prunable]
    factors = np.exp(np.random.default_rng(number).uniform(-POWER, POWER, len(prunable)))
    most = share * graph.cost("flops")
    for scale in np.geomspace(1.5, 0.1, 2000):
        widths = {
            group.name: int(np.clip(round(group.size * factor * scale), 1, group.size))
            for group, factor in zip(prunable, factors, strict=True)
        }
        structure = morph.describe(graph, widths)
        if graph.cost("flops", structure) <= most:
            return structure
    raise click.ClickException(f"No widths of draw {number} cost at most {share:.0%} of the seed's FLOPs.")


def elasticities(graph: morph.ChannelGraph, structure: morph.Structure) -> np.ndarray:
    """By how many per cent the FLOPs of a structure grow with one per cent more of each width: (groups,)."""
    widths = {name: group["width"] for name, group in structure.groups.items()}
    cost = graph.cost("flops", structure)
    found = []
    for name, width in widths.items():
        more = graph.cost("flops", morph.describe(graph, {**widths, name: width + 1}))
        found.append((more - cost) / cost * width)
    return np.array(found)


def fit(widths: np.ndarray, uniform: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Least squares of accuracies to logarithms of widths.

    Args:
        widths: (shapes, layers).
        uniform: (layers,), around which the logarithms are taken.
        points: accuracies in per cent, (shapes,).

    Returns:
        The coefficients, the constant first; their covariances; and the sum of the squares that are left.
    """
    known = np.c_[np.ones(len(points)), np.log(widths / uniform)]
    found, *_ = np.linalg.lstsq(known, points, rcond=None)
    left = float(((points - known @ found) ** 2).sum())
    return found, np.linalg.inv(known.T @ known) * left / (len(points) - len(found)), left


def _share(_: object, __: object, word: str) -> float:
    cost, _, share = word.partition("=")
    try:
        if cost == "flops":
            return float(share)
    except ValueError:
        pass
    raise click.BadParameter("expected a share of the FLOPs, such as flops=0.25")


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=pathlib.Path), required=True, help="Folder of the images.")
@click.option("--network", "name", default="well-shaped", show_default=True, type=click.Choice(list(NETWORKS)))
@click.option("--shapes", default=40, show_default=True, help="Trainings, each of other widths.")
@click.option("--target", "share", default="flops=0.25", show_default=True, callback=_share)
@click.option("--widths", "asked", multiple=True, help="Widths of all layers: what the fit says of them.")
@click.option("--output", default=OUTPUT, show_default=True, type=click.Path(path_type=pathlib.Path))
def main(
    folder: pathlib.Path, name: str, shapes: int, share: float, asked: tuple[str, ...], output: pathlib.Path
) -> None:
    """Train networks of random widths, and print what FLOPs are worth in each layer."""
    data = load(folder, "validation")
    graph = morph.ChannelGraph.from_model(NETWORKS[name].build())
    if shapes < sum(group.prunable for group in graph.groups) + 2:
        raise click.UsageError("--shapes: a fit needs more trainings than layers.")
    rows = [row for row in read(output) if row["network"] == name and row["flops_target"] == share]
    for number in range(shapes):
        if number in {row["draw"] for row in rows}:
            continue
        keras.utils.set_random_seed(5000 + number)
        model = NETWORKS[name].build()
        structure = drawn(morph.ChannelGraph.from_model(model), share, number)
        student = morph.rebuild(model, structure)
        train(student, data, NETWORKS[name].epochs)
        widths = {group: known["width"] for group, known in structure.groups.items()}
        rows.append({"network": name, "flops_target": share, "draw": number, "widths": widths})
        rows[-1] |= {"flops": graph.cost("flops", structure) / graph.cost("flops"), "accuracy": accuracy(student, data)}
        write(output, rows[-1])
        click.echo(f"draw {number + 1} of {shapes}: {list(widths.values())}, {rows[-1]['accuracy']:.3f}", err=True)
        keras.backend.clear_session()
    tell([row for row in rows if row["draw"] < shapes], graph, name, share, asked)


def tell(rows: list[dict], graph: morph.ChannelGraph, name: str, share: float, asked: tuple[str, ...]) -> None:
    """Print the fit."""
    uniform = morph.uniform(graph, target={"flops": share})
    layers = list(uniform.groups)
    widths = np.array([[row["widths"][layer] for layer in layers] for row in rows], dtype=float)
    middle = np.array([uniform.groups[layer]["width"] for layer in layers], dtype=float)
    points = np.array([100 * row["accuracy"] for row in rows])
    found, covariances, left = fit(widths, middle, points)
    spent = elasticities(graph, uniform)
    free = len(points) - len(found)
    half = stats.t.ppf(0.975, free) * np.sqrt(np.diag(covariances))
    table = Table(title=f"{name} at {share:.0%} of the FLOPs: {len(points)} shapes around uniform widths (validation)")
    for heading in ("layer", "uniform width", "points for 1 % more FLOPs there"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer, width, worth, around, part in zip(layers, middle, found[1:], half[1:], spent, strict=True):
        table.add_row(layer, f"{width:.0f}", f"{worth / part / 100:.3f} ± {around / part / 100:.3f}")
    console = Console(width=120)
    console.print(table)
    # The same fit, where FLOPs are worth the same in all layers: one coefficient.
    alike = np.c_[np.ones(len(points)), np.log(widths / middle) @ spent]
    best, *_ = np.linalg.lstsq(alike, points, rcond=None)
    more = float(((points - alike @ best) ** 2).sum()) - left
    ratio = more / (len(layers) - 1) / (left / free)
    chance = float(stats.f.sf(ratio, len(layers) - 1, free))
    console.print(
        f"Accuracy: {points.mean():.1f} %, standard deviation {points.std(ddof=1):.2f}, "
        f"{math.sqrt(left / free):.2f} where the widths are known. "
        f"The same worth in all layers: F = {ratio:.2f}, p = {chance:.2f}."
    )
    for words in asked:
        there = np.log(np.array([int(word) for word in words.split(",")]) / middle)
        error = stats.t.ppf(0.975, free) * math.sqrt(there @ covariances[1:, 1:] @ there)
        console.print(f"{words}: {found[1:] @ there:+.1f} ± {error:.1f} points to uniform widths, by the fit.")


if __name__ == "__main__":
    main()
