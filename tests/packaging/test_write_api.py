"""The reference that `make api` writes: a broken link is found, and every public name has its place."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import morph_core
import morph_tfx.pipelines
from tests.packaging.source import ROOT
from tools.write_api import broken_links


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "index.html").write_text('<a href="inner/page.html#there">a</a> <a href="inner/page.html#gone">b</a>')
    (tmp_path / "inner" / "page.html").write_text(
        '<p id="there"></p> <a href="../index.html">c</a> <a href="../gone.html">d</a> <a href="#gone">e</a> '
        '<a href="https://example.org/gone.html">f</a>'
    )
    assert broken_links(tmp_path) == [
        "index.html: inner/page.html#gone",
        "inner/page.html: #gone",
        "inner/page.html: ../gone.html",
    ]


@pytest.mark.slow
def test_the_reference_has_every_public_name_and_no_broken_link(tmp_path: Path):
    command = [sys.executable, "tools/write_api.py", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.findall(r"(?:UserWarning|RuntimeWarning): .*(?:morph_core|morph_tfx).*", result.stderr) == []
    from morph_tfx import components

    for module in (morph_core, components, morph_tfx.pipelines):
        page = (tmp_path / (module.__name__.replace(".", "/") + ".html")).read_text(encoding="utf-8")
        modules = {path.stem for path in tmp_path.rglob("*.html")}  # a public module has a page of its own
        assert [name for name in module.__all__ if f'id="{name}"' not in page and name not in modules] == []
    assert "0x" not in re.sub(r"<svg.*?</svg>|data:image\S*", "", page), (
        "an address in memory, which changes with each run"
    )
