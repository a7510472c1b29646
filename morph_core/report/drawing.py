"""What the reports draw with: a palette, figures that are the same bytes each time, and pages that hold everything.

A page inlines its pictures, with the colours of the palette turned into CSS variables, which is how one drawing follows
the reader's light or dark setting. Matplotlib and Jinja2 come with the extra `tfx` and are imported on the first call.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from morph_core.errors import MorphError

# One colour per role. The page's style sheet holds the same roles twice, for light and for dark.
PALETTE = {
    "paper": "#fffffe",
    "ink": "#1b2330",
    "muted": "#5d6879",
    "line": "#dfe3ea",
    "seed": "#94a1b5",
    "ghost": "#e9edf3",
    "learned": "#0b7a75",
    "removed": "#c2410b",
    "removed-soft": "#fbe4d8",
}


def page(template: str, **values: Any) -> str:
    """A template of `templates/`, filled in; texts are escaped, `markup` is not.

    Raises:
        MorphError: Jinja2 is missing.
    """
    jinja2 = dependency("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # the names of layers are the user's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(palette=PALETTE, **values)


def markup(text: str) -> Any:
    """Text for a page that is markup already."""
    return dependency("markupsafe").Markup(text)


def new_figure(width: float, height: float) -> Any:
    """A figure in pixels. The class itself, not pyplot: no global state, safe inside a training process."""
    return dependency("matplotlib.figure").Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=PALETTE["paper"])


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure and axes without ticks whose coordinates are pixels from the top left."""
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults and a fixed salt for ids, whatever the user's matplotlibrc says; then restored."""
    matplotlib = dependency("matplotlib")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "morph", "font.family": ["DejaVu Sans"]})
        yield


def to_svg(figure: Any) -> bytes:
    """The bytes of an SVG file; equal figures give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return file.getvalue()


def inline(picture: bytes, name: str, description: str, hover: Mapping[str, str] | None = None) -> str:
    """An SVG file as an element of the page.

    Colours of the palette become CSS variables, ids get the picture's name before them (two pictures share one page),
    the prologue and the fixed size go, and rectangles of a layer say on hover which layer they are.
    """
    svg = picture.decode()
    svg = re.sub(
        r"<defs>\s*<style.*?</defs>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL
    )  # it would style the page
    roles = {color: role for role, color in PALETTE.items()}

    def tag(match: re.Match[str]) -> str:  # inside tags only: the text between them is names of layers
        text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", match[0])
        return re.sub(
            r"#[0-9a-f]{6}\b", lambda color: f"var(--{roles[color[0]]})" if color[0] in roles else color[0], text
        )

    svg = re.sub(r"<[^>]*>", tag, svg)
    for identity, text in (hover or {}).items():
        for side in ("seed", "learned"):
            opening = f'<g id="{name}-{identity}-{side}">'
            svg = svg.replace(opening, f"{opening}<title>{escape(clean(text))}</title>")
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None, "Matplotlib writes the viewBox of every SVG"
    width = float(box[1].split()[2])
    return re.sub(
        r"^<svg[^>]*>",
        f'<svg role="img" aria-label="{escape(description)}" viewBox="{box[1]}" style="max-width:{width}px">',
        svg,
        count=1,
    )


def clean(text: str) -> str:
    """A line of text that XML can hold: control characters have no escape there."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def dependency(module: str) -> Any:
    """A module that comes with the extra `tfx`.

    Raises:
        MorphError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MorphError(
            f"The report cannot be drawn: {package!r} could not be imported ({error}). It needs Matplotlib and Jinja2, "
            "which come with the extra 'tfx'. Install them with: pip install 'morph-tfx[tfx]'"
        ) from error
