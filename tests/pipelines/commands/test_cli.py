"""The command line: what it answers, with which exit code, and how fast."""

import signal
import subprocess
import sys
import types

import pytest
from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.commands.command import HELD_BACK

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


def test_a_job_does_not_take_the_place_of_its_configuration(tmp_path):
    config = tmp_path / "config.yaml"
    assert invoke("init", tmp_path).exit_code == 0
    before = config.read_text()
    result = invoke("compile", "--config", config, "--output", tmp_path / "." / "config.yaml")
    assert result.exit_code == 2 and "--output: " in result.output and "is the configuration" in result.output
    assert config.read_text() == before


MISTAKES = """
import pathlib, sys, tempfile
from click.testing import CliRunner
from morph_tfx.pipelines.commands.cli import cli

directory = pathlib.Path(tempfile.mkdtemp())
config = directory / "config.yaml"

def answer(*arguments):
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    loaded = {"tfx", "tensorflow", "keras", "apache_beam", "jax", "torch"} & set(sys.modules)
    assert not loaded, (arguments, loaded, result.output)
    return result

def refused(told, *arguments):
    result = answer(*arguments, "--config", config)
    assert result.exit_code == 2 and told in result.output, (arguments, told, result.output)

assert answer("init", directory).exit_code == 0
assert "exists already" in answer("init", directory).output
good = config.read_text()
for right, wrong, told in (
    ("target: 0.5", "target: 1.5", "target: expected"),
    ("target: 0.5", "target: {flops: 0.5, parms: 0.5}", "Did you mean 'params'"),
    ("gate: auto", "gate: gama", "Did you mean 'gamma'"),
    ("cost: flops", "cost: flop", "Did you mean 'flops'"),
    ("# export: {formats: [litert, litert-int8]}", "export: {formats: [litert, onyx]}", "Did you mean 'onnx'"),
    ("module_file: module.py", "module_file: modul.py", "is not there"),
):
    assert right in good, right
    config.write_text(good.replace(right, wrong, 1))
    refused(told, "run")
    if told != "is not there":  # 'compile' asks for the section on the cluster first
        refused(told, "compile", "--output", directory / "job.yaml")

for split in ("train", "eval"):
    (directory / "data" / split).mkdir(parents=True)
    (directory / "data" / split / "a.csv").write_text("image,label" + chr(10) + "1.5," + chr(10))
table = good.replace("format: tfrecord", "format: csv")
config.write_text(table)
refused("a.csv, line 2: the label is empty", "run")
config.write_text(table + "retrain_pipeline: {structure: none.json}" + chr(10))
for split in ("train", "eval"):
    (directory / "data" / split / "a.csv").write_text("image,label" + chr(10) + "1.5,1" + chr(10))
refused("none.json cannot be read", "run", "--pipeline", "retrain")
print("all")
"""


def test_what_is_wrong_is_told_before_anything_heavy_is_loaded():
    """Loading TensorFlow and TFX takes up to a minute on a busy machine."""
    done = subprocess.run([sys.executable, "-c", MISTAKES], capture_output=True, text=True)
    assert done.stdout.strip() == "all", done.stderr


@pytest.mark.parametrize(("pushed", "code"), [("/serving/1", 0), (None, HELD_BACK)])
def test_a_run_whose_model_is_not_pushed_has_an_exit_code_of_its_own(monkeypatch, tmp_path, pushed, code):
    assert HELD_BACK not in (0, 1, 2)  # pushed, a bug, a mistake
    monkeypatch.setattr("morph_tfx.pipelines.config.load_config", lambda path: None)
    monkeypatch.setattr(
        "morph_tfx.pipelines.local.runner.run_pipeline", lambda *_, **__: types.SimpleNamespace(pushed_model=pushed)
    )
    monkeypatch.setattr("morph_tfx.pipelines.local.summary.show_summary", lambda *_: print("shown"))
    result = invoke("run", "--config", tmp_path / "config.yaml")
    assert (result.output.strip(), result.exit_code) == ("shown", code)
    assert f"{HELD_BACK}, the run is done" in " ".join(invoke("run", "--help").output.split())


def test_a_missing_option_is_named():
    result = invoke("run")
    assert result.exit_code == 2
    assert "--config" in result.output


@pytest.mark.parametrize(
    ("number", "code", "what"), [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Ended by SIGTERM.")]
)
def test_a_signal_says_that_the_run_can_go_on(number, code, what, monkeypatch, tmp_path):
    """What an alert then sees is in `tests/pipelines/local/test_outcome.py`."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("morph_tfx.pipelines.config.load_config", lambda *_: signal.raise_signal(number))
    result = invoke("run", "--config", tmp_path / "config.yaml")
    assert result.exit_code == code
    assert result.output.splitlines()[-1] == f"{what} Finished steps are kept: the same command goes on after them."
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_the_system_says_of_a_place_that_was_named_is_a_message_and_of_another_a_traceback(tmp_path):
    (tmp_path / "file").touch()
    result = invoke("init", tmp_path / "file" / "below")
    assert result.exit_code == 2
    assert result.output.startswith(
        f"morph-tfx: DIRECTORY: {tmp_path / 'file' / 'below'} cannot be used: Not a directory"
    )


@pytest.mark.parametrize("place", ["/none/of/these", "{directory}/config.yaml/far/below", "{directory}"])
def test_an_error_of_a_place_that_nobody_named_is_a_bug(monkeypatch, tmp_path, place):
    def broken(_):
        raise FileNotFoundError(2, "No such file or directory", place.format(directory=tmp_path))

    monkeypatch.setattr("morph_tfx.pipelines.config.load_config", broken)
    result = invoke("run", "--config", tmp_path / "config.yaml")
    assert isinstance(result.exception, FileNotFoundError)


def test_bytes_that_are_no_text_are_refused_with_the_option(tmp_path):
    result = invoke("init", f"{tmp_path}/\udcff")
    assert result.exit_code == 2
    assert "DIRECTORY: " in result.output and "holds bytes that are no text in UTF-8" in result.output


def test_other_errors_keep_their_traceback(monkeypatch, tmp_path):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr("morph_tfx.pipelines.config.load_config", broken)
    result = invoke("run", "--config", tmp_path / "config.yaml")
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "a bug"
