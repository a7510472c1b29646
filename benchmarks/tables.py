"""Rows of finished trainings: kept in a file, shown as a table and drawn."""

from __future__ import annotations

import itertools
import json
import pathlib
import statistics
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy import stats


def read(path: pathlib.Path) -> list[dict]:
    """The rows of a file, none where there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: pathlib.Path, row: dict) -> None:
    """Add a row to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def half_width(values: list[float]) -> float:
    """Half of the 95 % interval of a mean, by Student's t; no number for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def show(
    title: str, rows: list[dict], networks: Iterable[str], arms: Iterable[str], against: str | None = None
) -> None:
    """The table of means, each with half of its 95 % interval.

    Args:
        title: of the table.
        rows: of finished runs: "network", "arm", "seed", "accuracy", "flops", "params", "cpu_seconds".
        networks, arms: in their order.
        against: the arm with which the others are compared, seed by seed.
    """
    table = Table(title=title)
    compared = (f"against {against}",) if against else ()
    for heading in ("network", "arm", "FLOPs", "parameters", "accuracy", *compared, "CPU s", "n"):
        table.add_column(heading, justify="left" if heading in ("network", "arm") else "right")
    for name, arm in itertools.product(networks, arms):
        found = {row["seed"]: row for row in rows if row["network"] == name and row["arm"] == arm}
        if not found:
            continue
        mean = lambda key, found=found: statistics.mean(row[key] for row in found.values())  # noqa: E731
        base = {row["seed"]: row for row in rows if row["network"] == name and row["arm"] == against}
        both = [100 * (found[seed]["accuracy"] - base[seed]["accuracy"]) for seed in found if seed in base]
        params = mean("params")
        table.add_row(
            name,
            arm,
            f"{mean('flops'):.1%}",
            f"{params:.1%}" if params <= 1 else f"{params:,.0f}",
            _spread([100 * row["accuracy"] for row in found.values()]),
            *([_spread(both, "+") if both and arm != against else ""] if against else []),
            f"{mean('cpu_seconds'):.0f}",
            str(len(found)),
        )
    Console(width=130).print(table)


def _spread(values: list[float], sign: str = "") -> str:
    return f"{statistics.mean(values):{sign}.1f}" + (f" ± {half_width(values):.1f}" if len(values) > 1 else "")


def plot(path: pathlib.Path, rows: list[dict], networks: Iterable[str], arms: Iterable[str]) -> None:
    """Accuracy against what training took, in epochs of the seed: a panel a network, a mark an arm.

    Args:
        path: of the image; its ending says the format.
        rows: as of `show`, with "compute".
        networks, arms: in their order.
    """
    from matplotlib import pyplot

    present = [name for name in networks if any(row["network"] == name for row in rows)]
    size = (4 * len(present) + 2.5, 4)
    figure, panels = pyplot.subplots(1, len(present), figsize=size, squeeze=False, layout="constrained")
    marks = itertools.cycle("os^Dv<>Pp*Xhd")
    styles = {arm: (next(marks), f"C{index % 10}") for index, arm in enumerate(arms)}
    for panel, name in zip(panels[0], present, strict=True):
        for arm, (mark, colour) in styles.items():
            found = [row for row in rows if row["network"] == name and row["arm"] == arm]
            if found:
                values = [100 * row["accuracy"] for row in found]
                panel.errorbar(
                    statistics.mean(row["compute"] for row in found),
                    statistics.mean(values),
                    half_width(values) if len(values) > 1 else None,
                    fmt=mark,
                    color=colour,
                    label=arm,
                )
        panel.set(title=name, xlabel="training, in epochs of the seed", ylabel="accuracy, %")
    named: dict[str, Any] = {}
    for panel in panels[0]:
        handles, labels = panel.get_legend_handles_labels()
        named.update(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside right center", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
