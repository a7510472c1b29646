"""What a model costs, layer by layer, and with a structure, what it would cost then: counted, and shown as tables."""

from __future__ import annotations

import dataclasses
import difflib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.table import Table

import morph_core as morph
from morph_core.cost.costs import written

from ..account import change, cost_title
from .keras_file import check_keras_file

APPLICATIONS = "keras.applications:"


@dataclasses.dataclass(frozen=True)
class ModelCosts:
    """What was counted.

    Attributes:
        model: where the model came from.
        costs: by name: "unit", "seed" and, with a structure, "structure" (None without).
        layers: in topological order, those that cost something: "name", "kind" and "costs", of the structure where one
            is given. A cost that is no sum over layers is not in there.
        uncounted: layers whose work is in no FLOPs and no latency: "name", "kind", "share" of the parameters, "reason".
        notes: what to know of the costs, such as that a calibration is from another machine.
    """

    model: str
    costs: dict[str, dict[str, Any]]
    layers: list[dict[str, Any]]
    uncounted: list[dict[str, Any]]
    notes: list[str]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)


def count(model: str, costs: Sequence[str] = (), structure: Path | None = None, shape: str | None = None) -> ModelCosts:
    """Counts what a model costs.

    Args:
        model: a saved .keras file, or "keras.applications:" and a name in there.
        costs: names of costs; all that can be told without naming a device by default.
        structure: a file with a structure of this model.
        shape: of an application's input, such as "224,224,3".

    Raises:
        MorphError: there is no such model, file or cost; the structure belongs to another model.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        counted = [morph.cost_of(name) for name in dict.fromkeys(costs)]
    learned = None if structure is None else morph.Structure.load(structure)
    graph = morph.ChannelGraph.from_model(load_model(model, shape))
    totals: dict[str, dict[str, Any]] = {}
    spent: dict[str, dict[str, float]] = {}
    for cost in counted or morph.COSTS.values():
        try:
            seed = graph.cost(cost)
        except morph.MorphError:
            if counted:
                raise
            continue
        now = None if learned is None else graph.cost(cost, learned)
        totals[cost.name] = {"unit": cost.unit, "seed": seed, "structure": now}
        for name, amount in graph.cost_by_layer(cost, learned).items():
            if amount:
                spent.setdefault(name, {})[cost.name] = amount
    kinds = {call.name: call.kind for call in graph.trace.calls}
    layers = [{"name": name, "kind": kind, "costs": spent[name]} for name, kind in kinds.items() if name in spent]
    uncounted = [{"name": name, **dataclasses.asdict(layer)} for name, layer in graph.uncounted.items()]
    return ModelCosts(model, totals, layers, uncounted, [str(warning.message) for warning in told])


def show(result: ModelCosts, console: Console | None = None) -> None:
    """Prints a table of the layers, and the totals."""
    console = console or Console()
    names = [name for name in result.costs if any(name in layer["costs"] for layer in result.layers)]
    with_structure = any(cost["structure"] is not None for cost in result.costs.values())
    # No title of the table: it would be broken into lines of the table's width.
    title = f"{result.model}: layers" + (", as the structure leaves them" if with_structure else "")
    console.print(title, style="bold", soft_wrap=True, highlight=False, markup=False)
    table = Table("layer", "kind")
    for name in names:
        table.add_column(_heading(name), justify="right")
    for layer in result.layers:
        amounts = [written(layer["costs"][name]) if name in layer["costs"] else "" for name in names]
        table.add_row(layer["name"], layer["kind"], *amounts)
    console.print(table)

    heads = ["cost", "seed", *(["structure", "change"] if with_structure else []), "unit"]
    total = Table(*heads, title="\nTotal", title_justify="left", title_style="bold")
    for column in total.columns[1:-1]:
        column.justify = "right"
    for name, cost in result.costs.items():
        row = [_heading(name), written(cost["seed"])]
        if with_structure:
            row += [written(cost["structure"]), change(cost["seed"], cost["structure"])]
        total.add_row(*row, cost["unit"])
    console.print(total)
    for layer in result.uncounted:
        console.print(
            f"Not in FLOPs and latency: {layer['name']} ({layer['kind']}), {layer['share']:.1%} of the parameters: "
            f"{layer['reason']}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    for note in result.notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)


def _heading(cost: str) -> str:
    if cost.startswith("latency:"):
        return f"{cost} (ms)"
    return cost_title(cost)


def load_model(model: str, shape: str | None) -> keras.Model:
    """The model that a command names: a saved .keras file, or "keras.applications:" and a name in there.

    Raises:
        MorphError: there is no such model, or it cannot be loaded.
    """
    if model.startswith(APPLICATIONS):
        return _application(model.removeprefix(APPLICATIONS), shape)
    if shape is not None:
        raise morph.MorphError(f"--input-shape is for {APPLICATIONS}NAME; a saved model has its input shape.")
    path = Path(model)
    if path.suffix != ".keras" or not path.is_file():
        what = "is no .keras file" if path.exists() else "does not exist"
        raise morph.MorphError(
            f"{model} {what}. Give a model saved with model.save('model.keras'), or {APPLICATIONS}ResNet50."
        )
    check_keras_file(path)
    try:
        # In safe mode, a file that brings Python code of its own (a Lambda layer) is refused.
        loaded: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise morph.MorphError(
            f"{path} cannot be loaded: {_first_line(error)}. A layer of your own is found when its class is registered "
            "with keras.saving.register_keras_serializable; use morph_core in Python for it."
        ) from error
    return loaded


def _application(name: str, shape: str | None) -> keras.Model:
    known = [key for key, value in vars(keras.applications).items() if callable(value) and not key.startswith("_")]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise morph.MorphError(
            f"keras.applications has no model {name!r}.{f' Did you mean {close[0]!r}?' if close else ''} "
            f"Known are {', '.join(sorted(known))}."
        )
    try:
        sizes = None if shape is None else tuple(int(size) for size in shape.split(","))
    except ValueError as error:
        raise morph.MorphError(f"--input-shape {shape!r}: expected whole numbers, such as 224,224,3.") from error
    try:
        return getattr(keras.applications, name)(weights=None, input_shape=sizes)
    except (ValueError, TypeError) as error:
        raise morph.MorphError(f"{name} cannot be built for --input-shape {shape}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
