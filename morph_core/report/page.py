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
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import drawing

if TYPE_CHECKING:
    from ..structure.structure import Structure

COST_LABELS = {"flops": "FLOPs", "params": "Parameters"}  # any other cost is shown under its own name
FLOPS_NOTE = "A multiply-add counts as 2 FLOPs."


# The pictures, in pixels of the page. The widths picture: names, the seed's column, the learned column, numbers.
LONGEST_NAME, COLUMN_WIDTH, NUMBERS_WIDTH, GAP = 28, 300, 120, 24  # the first in letters
TRAJECTORY_WIDTH = 960
READABLE_ROW = 11  # pixels; a row lower than this has no room for its own name


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
    layers, makers = structure.layers, _makers(structure.layers)
    cost_names = _cost_names(structure)
    in_branches = {name for branch in structure.removed.get("branches", ()) for name in branch}
    hover = {f"layer-{index}": _layer_change(layer) for index, layer in enumerate(makers)}
    return drawing.page(
        "report.html.j2",
        title=title,
        goal=_goal(structure),
        costs=[_cost_card(structure, name) for name in structure.costs],
        counts=_counts(makers),
        channels=_channels(makers),
        widths=drawing.markup(drawing.inline(drawn["widths.svg"], "widths", "Width of every layer", hover)),
        trajectory=(
            drawing.markup(drawing.inline(drawn["trajectory.svg"], "trajectory", "Cost over the search"))
            if "trajectory.svg" in drawn
            else None
        ),
        columns=[_label(name) for name in cost_names],
        followers=len(layers) - len(makers),
        rows=_rows(layers, cost_names),
        widest=_widest(layers),
        removed_layers=list(structure.removed.get("layers", ())),
        single_layers=[name for name in structure.removed.get("layers", ()) if name not in in_branches],
        removed_branches=[list(branch) for branch in structure.removed.get("branches", ())],
        frozen=_frozen(structure),
        settings=[
            (name, _plain(value)) for name, value in structure.settings.items() if not _is_told_above(name, value)
        ],
        fingerprint=structure.fingerprint,
        schema_version=structure.schema_version,
        flops_note=FLOPS_NOTE,
    )


def pictures(structure: Structure) -> dict[str, bytes]:
    """Draws the pictures of the report as SVG files.

    Args:
        structure: what a search found, expanded or not.

    Returns:
        File name -> contents: "widths.svg", one rectangle per layer for the seed and one for what was learned, and
        "trajectory.svg", the cost over the search against its target; the latter only when there is a trajectory.

    Raises:
        MorphError: Matplotlib is missing.
    """
    with drawing.style():
        learned = "Learned, then expanded" if _expanded(structure) else "Learned"
        drawn = {"widths.svg": _draw_widths(_makers(structure.layers), learned)}
        if structure.trajectory:
            drawn["trajectory.svg"] = _draw_trajectory(structure.trajectory, structure.goal)
    return drawn


# ---------------------------------------------------------------------------------------------------------------------
# What the page says


def _label(cost: str) -> str:
    return COST_LABELS.get(cost, cost.replace("_", " "))


def _cost_names(structure: Structure) -> list[str]:
    """The costs that layers have a share of; a peak of memory is no layer's."""
    held = dict.fromkeys(name for layer in structure.layers for name in layer.get("costs") or ())
    return sorted(held, key=lambda name: list(structure.costs).index(name) if name in structure.costs else len(held))


