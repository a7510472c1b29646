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
_LABEL_SIZE = 11  # pixels, as those below
_MARK = 6  # from the middle of a mark to its edge
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
        allowed=_allowed(frontier),
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
        axes.margins(x=0.12, y=0.16)
        axes.set_xlabel(f"% of the seed's {frontier.cost}", color=drawing.PALETTE["muted"], fontsize=12, labelpad=8)
        axes.set_ylabel(drawing.clean(frontier.metric), color=drawing.PALETTE["muted"], fontsize=12, labelpad=8)
        label_points(axes, frontier)
        return drawing.to_svg(figure)


def label_points(axes: Any, frontier: Frontier) -> list[Any]:
    """Writes each point's label beside it, where it covers no mark, no other label, and no edge of the picture.

    Every label takes the first of the places around its point that is free, or the one that covers least.

    Args:
        axes: with the points drawn.
        frontier: its points.

    Returns:
        The labels, as Matplotlib has them.
    """
    figure = axes.figure
    renderer = drawing.dependency("matplotlib.backends.backend_agg").FigureCanvasAgg(figure).get_renderer()
    frame = figure.bbox
    axes.autoscale_view()  # as it would be when drawn
    places = [tuple(axes.transData.transform((100 * point.fraction, point.accuracy))) for point in frontier.points]
    taken = [_box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    labels = []
    for point, (x, y) in zip(frontier.points, places, strict=True):
        label = axes.annotate(
            drawing.clean(point.label),
            (100 * point.fraction, point.accuracy),
            xytext=(0, 0),
            textcoords="offset pixels",
            color=drawing.PALETTE["muted"],
            fontsize=_LABEL_SIZE,
            parse_math=False,
            annotation_clip=False,
        )
        size = label.get_window_extent(renderer)
        best = None
        for place in _around(size.width, size.height):
            box = _box(x + place[0], y + place[1], x + place[0] + size.width, y + place[1] + size.height)
            covered = sum(_common(box, other) for other in taken) + _outside(box, frame)
            if best is None or covered < best[0]:
                best = (covered, place, box)
            if not covered:
                break
        assert best is not None, "there is always a place around a point"
        # Where the text begins is below where its box begins: letters reach below the line that they stand on.
        label.set_position((best[1][0] + x - size.x0, best[1][1] + y - size.y0))
        taken.append(best[2])
        labels.append(label)
    return labels


Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in pixels."""


def _box(left: float, bottom: float, right: float, top: float) -> Box:
    return left, bottom, right, top


def _around(width: float, height: float) -> list[tuple[float, float]]:
    """Where a text of this size may begin, seen from its point: near before far, the right and above first."""
    found = []
    for distance in range(_MARK + 2, 8 * _LABEL_SIZE, _LABEL_SIZE // 2):
        sides = (distance, -width / 2, -distance - width)
        levels = (distance, -height / 2, -distance - height)
        found += [(side, level) for level in levels for side in sides if (side, level) != (-width / 2, -height / 2)]
    return found


def _common(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _outside(box: Box, frame: Any) -> float:
    """The area of a box outside of the picture."""
    inside = _common(box, _box(frame.x0, frame.y0, frame.x1, frame.y1))
    return (box[2] - box[0]) * (box[3] - box[1]) - inside


def _allowed(frontier: Frontier) -> str:
    """Which differences from uniform widths keep a network from being chosen."""
    if not any(point.kind == "uniform" for point in frontier.points):
        return ""
    if frontier.max_behind_uniform is not None:
        return f"A learned network that is behind it by more than {frontier.max_behind_uniform:g} is not chosen."
    if not any(frontier.standard_error_of(point) for point in frontier.points):
        return "What chance explains is not known of this metric, so no difference keeps a network from being chosen."
    return "A learned network that is behind it by more than one standard error of its evaluation is not chosen."


def _row(frontier: Frontier, point: Point, chosen: bool, on_frontier: bool) -> dict[str, Any]:
    gain = frontier.gain(point) if point.kind == "learned" else None
    return {
        "label": point.label,
        "fraction": f"{100 * point.fraction:.1f} %",
        "cost": written(point.cost),
        "accuracy": f"{point.accuracy:.4f}",
        "gain": "" if gain is None else f"{gain:+.4f}",
        "behind": point.kind == "learned" and frontier.is_behind(point),
        "passed": "yes" if point.passed else "no",
        "on_frontier": "yes" if on_frontier else "",
        "chosen": chosen,
    }
