"""How a report writes amounts, and what it says of all layers together: shared by the page and its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..structure.structure import MEASURED_LATENCY, Structure

COST_LABELS = {"flops": "FLOPs", "params": "Parameters"}  # any other cost is shown under its own name
FLOPS_NOTE = "A multiply-add counts as 2 FLOPs."


def label(cost: str) -> str:
    return COST_LABELS.get(cost, cost.replace("_", " "))


def number(value: float) -> str:
    """Three significant digits with a metric prefix: 1234567 -> '1.23 M'."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            scaled = value / size
            digits = max(0, 2 - int(math.log10(abs(scaled) * 1.0005)))
            return f"{scaled:.{digits}f}\u00a0{prefix}"
    return f"{value:.3g}"


def exact(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def percent(fraction: float) -> str:
    """One decimal, unless it says nothing: 0.5 -> '50%', 0.4937 -> '49.4%'."""
    return f"{100 * fraction:.1f}".removesuffix(".0") + "%"


def change(seed: float, now: float) -> str:
    if not seed:
        return ""
    if now == seed:
        return "unchanged"
    return f"{'−' if now < seed else '+'}{percent(abs(now / seed - 1))}"


def measured_in_words(structure: Structure) -> str:
    """What the clock said of the network's latency, in a sentence; "" where nobody has asked it."""
    found = structure.settings.get(MEASURED_LATENCY)
    if not isinstance(found, Mapping):
        return ""
    predicted, measured, seed = (float(found[name]) for name in ("predicted_ms", "measured_ms", "seed_ms"))
    return (
        f"Measured: {measured:.4g} ms per example, {percent(abs(measured / predicted - 1))} "
        f"{'more' if measured > predicted else 'less'} than the predicted {predicted:.4g} ms; the seed takes "
        f"{seed:.4g} ms. Measurements repeat within {percent(float(found['repeatability']))} ({found['on']})."
    )


def was_expanded(structure: Structure) -> bool:
    return any(structure.settings.get(name) is not None for name in ("expanded_to", "multiplier"))


def channel_counts(layers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    seed, now = (sum(layer[key] for layer in layers) for key in ("seed_width", "width"))
    return {
        "seed": f"{seed:,}",
        "now": f"{now:,}",
        "change": change(seed, now),
        "percent": percent(now / seed if seed else 1.0),
    }


def layers_with_channels(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The layers that have channels of their own to show, in order.

    A normalisation has weights for each channel, so a structure lists it, but its width is that of the layer before it:
    drawn as well, it would show, and count, the same channels twice. A layer makes channels if it spends FLOPs on them
    or stands first in its group (an embedding); where FLOPs are not known, every layer counts.
    """
    makers, groups = [], set()
    for layer in layers:
        flops = layer["costs"].get("flops")
        first = layer["group"] is not None and layer["group"] not in groups
        if flops is None or flops[0] or first:
            makers.append(layer)
        groups.add(layer["group"])
    return makers


def largest_width(layers: Sequence[Mapping[str, Any]]) -> int:
    return max((max(layer["seed_width"], layer["width"]) for layer in layers), default=1) or 1
