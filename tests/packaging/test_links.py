"""Links in the Markdown pages: each leads to a file of the checkout, and to a heading where it names one."""

import re
from pathlib import Path

import pytest

from tests.packaging.pages import PAGES, prose
from tests.packaging.source import ROOT

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def headings(page: Path) -> set[str]:
    """The anchors of a page, made of its headings as GitHub makes them."""
    found: set[str] = set()
    for text in re.findall(r"^#{1,6} (.*)$", prose(page), flags=re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(numbered)
    return found


def broken(page: Path, text: str) -> list[str]:
    """The links in the text of a page that lead nowhere; addresses of other sites are not asked."""
    wrong = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or ROOT not in target.parents:
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in headings(target):
            wrong.append(f"{link}: no such heading; there are {', '.join(sorted(headings(target)))}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    assert broken(page, prose(page)) == []


def test_a_link_that_leads_nowhere_is_found():
    text = (
        "[a](docs/nowhere.md) [b](#nothing) [c](docs/install.md#nothing) [d](docs/install.md#bazel) [e](https://x.org)"
    )
    assert [line.partition(":")[0] for line in broken(ROOT / "README.md", text)] == [
        "docs/nowhere.md",
        "#nothing",
        "docs/install.md#nothing",
    ]


def test_every_page_below_docs_is_linked_from_the_readme():
    linked = {link.partition("#")[0] for link in LINK.findall(prose(ROOT / "README.md"))}
    assert {str(page.relative_to(ROOT)) for page in PAGES if page.parent == ROOT / "docs"} <= linked
