"""Whatever stands in an option or argument of any subcommand: it is taken, or refused in one message that names it.

The options are found by walking the commands, so a new one joins by itself; a new subcommand needs a row in `LINES`.
Each is called for real up to the point where it has all that it was told: there the work is cut off (a run, a
measurement, a conversion). Requests go to the stand-in for Kubeflow's server.
"""

import copy
import itertools
import posixpath
import shutil

import click
import keras
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from morph_core.device import export, timing
from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.kubeflow import compiler
from morph_tfx.pipelines.local import demo, runner
from tests.pipelines.kubeflow.client import write_job
from tests.pipelines.kubeflow.server import TOKEN, KubeflowServer

pytestmark = pytest.mark.thorough

# What each subcommand is told where nothing is wrong; "{place}" is a directory with the files of `place`.
TO_CLUSTER = {"--config": "{place}/config.yaml", "--endpoint": "{endpoint}", "--token-file": "{place}/token"}
A_JOB = {**TO_CLUSTER, "--job": "{place}/job.yaml"}
LINES = {
    "demo": {"directory": "{place}/demo"},
    "init": {"directory": "{place}/new"},
    "run": {"--config": "{place}/config.yaml"},
    "compile": {"--config": "{place}/config.yaml", "--output": "{place}/compiled.yaml"},
    "cost": {"model": "{place}/model.keras"},
    "calibrate": {"model": "{place}/model.keras", "--output": "{place}/phone.json"},
    "export": {
        "model": "{place}/model.keras",
        "--output": "{place}/model.tflite",
        "--examples": "{place}/examples.npz",
    },
    "submit": A_JOB,
    "schedule create": {**A_JOB, "--cron": "0 3 * * *"},
    "schedule update": {**A_JOB, "name": "nightly"},
    "schedule list": TO_CLUSTER,
    "schedule enable": {**TO_CLUSTER, "name": "nightly"},
    "schedule disable": {**TO_CLUSTER, "name": "nightly"},
    "schedule delete": {**TO_CLUSTER, "name": "nightly"},
}
# Options that another one stands in the way of.
INSTEAD_OF = {"--pipeline": "--job", "--token-file": "", "--cookie-file": "--token-file"}

CONFIG = """
name: digits
data: {format: tfrecord, path: data, splits: {train: train/*, eval: eval/*}}
module_file: module.py
label: label
target: 0.5
search: {epochs: 3}
retrain: {epochs: 3}
evaluate: {lower_bound: 0.9}
kubeflow: {image: "registry.example.com/morph-tfx:1"}
kubeflow_api: {attempts: 1, timeout: 5}
"""
MODULE = """
def build_model(hparams): ...
def input_fn(files, accessor, spec, batch_size): ...
def preprocessing_fn(inputs): ...
"""
JOB_PARAMETERS = {
    "retrain_epochs": {"parameterType": "NUMBER_INTEGER"},
    "learning_rate": {"parameterType": "NUMBER_DOUBLE"},
    "push_to": {"parameterType": "STRING"},
}

PLACES = [
    *("{place}", "{place}/none/below", "{place}/text.txt", "{place}/text.txt/below", "{place}/empty", "{place}/binary"),
    *("{place}/huge", "{place}/locked", "{place}/config.yaml", "{place}/job.yaml", "{place}/model.keras", "{place}/.."),
    *("{place}/folder.keras", "{place}/folder.yaml", "{place}/folder.json", "{place}/folder.tflite"),
    *("{place}/binary.keras", "{place}/binary.yaml", "{place}/binary.npz", "{place}/binary.json"),
    *("{place}/two\nlines", "{place}/" + "a" * 300, "{place}/" + "b/" * 3000 + "c", "/", "/dev/null", "/proc/self/mem"),
    *("{place}/none/phone.json", "{place}/none/model.tflite", "/proc/none.yaml", "{place}/text.txt/job.yaml"),
    *("/proc/none/phone.json", "{place}/" + "a" * 300 + ".keras", "{place}/" + "a" * 300 + ".yaml", "~none/x"),
]
WORDS = [
    *(
        "",
        " ",
        "\n",
        "x",
        "-",
        "--",
        "--config",
        "-x",
        "=",
        "a=b",
        "{",
        "ü\n\t",
        "\udcff",
        "a" * 5000,
        "[bold]x[/]",
        "%s%n",
    ),
    *(
        "gs://bucket/x",
        "https://",
        "http://",
        "http://[::1",
        "http://localhost:99999",
        "http://localhost:x",
        "file:///etc",
    ),
    *(
        "http://user:word@localhost",
        "http://localhost:1/\udcff",
        "http://localhost:1/ü x",
        "http://localhost:1",
        "a\nb: c",
    ),
    *(
        "flops",
        "latency:",
        "latency:{place}",
        "latency:{place}/binary",
        "latency:{place}/none.json",
        "keras.applications:",
    ),
    *(
        "keras.applications:__doc__",
        "keras.applications:MobileNet",
        "morph",
        "retrain",
        "litert",
        "onnx",
        "xla",
        "float16",
    ),
    *("retrain_epochs=1e9", "retrain_epochs=" + "9" * 5000, "learning_rate=nan", "learning_rate=", "push_to=\n", "=="),
    *(
        "0 3 * * *",
        "* * * * * *",
        "0 0 31 2 *",
        "*/0 * * * *",
        "9" * 5000 + " * * * *",
        "١ * * * *",
        "@reboot",
        "0 3 * * *\n",
    ),
    *("1,2", "32,32,3", "-1,-1,3", "1e9,1e9,3", "999999999,999999999,3", "0,0,0", "3,,3"),
]
NUMBERS = [
    *("0", "-1", "1", "2", "3", "1000000", "4294967296", "9" * 25, "9" * 5000, "0.5", "-0.5", "nan", "inf", "-inf"),
    *("1e999", "1e-999", "0x10", "1_000", "٣", "١٢"),
]
VALUES = [*PLACES, *WORDS, *NUMBERS]


