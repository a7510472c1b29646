"""A learned structure as a page and as pictures: what the search did to every layer, and what that saved.

The page answers its reader's questions in the order they come: was the goal met, how much cheaper is the network, what
does it look like now, how did the search get there, and what happened to each layer. It is one file without scripts and
without references to anything outside it, so it can be mailed, archived or opened from an artifact store.

The page inlines the same pictures that are written as files, with the colours of the palette turned into CSS variables,
which is how one drawing follows the reader's light or dark setting. Equal structures give equal bytes.

Matplotlib and Jinja2 come with the extra `tfx` and are imported on the first call only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..structure.structure import MEASURED_LATENCY, Structure
from . import drawing
from .figures import pictures
from .wording import (
    FLOPS_NOTE,
    change,
    channel_counts,
    exact,
    label,
    largest_width,
    layers_with_channels,
    measured_in_words,
    number,
    percent,
    was_expanded,
)


def html(structure: Structure, title: str = "Learned structure") -> str:
    """Draws the whole report as one self-contained HTML page.

    Args:
        structure: what a search found, expanded or not.
        title: heading of the page; any text, it is escaped.

    Returns:
        The page. Equal structures and titles give equal pages.

    Raises:
        MorphError: Matplotlib or Jinja2 is missing.
    """
    drawn = pictures(structure)
    layers, makers = structure.layers, layers_with_channels(structure.layers)
    cost_names = _cost_names(structure)
    in_branches = {name for branch in structure.removed.get("branches", ()) for name in branch}
    hover = {f"layer-{index}": _layer_change(layer) for index, layer in enumerate(makers)}
    return drawing.page(
        "report.html.j2",
        title=title,
        goal=goal_in_words(structure),
        costs=[_cost_card(structure, name) for name in structure.costs],
        counts=_counts(makers),
        channels=channel_counts(makers),
        widths=drawing.markup(drawing.inline(drawn["widths.svg"], "widths", "Width of every layer", hover)),
        trajectory=(
            drawing.markup(drawing.inline(drawn["trajectory.svg"], "trajectory", "Cost over the search"))
            if "trajectory.svg" in drawn
            else None
        ),
        columns=[label(name) for name in cost_names],
        followers=len(layers) - len(makers),
        rows=_rows(layers, cost_names),
        widest=largest_width(layers),
        removed_layers=list(structure.removed.get("layers", ())),
        single_layers=[name for name in structure.removed.get("layers", ()) if name not in in_branches],
        removed_branches=[list(branch) for branch in structure.removed.get("branches", ())],
        frozen=_frozen(structure),
        uncounted=_uncounted(structure),
        measured=measured_in_words(structure),
        settings=[
            (name, _plain(value)) for name, value in structure.settings.items() if not _is_told_above(name, value)
        ],
        fingerprint=structure.fingerprint,
        schema_version=structure.schema_version,
        flops_note=FLOPS_NOTE,
    )


def _cost_names(structure: Structure) -> list[str]:
    """The costs that layers have a share of; a peak of memory is no layer's."""
    held = dict.fromkeys(name for layer in structure.layers for name in layer.get("costs") or ())
    return sorted(held, key=lambda name: list(structure.costs).index(name) if name in structure.costs else len(held))


def _layer_change(layer: Mapping[str, Any]) -> str:
    width = layer["width"] if layer["width"] else "removed"
    return f"{layer['name']} ({layer['kind']}): {layer['seed_width']} → {width}"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def _cost_card(structure: Structure, name: str) -> dict[str, Any]:
    seed, now = float(structure.costs[name]["seed"]), float(structure.costs[name]["structure"])
    fraction = now / seed if seed else 1.0
    # An expansion spends on purpose what the search saved: the search's goal is then no mark to measure against.
    limit = None if was_expanded(structure) else structure.limits.get(name)
    scale = max(1.0, fraction)  # the bar's full length: the seed, or the structure where that costs more
    return {
        "label": label(name),
        "note": FLOPS_NOTE if name == "flops" else "",
        "seed": number(seed),
        "now": number(now),
        "exact": f"{exact(seed)} → {exact(now)}",
        "percent": percent(fraction),
        "change": change(seed, now),
        "cheaper": now <= seed,
        "bar": f"{100 * fraction / scale:.2f}",
        "seed_bar": f"{100 / scale:.2f}",
        "limit": f"{100 * limit / scale:.2f}" if limit is not None and limit <= scale else None,
        "limit_text": percent(limit) if limit is not None else "",
    }