def _number(value: float) -> str:
    """Three significant digits with a metric prefix: 1234567 -> '1.23 M'."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            scaled = value / size
            digits = max(0, 2 - int(math.log10(abs(scaled) * 1.0005)))
            return f"{scaled:.{digits}f}\u00a0{prefix}"
    return f"{value:.3g}"


def _exact(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def _percent(fraction: float) -> str:
    """One decimal, unless it says nothing: 0.5 -> '50%', 0.4937 -> '49.4%'."""
    return f"{100 * fraction:.1f}".removesuffix(".0") + "%"


def _change(seed: float, now: float) -> str:
    if not seed:
        return ""
    if now == seed:
        return "unchanged"
    return f"{'−' if now < seed else '+'}{_percent(abs(now / seed - 1))}"


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
    limit = None if _expanded(structure) else structure.limits.get(name)
    scale = max(1.0, fraction)  # the bar's full length: the seed, or the structure where that costs more
    return {
        "label": _label(name),
        "note": FLOPS_NOTE if name == "flops" else "",
        "seed": _number(seed),
        "now": _number(now),
        "exact": f"{_exact(seed)} → {_exact(now)}",
        "percent": _percent(fraction),
        "change": _change(seed, now),
        "cheaper": now <= seed,
        "bar": f"{100 * fraction / scale:.2f}",
        "seed_bar": f"{100 / scale:.2f}",
        "limit": f"{100 * limit / scale:.2f}" if limit is not None and limit <= scale else None,
        "limit_text": _percent(limit) if limit is not None else "",
    }


def _expanded(structure: Structure) -> bool:
    return any(structure.settings.get(name) is not None for name in ("expanded_to", "multiplier"))


def _goal(structure: Structure) -> dict[str, Any]:
    """The goal in a sentence, and its verdict: True, False or None where there was nothing to meet.

    The goal is the search's. An expansion afterwards may spend more on purpose, so an expanded structure is judged by
    where its search ended, and the expansion is told as a second sentence.
    """
    goal, settings, limits = structure.goal, structure.settings, structure.limits
    expanded = _expanded(structure)
    expansion = _expansion(structure) if expanded else ""
    if not limits:
        strength, cost = goal.get("strength"), _label(str(goal.get("cost", "cost")))
        text = f"The search ran with a fixed strength of {float(strength):g} on {cost}." if strength is not None else ""
        return {"met": None, "head": "No target", "text": text, "expansion": expansion}
    wishes, met = [], []
    for cost, limit in limits.items():
        wish = f"{_label(cost)} at most {_percent(limit)} of the seed"
        if goal.get("budget") is not None:
            amount = goal["budget"][cost] if isinstance(goal["budget"], Mapping) else goal["budget"]
            wish += f" (a budget of {_number(float(amount))})"
        reached = _reached(structure, cost)
        if reached is None:
            return {
                "met": None,
                "head": "Goal",
                "text": f"{wish}. Where the search ended was not recorded.",
                "expansion": expansion,
            }
        met.append(reached <= limit * (1 + 1e-3))  # a tenth of a percent is below what the page can show
        wish += f"; {'the search ended at' if expanded else 'reached'} {_percent(reached)}"
        wishes.append(wish if met[-1] else f"{wish}, {_percent(reached / limit - 1)} above it")
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
    if _expanded(structure):
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
        f"{_percent(float(entry['structure']) / float(entry['seed']))} of the seed"
        + (f"'s {_label(cost)}" if len(named) > 1 else "")
        + (f" (limit {_percent(float(most))})" if most is not None else "")
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


def _channels(layers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    seed, now = (sum(layer[key] for layer in layers) for key in ("seed_width", "width"))
    return {
        "seed": f"{seed:,}",
        "now": f"{now:,}",
        "change": _change(seed, now),
        "percent": _percent(now / seed if seed else 1.0),
    }


def _makers(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
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


def _widest(layers: Sequence[Mapping[str, Any]]) -> int:
    return max((max(layer["seed_width"], layer["width"]) for layer in layers), default=1) or 1


def _rows(layers: Sequence[Mapping[str, Any]], cost_names: Sequence[str]) -> list[dict[str, Any]]:
    widest = _widest(layers)
    makers = {layer["name"] for layer in _makers(layers)}
    rows = []
    for layer in layers:
        costs = []
        for name in cost_names:
            pair = (layer.get("costs") or {}).get(name)
            if pair is None:
                costs.append(None)
            else:
                seed, now = (float(value) for value in pair)
                costs.append({"seed": _number(seed), "now": _number(now), "exact": f"{_exact(seed)} → {_exact(now)}"})
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
    return name in ("frozen", "budget") and isinstance(value, Mapping)


def _frozen(structure: Structure) -> list[dict[str, str]]:
    """What stayed whole: groups and reasons where the search recorded them, else the layers that are in no group."""
    recorded = structure.settings.get("frozen")
    if isinstance(recorded, Mapping):
        return [{"name": str(name), "reason": _plain(reason)} for name, reason in recorded.items()]
    fixed = [layer["name"] for layer in structure.layers if layer.get("group") is None and layer["width"]]
    return [{"name": name, "reason": "fixed; printing the ChannelGraph of the seed says why"} for name in fixed]


# ---------------------------------------------------------------------------------------------------------------------
# What the pictures show


def _draw_widths(layers: Sequence[Mapping[str, Any]], heading: str) -> bytes:
    """One row per layer: name, the seed's rectangle, the learned one over the seed's outline, and the numbers.

    The rectangles are centred, so the two columns read as silhouettes of the two networks.
    """
    count, widest = len(layers), _widest(layers)
    row = next(
        (height for most, height in ((20, 24), (40, 18), (64, 15), (150, 12)) if count <= most), 1800 / (count or 1)
    )
    row = max(3.0, row)
    every = max(1, math.ceil(READABLE_ROW / row))  # where rows are low, only each `every`-th has its name
    font = min(12.0, 0.78 * row * every)
    head, foot = 58, 40
    height = head + count * row + foot
    names = [_shortened(layer["name"], LONGEST_NAME) for layer in layers]
    name_x = max(80.0, 0.64 * font * max(map(len, names), default=0))  # right edge; a letter is about 0.6 of its height
    seed_x = name_x + GAP / 2 + COLUMN_WIDTH / 2
    learned_x = seed_x + COLUMN_WIDTH + GAP
    arrow_x = learned_x + COLUMN_WIDTH / 2 + GAP / 2 + 40
    scale = COLUMN_WIDTH / widest  # pixels per channel
    figure, axes = drawing.canvas(learned_x + COLUMN_WIDTH / 2 + NUMBERS_WIDTH, height)
    patches = drawing.dependency("matplotlib.patches")

    def write(x: float, y: float, text: str, color: str, size: float, **more: Any) -> None:
        axes.text(
            x,
            y,
            drawing.clean(text),
            color=drawing.PALETTE[color],
            fontsize=size,
            parse_math=False,
            va="center",
            **more,
        )

    def rectangle(x: float, y: float, width: float, **style: Any) -> None:
        drawn = max(1.0, width * scale)  # one channel is seen, however wide the others are
        gap = min(3.0, 0.2 * row)
        axes.add_patch(patches.Rectangle((x - drawn / 2, y + gap / 2), drawn, row - gap, **style))

    totals = _channels(layers)
    write(seed_x, 16, "Seed", "ink", 15, ha="center", weight="bold")
    write(learned_x, 16, heading, "learned", 15, ha="center", weight="bold")
    write(seed_x, 36, f"{totals['seed']} channels", "muted", 12, ha="center")
    write(learned_x, 36, f"{totals['now']} channels ({totals['change']})", "muted", 12, ha="center")
    write(arrow_x, 36, "seed → learned", "muted", 11, ha="center")
    for index, layer in enumerate(layers):
        y, name = head + index * row, f"layer-{index}"
        seed, now = layer["seed_width"], layer["width"]
        rectangle(seed_x, y, seed, facecolor=drawing.PALETTE["seed"], linewidth=0, gid=f"{name}-seed")
        if now:
            rectangle(learned_x, y, seed, facecolor=drawing.PALETTE["ghost"], linewidth=0)
            rectangle(learned_x, y, now, facecolor=drawing.PALETTE["learned"], linewidth=0, gid=f"{name}-learned")
            if now > seed and every == 1:  # wider than its seed: the seed's edges show inside
                for edge in (-seed, seed):
                    x = learned_x + edge * scale / 2
                    axes.plot([x, x], [y + 3, y + row - 3], color=drawing.PALETTE["paper"], linewidth=1)
        else:
            edge = (
                {"edgecolor": drawing.PALETTE["removed"], "linewidth": 0.8, "linestyle": (0, (3, 2))}
                if every == 1
                else {}
            )
            rectangle(
                learned_x,
                y,
                seed,
                facecolor=drawing.PALETTE["removed-soft"],
                gid=f"{name}-learned",
                **{"linewidth": 0, **edge},
            )
        if index % every == 0:
            middle = y + row / 2
            write(name_x, middle, names[index], "ink" if now else "removed", font, ha="right")
            color = "muted" if now else "removed"
            write(arrow_x - font, middle, str(seed), color, font, ha="right")
            write(arrow_x, middle, "→", color, font, ha="center")
            write(arrow_x + font, middle, str(now or "removed"), color, font, ha="left")
    mark = 2 ** int(math.log2(max(1, widest / 2)))
    y, start = height - foot + 14, learned_x - mark * scale / 2
    axes.plot(
        [start, start, start, start + mark * scale, start + mark * scale, start + mark * scale],
        [y - 3, y + 3, y, y, y - 3, y + 3],
        color=drawing.PALETTE["muted"],
        linewidth=1,
    )
    write(learned_x, y + 12, f"{mark} channel{'s' if mark > 1 else ''}", "muted", 11, ha="center")
    if every > 1:
        write(name_x, y, f"one layer in {every} is named; the table has all", "muted", 9, ha="right")
    return drawing.to_svg(figure)


def _draw_trajectory(points: Sequence[Mapping[str, Any]], goal: Mapping[str, Any]) -> bytes:
    """The search over its steps, one panel per question: cost against target, channels alive, loss if recorded."""

    def series(key: str) -> list[float]:
        return [math.nan if point.get(key) is None else float(point[key]) for point in points]

    steps = [float(point.get("step", index)) for index, point in enumerate(points)]
    names = [key.removeprefix("cost_") for key in points[0] if key.startswith("cost_")]
    costs = [(name, series(f"cost_{name}"), series(f"target_{name}")) for name in names]
    costs = costs or [(str(goal.get("cost", "cost")), series("cost"), series("target"))]
    panels = [("alive", "channels alive (tied ones count once)", 64)]
    if any(math.isfinite(loss) for loss in series("loss")):
        panels.append(("loss", "loss", 64))
    left, right, top, main, gap, foot = 64, 132, 40, 240, 36, 44
    above = 46  # between the panels of several costs: the axis of one and the heading of the next
    height = top + len(costs) * (main + above) - above + sum(size + gap for _, _, size in panels) + foot
    figure = drawing.new_figure(TRAJECTORY_WIDTH, height)
    ticker = drawing.dependency("matplotlib.ticker")

    def panel(y: float, size: float, shared: Any = None) -> Any:
        box = (
            left / TRAJECTORY_WIDTH,
            1 - (y + size) / height,
            (TRAJECTORY_WIDTH - left - right) / TRAJECTORY_WIDTH,
            size / height,
        )
        axes = figure.add_axes(box, sharex=shared, facecolor="none")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set(color=drawing.PALETTE["line"], linewidth=1)
        axes.grid(axis="y", color=drawing.PALETTE["line"], linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(colors=drawing.PALETTE["muted"], labelsize=11, length=0, pad=6)
        return axes

    def write(
        axes: Any, x: float, y: float, text: str, color: str, shift: tuple[float, float] = (8, 0), **more: Any
    ) -> None:
        axes.annotate(
            drawing.clean(text),
            (x, y),
            xytext=shift,
            textcoords="offset points",
            color=drawing.PALETTE[color],
            fontsize=12,
            va="center",
            annotation_clip=False,
            parse_math=False,
            **more,
        )

    marker = {"marker": "o", "markersize": 5} if len(points) == 1 else {}
    y, shown = float(top), []
    for counted, cost, target in costs:
        axes = panel(y, main, shown[0] if shown else None)
        tallest = max([1.0] + [value for value in cost + target if math.isfinite(value)])
        axes.set_ylim(0, 1.04 * tallest)
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
        axes.plot(steps, target, color=drawing.PALETTE["ink"], linewidth=1.6, linestyle=(0, (4, 3)), **marker)
        axes.plot(steps, cost, color=drawing.PALETTE["learned"], linewidth=2.4, solid_joinstyle="round", **marker)
        axes.text(
            0,
            1 + 20 / main,
            f"{_label(counted)}, share of the seed's",
            transform=axes.transAxes,
            color=drawing.PALETTE["muted"],
            fontsize=12,
            va="center",
            parse_math=False,
        )
        end, wish = cost[-1], target[-1]
        labels = [("learned", "cost", end)] + ([("ink", "target", wish)] if math.isfinite(wish) else [])
        pixel = main / (1.04 * tallest)
        apart = abs(end - wish) * pixel if len(labels) == 2 else math.inf
        push = max(0.0, (17 - apart) / 2)  # the two end labels meet where the search does its job: keep them legible
        for color, name, value in labels:
            other = wish if name == "cost" else end
            upper = value > other or (value == other and name == "target")
            shift = (8, push if upper else -push)
            write(axes, steps[-1], value, f"{name} {_percent(value)}", color, shift, weight="bold")
        y, shown = y + main + above, [*shown, axes]
    y -= above
    for key, name, size in panels:
        below = panel(y + gap, size, shown[0])
        values = series(key)
        below.plot(steps, values, color=drawing.PALETTE["seed"], linewidth=1.8, **marker)
        finite = [value for value in values if math.isfinite(value)]
        low, high = min([0.0, *finite]), max(finite, default=0.0)  # a loss may be below zero
        below.set_ylim(low - (0.1 * (high - low) if low < 0 else 0), high + 0.1 * (high - low) or 1.0)
        below.yaxis.set_major_locator(ticker.MaxNLocator(2, integer=key == "alive"))
        below.yaxis.set_major_formatter(
            ticker.EngFormatter(sep="\u00a0") if key == "alive" else ticker.StrMethodFormatter("{x:g}")
        )
        if finite:
            write(below, steps[-1], finite[-1], _exact(finite[-1]) if key == "alive" else f"{finite[-1]:.3g}", "muted")
        below.text(
            0, 1 + 11 / size, name, transform=below.transAxes, color=drawing.PALETTE["muted"], fontsize=11, va="center"
        )
        y, shown = y + gap + size, [*shown, below]
    for axes in shown[:-1]:
        axes.tick_params(labelbottom=False)
    first, last = min(steps), max(steps)
    shown[-1].set_xlim(first, last if last > first else first + 1)
    shown[-1].xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    shown[-1].set_xlabel("training step of the search", color=drawing.PALETTE["muted"], fontsize=12, labelpad=8)
    return drawing.to_svg(figure)


def _shortened(name: str, most: int) -> str:
    """The beginning and the end of a long name: layers of one block differ in their last letters."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"
