"""The pictures of a structure: the width of every layer before and after, and how the search got there.

Drawn with Matplotlib, which comes with the extra `tfx` and is imported on the first call only. Equal structures give
equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..structure.structure import Structure
from . import drawing
from .wording import channel_counts, exact, label, largest_width, layers_with_channels, percent, was_expanded

# The pictures, in pixels of the page. The widths picture: names, the seed's column, the learned column, numbers.
LONGEST_NAME, COLUMN_WIDTH, NUMBERS_WIDTH, GAP = 28, 300, 120, 24  # the first in letters
TRAJECTORY_WIDTH = 960
READABLE_ROW = 11  # pixels; a row lower than this has no room for its own name


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
        learned = "Learned, then expanded" if was_expanded(structure) else "Learned"
        drawn = {"widths.svg": _draw_widths(layers_with_channels(structure.layers), learned)}
        if structure.trajectory:
            drawn["trajectory.svg"] = _draw_trajectory(structure.trajectory, structure.goal)
    return drawn


def _draw_widths(layers: Sequence[Mapping[str, Any]], heading: str) -> bytes:
    """One row per layer: name, the seed's rectangle, the learned one over the seed's outline, and the numbers.

    The rectangles are centred, so the two columns read as silhouettes of the two networks.
    """
    count, widest = len(layers), largest_width(layers)
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

    totals = channel_counts(layers)
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
            f"{label(counted)}, share of the seed's",
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
            write(axes, steps[-1], value, f"{name} {percent(value)}", color, shift, weight="bold")
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
            write(below, steps[-1], finite[-1], exact(finite[-1]) if key == "alive" else f"{finite[-1]:.3g}", "muted")
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
