"""What a run found, for people: costs before and after, the widths per layer, and where everything lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

import morph_core as morph

from .config import PipelineConfig
from .local_runner import RunResult

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
    structure = morph.Structure.load(result.structures[-1] / "structure.json")
    comparison = Table("", "seed", "final", "change", title="\nSeed and final model", title_justify="left")
    for column in comparison.columns[1:]:
        column.justify = "right"
    for name, cost in structure.costs.items():
        comparison.add_row(_label(name), f"{cost['seed']:,.0f}", f"{cost['structure']:,.0f}", _change(cost))
    for row in more:
        comparison.add_row(*row)
    console.print(comparison)

    widths = Table("layer", "kind", "seed", "final", title="\nWidth of every layer", title_justify="left")
    for column in widths.columns[2:]:
        column.justify = "right"
    for layer in structure.layers:
        final = str(layer["width"]) if layer["width"] else "removed"
        widths.add_row(layer["name"], layer["kind"], str(layer["seed_width"]), final)
    console.print(widths)

    places = [
        ("report", result.structures[-1] / "report.html"),
        ("structure", result.structures[-1] / "structure.json"),
    ]
    places += [("evaluation", result.evaluation), ("artifacts", Path(config.pipeline_root))]
    for name, path in places:
        console.print(f"{name:<12}{path}", soft_wrap=True, highlight=False, markup=False)
    if result.pushed_model is None:
        pushed = (
            f"nothing: the model did not meet the bounds on {config.evaluate.metric} (evaluate: in the configuration)"
        )
    else:
        pushed = result.pushed_model
    console.print(f"{'pushed':<12}{pushed}", soft_wrap=True, highlight=False, markup=False)


def _label(cost: str) -> str:
    return {"flops": "FLOPs (multiply-add = 2)", "params": "parameters"}.get(cost, cost)


def _change(cost: dict[str, float]) -> str:
    return f"{cost['structure'] / cost['seed'] - 1:+.1%}" if cost["seed"] else ""