def goal_in_words(structure: Structure) -> dict[str, Any]:
    """The goal in a sentence, and its verdict: True, False or None where there was nothing to meet.

    The goal is the search's. An expansion afterwards may spend more on purpose, so an expanded structure is judged by
    where its search ended, and the expansion is told as a second sentence.
    """
    goal, settings, limits = structure.goal, structure.settings, structure.limits
    expanded = was_expanded(structure)
    expansion = _expansion(structure) if expanded else ""
    if not limits:
        strength, cost = goal.get("strength"), label(str(goal.get("cost", "cost")))
        text = f"The search ran with a fixed strength of {float(strength):g} on {cost}." if strength is not None else ""
        return {"met": None, "head": "No target", "text": text, "expansion": expansion}
    wishes, met = [], []
    for cost, limit in limits.items():
        wish = f"{label(cost)} at most {percent(limit)} of the seed"
        if goal.get("budget") is not None:
            amount = goal["budget"][cost] if isinstance(goal["budget"], Mapping) else goal["budget"]
            wish += f" (a budget of {number(float(amount))})"
        reached = _reached(structure, cost)
        if reached is None:
            return {
                "met": None,
                "head": "Goal",
                "text": f"{wish}. Where the search ended was not recorded.",
                "expansion": expansion,
            }
        met.append(reached <= limit * (1 + 1e-3))  # a tenth of a percent is below what the page can show
        wish += f"; {'the search ended at' if expanded else 'reached'} {percent(reached)}"
        wishes.append(wish if met[-1] else f"{wish}, {percent(reached / limit - 1)} above it")
    text = ". ".join(wishes) + "."
    granularity = (settings.get("budget") or {}).get("granularity")
    return {
        "met": all(met),
        "head": "Goal met" if all(met) else "Goal missed",
        "text": f"{text} {granularity}." if granularity else text,
        "expansion": expansion,
    }


def _reached(structure: Structure, cost: str) -> float | None:
    """Where the search ended, as a fraction of the seed's cost."""
    if was_expanded(structure):
        last = structure.trajectory[-1] if structure.trajectory else {}
        return last.get(f"cost_{cost}", last.get("cost"))
    entry = structure.costs.get(cost)
    return float(entry["structure"]) / float(entry["seed"]) if entry and entry["seed"] else None


def _expansion(structure: Structure) -> str:
    settings = structure.settings
    parts = ["Then expanded"]
    if settings.get("multiplier") is not None:
        parts.append(f"by a width multiplier of {float(settings['multiplier']):.4g}")
    limit = settings.get("expanded_to")
    named = limit if isinstance(limit, Mapping) else {str(structure.goal.get("cost")): limit}
    reached = [
        f"{percent(float(entry['structure']) / float(entry['seed']))} of the seed"
        + (f"'s {label(cost)}" if len(named) > 1 else "")
        + (f" (limit {percent(float(most))})" if most is not None else "")
        for cost, most in named.items()
        if (entry := structure.costs.get(cost)) and entry["seed"]
    ]
    if reached:
        parts.append("to " + " and ".join(reached))
    return " ".join(parts) + "."


def _counts(layers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    widths = [(layer["seed_width"], layer["width"]) for layer in layers]
    return {
        "layers": len(widths),
        "narrower": sum(0 < now < seed for seed, now in widths),
        "wider": sum(now > seed for seed, now in widths),
        "unchanged": sum(now == seed for seed, now in widths),
        "removed": sum(now == 0 for _, now in widths),
    }


def _rows(layers: Sequence[Mapping[str, Any]], cost_names: Sequence[str]) -> list[dict[str, Any]]:
    widest = largest_width(layers)
    makers = {layer["name"] for layer in layers_with_channels(layers)}
    rows = []
    for layer in layers:
        costs = []
        for name in cost_names:
            pair = (layer.get("costs") or {}).get(name)
            if pair is None:
                costs.append(None)
            else:
                seed, now = (float(value) for value in pair)
                costs.append({"seed": number(seed), "now": number(now), "exact": f"{exact(seed)} → {exact(now)}"})
        rows.append(
            {
                "name": layer["name"],
                "kind": layer["kind"],
                "group": layer.get("group"),
                "seed": layer["seed_width"],
                "now": layer["width"],
                "removed": layer["width"] == 0,
                "follows": layer["name"] not in makers,
                "wider": layer["width"] > layer["seed_width"],
                "seed_bar": f"{100 * layer['seed_width'] / widest:.2f}",
                "bar": f"{100 * layer['width'] / widest:.2f}",
                "costs": costs,
            }
        )
    return rows


def _is_told_above(name: str, value: Any) -> bool:
    return name in ("frozen", "budget", "uncounted", MEASURED_LATENCY) and isinstance(value, Mapping)


def _uncounted(structure: Structure) -> list[dict[str, str]]:
    """Layers whose work is in no cost, with the share of the parameters that they hold."""
    recorded = structure.settings.get("uncounted")
    if not isinstance(recorded, Mapping):
        return []
    return [
        {"name": str(name), "kind": _plain(entry["kind"]), "share": percent(entry["share"]), "reason": entry["reason"]}
        for name, entry in recorded.items()
    ]


def _frozen(structure: Structure) -> list[dict[str, str]]:
    """What stayed whole: groups and reasons where the search recorded them, else the layers that are in no group."""
    recorded = structure.settings.get("frozen")
    if isinstance(recorded, Mapping):
        return [{"name": str(name), "reason": _plain(reason)} for name, reason in recorded.items()]
    fixed = [layer["name"] for layer in structure.layers if layer.get("group") is None and layer["width"]]
    return [{"name": name, "reason": "fixed; printing the ChannelGraph of the seed says why"} for name in fixed]