def subcommands(group, way=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from subcommands(command, (*way, name))
        else:
            yield " ".join((*way, name)), command


COMMANDS = dict(subcommands(cli))
PARAMETERS = [
    (line, parameter)
    for line, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
]


def name_of(parameter) -> str:
    return parameter.opts[0]


class Reached(Exception):
    """A subcommand has all that it was told."""


def reached(*_, **__):
    raise Reached


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Files of all kinds, by the names that `LINES` and `PLACES` have for them."""
    place = tmp_path_factory.mktemp("place")
    (place / "config.yaml").write_text(CONFIG)
    (place / "module.py").write_text(MODULE)
    (place / "token").write_text(TOKEN)
    (place / "text.txt").write_text("no model")
    (place / "empty").touch()
    with (place / "huge").open("wb") as file:
        file.truncate(1 << 34)
    for name in ("binary", "binary.keras", "binary.yaml", "binary.npz", "binary.json"):
        (place / name).write_bytes(bytes(range(256)))
    for name in ("keras", "yaml", "json", "tflite"):
        (place / f"folder.{name}").mkdir()
    (place / "locked").write_text("no model")
    (place / "locked").chmod(0)
    inputs = keras.Input((4,))
    keras.Model(inputs, layers.Dense(2)(layers.Dense(3)(inputs))).save(place / "model.keras")
    np.savez(place / "examples.npz", x=np.zeros((4, 4), "float32"))
    job = write_job(place, "job").path
    spec = yaml.safe_load(job.read_text())
    spec["root"]["inputDefinitions"] = {"parameters": JOB_PARAMETERS}
    job.write_text(yaml.safe_dump(spec))
    return place


@pytest.fixture(scope="module")
def call(place):
    """call(line, name, value) gives a subcommand that value of one option or argument, the rest as in `LINES`."""
    with KubeflowServer(token=TOKEN) as server, pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (runner, "_run"),
            (demo, "run_pipeline"),
            (timing.Timing, "measure"),
            (export, "_litert_bytes"),
            (export, "_onnx_bytes"),
        ):
            patch.setattr(owner, name, reached)
        # The job itself is that of the one configuration: what differs is where it is written.
        compiled, jobs = compiler.job.compiled, {}

        def first(pipeline, image):
            if pipeline.id not in jobs:
                jobs[pipeline.id] = compiled(pipeline, image)
            return jobs[pipeline.id]

        patch.setattr(compiler.job, "compiled", lambda *_: copy.deepcopy(first(*_)))

        def invoke(line, options):
            texts = {
                name: value.replace("{place}", str(place)).replace("{endpoint}", server.url)
                for name, value in options.items()
            }
            given = [f"{name}={value}" for name, value in texts.items() if name.startswith("-")]
            arguments = [value for name, value in texts.items() if not name.startswith("-")]
            return CliRunner().invoke(cli, [*line.split(), *given, "--", *arguments])

        kept = {file: file.read_bytes() for file in (place / "config.yaml", place / "job.yaml")}

        def call(line, name, value):
            """The result, and the value as it was given."""
            server.state = copy.deepcopy(stored)
            for file, content in kept.items():  # a job may have been written there
                file.write_bytes(content)
            shutil.rmtree(place / "here", ignore_errors=True)
            (place / "here").mkdir()
            patch.chdir(place / "here")
            options = {**LINES[line], name: value}
            options.pop(INSTEAD_OF.get(name, ""), None)
            return invoke(line, options), value.replace("{place}", str(place))

        made = invoke("schedule create", {**LINES["schedule create"], "--name": "nightly"})
        assert made.exit_code == 0, made.output
        stored = copy.deepcopy(server.state)
        yield call
        patch.undo()


def try_one(call, line, name, value) -> None:
    result, value = call(line, name, value)
    told = f"{line} {name}={value[:200]!r}: {result.output[-2000:]}"
    if isinstance(result.exception, Reached):
        return
    assert result.exception is None or isinstance(result.exception, SystemExit), f"{told}{result.exception!r}"
    assert "Traceback" not in result.output, told
    assert result.exit_code in (0, 2), told
    if result.exit_code == 2:
        [*_, message] = result.stderr.split("\n\n")
        assert message.startswith(("morph-tfx: ", "Usage: ", "Error: ")), told
        said, called = (text.lower().replace("-", "_") for text in (message, name.lstrip("-")))
        # A cost names its file after a colon; a path is shown without what changes nothing in it.
        shown = (value, repr(value)[1:-1], value.partition(":")[2] or value, posixpath.normpath(value))
        assert called in said or any(text in message for text in shown), told


def test_every_subcommand_has_a_line_and_nothing_is_wrong_in_it(call):
    assert set(LINES) == set(COMMANDS)
    for line, options in LINES.items():
        name = next(iter(options))
        result, _ = call(line, name, options[name])
        assert isinstance(result.exception, Reached) or result.exit_code == 0, (line, result.output, result.exception)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(PARAMETERS),
    st.one_of(st.sampled_from(VALUES), st.text(max_size=8).filter(lambda text: "\0" not in text)),
)
def test_a_value_is_taken_or_refused_in_a_message_that_names_it(call, parameter, value):
    try_one(call, parameter[0], name_of(parameter[1]), value)


@pytest.mark.slow
def test_every_odd_value_in_the_place_of_every_option(call):
    for (line, parameter), value in itertools.product(PARAMETERS, VALUES):
        try_one(call, line, name_of(parameter), value)
