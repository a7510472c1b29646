"""What a run found, for people: costs before and after, the widths per layer, and where everything lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

import morph_core as morph
from morph_core.cost.costs import unit_of, written
from morph_core.report.frontier import Point
from morph_core.report.wording import measured_in_words

from ..account import change, cost_title
from ..config import PipelineConfig
from .outcome import held_back_because
from .result import RunResult

Row = tuple[str, str, str, str]
"""What is compared, the seed's value, the final model's, and the change."""


def show_summary(
    result: RunResult, config: PipelineConfig, more: Sequence[Row] = (), console: Console | None = None
) -> None:
    """Prints the outcome of a run.

    Args:
        result: what `run_pipeline` returned.
        config: the configuration that was run.
        more: rows to add to the comparison of seed and final model.
        console: where to print; by default the standard output.
    """
    console = console or Console()
    if result.last is not None:
        pushed = result.pushed_model or "nothing: " + "; ".join(result.last.get("reasons", ()))
        console.print(f"{'pushed':<12}{pushed}", soft_wrap=True, highlight=False, markup=False)
        return
    if result.compared:
        _show_frontier(result, console)
        return
    from morph_tfx.components.artifacts.evaluation import measured

    structure = morph.Structure.load(result.structures[-1] / "structure.json")
    metrics = measured(result.evaluation)
    count = metrics.pop("example_count", 0)
    console.print(_comparison(structure, result, metrics, int(count), more))

    widths = Table("layer", "kind", "seed", "final", title="\nWidth of every layer", title_justify="left")
    for column in widths.columns[2:]:
        column.justify = "right"
    for layer in structure.layers:
        final = str(layer["width"]) if layer["width"] else "removed"
        widths.add_row(layer["name"], layer["kind"], str(layer["seed_width"]), final)
    console.print(widths)

    values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    if result.pushed_model is None:
        pushed = "nothing: " + "; ".join(held_back_because(result))
    else:
        pushed = result.pushed_model
    report = result.structures[-1] / "report.html"
    latency = measured_in_words(structure)
    for name, text in (
        *([("latency", latency)] if latency else []),  # by the clock, where the search kept to a measured one
        *([("report", report)] if report.exists() else []),  # an imported structure has none
        ("structure", result.structures[-1] / "structure.json"),
        ("evaluation", f"{values} on {count:,.0f} examples; more in {result.evaluation}"),
        ("curves", f"tensorboard --logdir {config.pipeline_root}"),
        ("pushed", pushed),
    ):
        console.print(f"{name:<12}{text}", soft_wrap=True, highlight=False, markup=False)


def _comparison(
    structure: morph.Structure, result: RunResult, metrics: Mapping[str, float], count: int, more: Sequence[Row]
) -> Table:
    """Seed and final model side by side and, with `compare`, uniform widths between them and what all three reached."""
    from morph_tfx.components.artifacts.evaluation import measured

    uniform = {name: reference for name, reference in result.references.items() if name != "seed"}
    titles = [f"{name.replace('-', ' ').replace('p', '.')} %" for name in uniform]
    table = Table("", "seed", *titles, "final", "change", title="\nSeed and final model", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    costs = [morph.Structure.load(reference.structure / "structure.json").costs for reference in uniform.values()]
    for name, cost in structure.costs.items():
        seed, final = cost["seed"], cost["structure"]
        between = [written(found[name]["structure"]) if name in found else "" for found in costs]
        table.add_row(_label(name), written(seed), *between, written(final), change(seed, final))
    if result.references:
        found = {name: measured(reference.evaluation) for name, reference in result.references.items()}
        for metric, final in metrics.items():
            if metric not in found["seed"]:  # a difference from the baseline, which only the final model has
                continue
            seed = found["seed"][metric]
            between = [f"{found[name][metric]:.4f}" for name in uniform]
            table.add_row(
                f"{metric}, {count:,} examples{_chance(final, count)}",
                f"{seed:.4f}",
                *between,
                f"{final:.4f}",
                f"{final - seed:+.4f}",
            )
    for label, seed, final, difference in more:
        table.add_row(label, seed, *("" for _ in uniform), final, difference)
    return table


def _chance(value: float, count: int) -> str:
    """The standard error of a metric between 0 and 1, where it says something."""
    error = Point("", "learned", 0, 0, value, examples=count).standard_error
    return "" if not error else f" (± {error:.4f})"


def _show_frontier(result: RunResult, console: Console) -> None:
    """Prints every network of the comparison, and which one was pushed."""
    found = json.loads((result.frontier / "frontier.json").read_text(encoding="utf-8"))
    title = f"\n{found['metric']} against {found['cost']}"
    table = Table("network", f"{found['cost']}", "of the seed", found["metric"], "", title=title, title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    for point in sorted(found["points"], key=lambda point: point["cost"]):
        remarks = [name.replace("_", " ") for name in ("chosen", "on_frontier") if point[name]]
        remarks += [] if point["passed"] else ["below its bound"]
        remarks += ["behind uniform widths"] if point["behind_uniform"] else []
        table.add_row(
            point["label"],
            written(point["cost"]),
            f"{point['fraction']:.1%}",
            f"{point['accuracy']:.4f}",
            ", ".join(remarks),
        )
    console.print(table)
    console.print(found["verdict"], soft_wrap=True, highlight=False, markup=False)
    for text in (f"report      {result.frontier / 'report.html'}", f"pushed      {result.pushed_model or 'nothing'}"):
        console.print(text, soft_wrap=True, highlight=False, markup=False)


def _label(cost: str) -> str:
    unit = "" if cost in ("flops", "params") else unit_of(cost)  # their titles say it
    return cost_title(cost) + (f" ({unit})" if unit else "")
