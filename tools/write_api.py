"""Writes the reference of every public name as HTML pages, from the docstrings, and checks the links between them.

    python tools/write_api.py build/api

The modules are those whose `__all__` is the public surface. A name that a page refers to and that has no place on any
page would be a link that leads nowhere: then this ends with the list of them and exit status 1.
"""

from __future__ import annotations

import html.parser
import importlib
import os
import sys
import urllib.parse
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

warnings.simplefilter("ignore", FutureWarning)  # of other packages, as they are imported

import pdoc  # noqa: E402
import pdoc.render  # noqa: E402

# The first module brings morph_core.report, which its `__all__` names.
PUBLIC = ("morph_core", "morph_core.network.flows", "morph_tfx.components", "morph_tfx.pipelines")
MADE_ELSEWHERE = {"morph_core.ChannelGraph.__init__"}  # by `from_model`


def write(folder: Path) -> list[str]:
    """Writes one page for each of the public modules and an index; returns the links that lead nowhere."""
    for name in PUBLIC:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            setattr(module, public, getattr(module, public))  # a name that is imported late is not seen otherwise
    pdoc.render.configure(
        docformat="google", show_source=False, template_directory=Path(__file__).parent / "api_template"
    )
    pdoc.render.env.globals["made_elsewhere"] = MADE_ELSEWHERE
    pdoc.pdoc(*PUBLIC, output_directory=folder)
    return broken_links(folder)


class _Anchors(html.parser.HTMLParser):
    """The ids of a page, and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def broken_links(folder: Path) -> list[str]:
    """The links of all pages below a folder to files or places there that do not exist, each as "page: link"."""
    pages = {page: _Anchors(page.read_text(encoding="utf-8")) for page in sorted(folder.rglob("*.html"))}
    wrong = []
    for page, anchors in pages.items():
        for link in sorted(anchors.links):
            address = urllib.parse.urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (page.parent / urllib.parse.unquote(address.path)).resolve() if address.path else page
            there = pages.get(target)
            if not target.exists() or (there and address.fragment and address.fragment not in there.ids):
                wrong.append(f"{page.relative_to(folder)}: {link}")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python tools/write_api.py FOLDER")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.simplefilter("ignore", FutureWarning)  # of other packages, as they are imported
    output = Path(sys.argv[1]).resolve()
    if wrong := write(output):
        sys.exit("Links that lead nowhere:\n" + "\n".join(wrong))
    print(f"The reference is in {sys.argv[1]}/index.html.")
