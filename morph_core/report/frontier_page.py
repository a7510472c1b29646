"""A frontier as a page and as a picture: what accuracy costs, and which network was taken.

The page says first what was chosen and by which rule, then shows every network in one picture and one table. It is one
file without scripts and without references to anything outside it. Equal frontiers give equal bytes.
"""

from __future__ import annotations

from typing import Any

from ..cost.costs import written
from . import drawing
from .frontier import Frontier, Point, ordered

_WIDTH, _HEIGHT = 960, 460  # pixels of the page
_MARKS: dict[str, dict[str, Any]] = {
    "learned": {"marker": "o", "color": "learned", "size": 9},
    "uniform": {"marker": "s", "color": "seed", "size": 8},
    "seed": {"marker": "D", "color": "ink", "size": 8},
}


def html(frontier: Frontier, title: str = "Accuracy against cost") -> str:
    """Draws the page.

    Raises:
        MorphError: Matplotlib or Jinja2 is missing.
    """
    chosen, best = frontier.chosen(), frontier.pareto()
    return drawing.page(
        "frontier.html.j2",
        title=title,
        met=chosen is not None,
        verdict=frontier.verdict(),
        metric=frontier.metric,
        cost=frontier.cost,
        unit_note="A multiply-add counts as 2 FLOPs." if frontier.cost == "flops" else "",
        picture=drawing.markup(drawing.inline(picture(frontier), "frontier", f"{frontier.metric} against cost")),
        rows=[_row(frontier, point, point is chosen, point in best) for point in ordered(frontier.points)],
    )


def picture(frontier: Frontier) -> bytes:
    """Draws the points as an SVG file: the metric against the percentage of the seed's cost.

    Raises:
        MorphError: Matplotlib is missing.
    """
    with drawing.style():
        figure = drawing.new_figure(_WIDTH, _HEIGHT)
        axes = figure.add_axes((0.08, 0.13, 0.89, 0.82))
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set(color=drawing.PALETTE["line"], linewidth=1)
        axes.grid(axis="y", color=drawing.PALETTE["line"], linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(colors=drawing.PALETTE["muted"], labelsize=11, length=0, pad=6)
        rule = {"color": drawing.PALETTE["ink"], "linewidth": 1.4, "linestyle": (0, (4, 3))}
        if frontier.min_accuracy is not None:
            axes.axhline(frontier.min_accuracy, **rule)
        else:
            axes.axvline(100 * (frontier.max_cost or 0), **rule)
        best = frontier.pareto()
        axes.plot(
            [100 * point.fraction for point in best],
            [point.accuracy for point in best],
            color=drawing.PALETTE["learned"],
            linewidth=1.6,
            gid="pareto",
        )
        for kind, mark in _MARKS.items():
            points = [point for point in frontier.points if point.kind == kind]
            axes.plot(
                [100 * point.fraction for point in points],
                [point.accuracy for point in points],
                linestyle="none",
                marker=mark["marker"],
                markersize=mark["size"],
                color=drawing.PALETTE[mark["color"]],
                gid=kind,
            )
        chosen = frontier.chosen()
        if chosen is not None:
            axes.plot(
                [100 * chosen.fraction],
                [chosen.accuracy],
                marker="o",
                markersize=18,
                fillstyle="none",
                color=drawing.PALETTE["removed"],
                markeredgewidth=2,
                gid="chosen",
            )
        for point in frontier.points:
            axes.annotate(
                drawing.clean(point.label),
                (100 * point.fraction, point.accuracy),
                xytext=(8, -14 if point.kind == "uniform" else 8),
                textcoords="offset points",
                color=drawing.PALETTE["muted"],
                fontsize=11,
                parse_math=False,
                annotation_clip=False,
            )
        axes.margins(x=0.12, y=0.16)
        axes.set_xlabel(f"% of the seed's {frontier.cost}", color=drawing.PALETTE["muted"], fontsize=12, labelpad=8)
        axes.set_ylabel(drawing.clean(frontier.metric), color=drawing.PALETTE["muted"], fontsize=12, labelpad=8)
        return drawing.to_svg(figure)


def _row(frontier: Frontier, point: Point, chosen: bool, on_frontier: bool) -> dict[str, Any]:
    gain = frontier.gain(point) if point.kind == "learned" else None
    return {
        "label": point.label,
        "fraction": f"{100 * point.fraction:.1f} %",
        "cost": written(point.cost),
        "accuracy": f"{point.accuracy:.4f}",
        "gain": "" if gain is None else f"{gain:+.4f}",
        "passed": "yes" if point.passed else "no",
        "on_frontier": "yes" if on_frontier else "",
        "chosen": chosen,
    }
