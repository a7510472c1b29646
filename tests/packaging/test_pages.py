"""What the pages tell people to type: examples run, configurations are valid, commands, targets and files exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import morph_core as morph
from morph_core.network.rules import RULES
from morph_tfx.pipelines import load_config
from morph_tfx.pipelines.commands.cli import cli
from tests.packaging.pages import PAGES, blocks, commands, run
from tests.packaging.source import ROOT

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_readme_is_read_in_one_go():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_python_example_is_run_by_some_test():
    # README: tests/core/test_readme.py; components: tests/components/test_readme.py; the others below.
    known = {"README.md": 1, "CONTRIBUTING.md": 6, "docs/pipelines.md": 5}
    found = {name: len(blocks(name, "python")) for name in NAMES if name != "docs/library.md"}
    assert {name: count for name, count in found.items() if count} == known


def test_the_examples_of_the_library_page_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks("docs/library.md", "python"):
        run(code, "docs/library.md", names)
    assert names["wider"].costs["flops"]["structure"] <= names["graph"].cost("flops")
    assert names["student"].count_params() == names["structure"].costs["params"]["structure"]
    assert (tmp_path / "structure.json").exists()
    assert list((tmp_path / "checkpoints").iterdir())


def test_the_library_page_tells_of_every_cost_and_gate():
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    assert [name for name in (*morph.COSTS, *morph.GATES) if f'| `"{name}"` |' not in page] == []


def test_a_rule_a_cost_and_a_gate_are_added_as_contributing_says(monkeypatch):
    for table in (RULES, morph.COSTS, morph.GATES):
        for name in table:
            monkeypatch.setitem(table, name, table[name])
    before = {id(table): set(table) for table in (RULES, morph.COSTS, morph.GATES)}
    names: dict = {}
    try:
        for code in blocks("CONTRIBUTING.md", "python"):
            if "BaseComponent" not in code:  # see tests/components/test_readme.py
                run(code, "CONTRIBUTING.md", names)
        assert set(morph.GATES) - before[id(morph.GATES)] == {"random"}
        assert set(morph.COSTS) - before[id(morph.COSTS)] == {"traffic"}
        assert set(RULES) - before[id(RULES)] == {names["ScaledDense"]}
        assert names["search"].structure().settings["gate"] == "random"
        assert names["structure"].costs["traffic"]["structure"] > 0
    finally:
        for table in (RULES, morph.COSTS, morph.GATES):
            for name in set(table) - before[id(table)]:
                del table[name]


def test_the_python_of_the_pipelines_page_calls_what_there_is(tmp_path, monkeypatch):
    (code,) = [block for block in blocks("docs/pipelines.md", "python") if "load_config" in block]
    monkeypatch.chdir(tmp_path)
    configuration, with_devices = blocks("docs/pipelines.md", "yaml")
    Path("config.yaml").write_text(configuration, encoding="utf-8")
    called = []
    # A run and a compilation take minutes; tests/e2e and tests/pipelines do them.
    for line in code.splitlines():
        match = re.fullmatch(r"from (\S+) import (.*)", line)
        if match:
            package = run(f"import {match[1]} as package", "docs/pipelines.md", {})["package"]
            assert set(match[2].split(", ")) <= set(package.__all__)
            called.extend(match[2].split(", "))
    assert called == ["compile_pipeline", "load_config", "run_pipeline"]
    assert load_config("config.yaml").name == "flowers"
    Path("config.yaml").write_text(with_devices, encoding="utf-8")
    config = load_config("config.yaml")
    assert config.calibrate is not None and config.export is not None


TYPED = [(name, command) for name in NAMES for command in commands(name)]


def leaves(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    return [leaf for child in command.commands.values() for leaf in leaves(child)]


@pytest.mark.parametrize(("page", "command"), [(page, line) for page, line in TYPED if line.startswith("morph-tfx ")])
def test_every_morph_tfx_command_parses(page: str, command: str, monkeypatch):
    found = []
    for leaf in leaves(cli):
        monkeypatch.setattr(leaf, "callback", lambda name=leaf.name, **options: found.append(name))
    result = CliRunner().invoke(cli, shlex.split(command)[1:])
    assert result.exit_code == 0, f"{page}: {result.output}"
    assert len(found) == 1


def test_every_make_target_that_a_page_names_is_there():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    named = {
        (name, target)
        for name in NAMES
        for target in re.findall(
            r"(?:^ {4}(?:sudo )?|`(?:sudo )?)make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8"), re.M
        )
    }
    assert len(named) > 10
    assert [(name, target) for name, target in sorted(named) if target not in targets] == []


@pytest.mark.parametrize(
    ("page", "command"), [(page, line) for page, line in TYPED if re.match(r"\S*python (-m )?benchmarks", line)]
)
def test_every_study_has_the_options_that_a_page_gives_it(page: str, command: str):
    words = shlex.split(command)
    study = words[words.index("-m") + 1].replace(".", "/") + ".py" if "-m" in words else words[1]
    source = (ROOT / study).read_text(encoding="utf-8")
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == [], page


def test_every_file_of_the_project_that_a_page_names_is_there():
    folders = "benchmarks|components|docs|morph_core|pipelines|tests|tools"
    named = {
        (name, path)
        for name in NAMES
        if name not in ("CHANGELOG.md", "docs/decisions.md")  # which tell of the past, too
        for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]*\w)", (ROOT / name).read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert [(name, path) for name, path in sorted(named) if not (ROOT / path).exists()] == []
