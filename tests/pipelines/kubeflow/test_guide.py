"""docs/kubeflow.md: its commands are those that there are, and its configurations are valid."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.config import parse_config

GUIDE = (Path(__file__).parents[3] / "docs" / "kubeflow.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in GUIDE.splitlines() if re.match(r" {4}morph-tfx ", line)]
CONFIGURATIONS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


def leaves(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    return [leaf for child in command.commands.values() for leaf in leaves(child)]


@pytest.fixture
def calls(monkeypatch):
    """Lets every command only say that it was called."""
    found = []
    for leaf in leaves(cli):
        monkeypatch.setattr(leaf, "callback", lambda name=leaf.name, **options: found.append((name, options)))
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(calls, command):
    program, *arguments = shlex.split(command)
    result = CliRunner().invoke(cli, arguments)
    assert (program, result.exit_code) == ("morph-tfx", 0), result.output
    assert len(calls) == 1


def test_the_guide_uses_every_command_for_a_cluster():
    text = "\n".join(COMMANDS)
    assert 'schedule --cron "0 3 * * *"' in text
    for command in ("init", "run", "compile", "submit", *sorted(set(cli.commands["schedule"].commands) - {"create"})):
        assert re.search(rf"morph-tfx (schedule )?{command} ?", text), command


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=lambda text: text.split("\n")[0])
def test_every_configuration_is_valid(text):
    assert parse_config(text, "docs/kubeflow.md", "/base").name.startswith("flowers")


def test_there_are_as_many_as_a_reader_sees():
    assert len(COMMANDS) >= 12 and len(CONFIGURATIONS) == 2


def test_links_within_the_page_lead_somewhere():
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in GUIDE.splitlines()
        if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= headings
