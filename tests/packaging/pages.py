"""The pages that people read: the Markdown files, their code and what they link to."""

import re
from pathlib import Path

from tests.packaging.source import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/**/*.md")]
)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def sides(diff: str) -> tuple[str, str]:
    """The code before and after what a block of the language "diff" shows."""
    lines = [(line[:1], line[1:]) for line in diff.splitlines()]
    before, after = ([text for sign, text in lines if sign in (" ", "", side)] for side in "-+")
    return "\n".join(before), "\n".join(after)


def commands(page: str) -> list[str]:
    """The lines that a page gives to type, without their comments: those indented by four spaces."""
    lines = prose(ROOT / page).splitlines()
    return [re.split(r"\s+# ", line.strip())[0] for line in lines if re.match(r" {4}\S", line)]


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def run(code: str, page: str, names: dict) -> dict:
    """Executes code of a page, line numbers aside, with these names; returns them with those that it made."""
    exec(compile(code, page, "exec"), names)  # noqa: S102 -- our own text
    return names
