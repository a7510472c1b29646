"""The command line: what it answers, with which exit code, and how fast."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli

COMMANDS = ("demo", "init", "run", "compile", "cost", "calibrate", "export", "submit", "schedule")


def invoke(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_help_needs_no_heavy_import():
    """A fresh process: TFX alone takes half a minute to import."""
    code = (
        "import sys; from click.testing import CliRunner; from morph_tfx.pipelines.commands.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "print(sorted({'tfx', 'tensorflow', 'keras', 'apache_beam', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_the_version_is_the_package_s():
    from morph_core import __version__

    assert __version__ in invoke("--version").output


@pytest.mark.parametrize("command", [["run"], ["compile", "--output", "job.yaml"]])
def test_a_bad_configuration_ends_in_one_message_and_exit_code_2(tmp_path, command):
    (tmp_path / "config.yaml").write_text("nme: digits\n")
    result = invoke(command[0], "--config", tmp_path / "config.yaml", *command[1:])
    assert result.exit_code == 2
    assert result.output.startswith(f"morph-tfx: {tmp_path / 'config.yaml'}: ")
    assert "nme: unknown key; did you mean 'name'?" in result.output
    assert "Traceback" not in result.output


def test_a_missing_option_is_named():
    result = invoke("run")
    assert result.exit_code == 2
    assert "--config" in result.output


def test_an_interrupt_says_that_the_run_can_go_on(monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("morph_tfx.pipelines.config.load_config", interrupted)
    result = invoke("run", "--config", tmp_path / "config.yaml")
    assert result.exit_code == 130
    assert "the same command goes on" in result.output


def test_other_errors_keep_their_traceback(monkeypatch, tmp_path):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr("morph_tfx.pipelines.config.load_config", broken)
    result = invoke("run", "--config", tmp_path / "config.yaml")
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "a bug"
