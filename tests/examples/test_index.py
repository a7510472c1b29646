"""The index of the examples: complete, and every link leads somewhere."""

import ast
import re
from pathlib import Path

import pytest

from tests.examples.copies import EXAMPLES

FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/README.md"))
PAGES = [EXAMPLES / "README.md", *(folder / "README.md" for folder in FOLDERS), *EXAMPLES.glob("*.ipynb")]
CLIENTS = sorted(EXAMPLES.glob("*/ask.py"))


def test_the_index_names_every_example():
    named = set(re.findall(r"\]\(([^)/]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert named == {*(folder.name for folder in FOLDERS), *(path.name for path in EXAMPLES.glob("*.ipynb"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_readme_tells_what_each_file_is(folder: Path):
    text = (folder / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in folder.iterdir() if path.suffix in (".py", ".yaml")} - {"job.yaml"}
    assert {name for name in files if name not in text} == set()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda path: path.parent.name)
def test_a_client_of_the_model_needs_tensorflow_alone(client: Path):
    imported = {
        name.name
        for node in ast.walk(ast.parse(client.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for name in node.names
    } | {node.module for node in ast.walk(ast.parse(client.read_text())) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"argparse", "csv", "pathlib", "tensorflow"}


def test_each_example_has_its_test():
    tested = {path.name.removeprefix("test_").removesuffix(".py") for path in Path(__file__).parent.glob("test_*.py")}
    assert tested - {"index"} == {
        *(folder.name for folder in FOLDERS),
        *(path.stem for path in EXAMPLES.glob("*.ipynb")),
    }
