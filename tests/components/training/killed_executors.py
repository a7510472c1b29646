"""Starts an executor again and again, each time in a process that kills itself at a given step; prints what it says.

    python killed_executors.py COMPONENT ARGUMENTS...      see test_killed_executors.py, which runs this

A program of its own: it imports TFX once and forks before TensorFlow does anything, so that starts cost no import.
"""

import json
import os
import pathlib
import signal
import sys

from tfx.dsl.components.base import base_executor
from tfx.types import channel_utils, standard_artifacts

from morph_tfx.components import MorphStructure, MorphTrainer, Retrainer
from morph_tfx.components.training.progress import ProgressCallback


def artifact(kind, uri, splits=""):
    made = kind()
    made.uri = uri
    if splits:
        made.split_names = splits
    return made


def component_of(asked):
    """The component that a JSON object describes."""
    channel = channel_utils.as_channel
    arguments = {
        "examples": channel([artifact(standard_artifacts.Examples, asked["examples"], '["train", "eval"]')]),
        "schema": channel([artifact(standard_artifacts.Schema, asked["schema"])]),
        "module_file": asked["module_file"],
        "custom_config": asked["custom_config"],
    }
    if asked["component"] == "MorphTrainer":
        return MorphTrainer(**arguments, target=0.5, **asked.get("more", {}))
    return Retrainer(**arguments, structure=channel([artifact(MorphStructure, asked["structure"])]))


def start(asked, attempt):
    """One execution, as TFX's launcher starts it: each has outputs and a working directory of its own."""
    component = component_of(asked)
    root = pathlib.Path(asked["root"])
    outputs = {}
    for key, channel in component.outputs.items():
        outputs[key] = [artifact(channel.type, str(root / key / str(attempt)))]
        pathlib.Path(outputs[key][0].uri).mkdir(parents=True)
    context = base_executor.BaseExecutor.Context(
        tmp_dir=str(root / "tmp"),
        unique_id=str(attempt),
        stateful_working_dir=str(root / ".system" / "stateful_working_dir" / f"execution-{attempt}"),
    )
    inputs = {name: list(channel.get()) for name, channel in component.inputs.items()}
    component.executor_spec.executor_class(context).Do(inputs, outputs, component.exec_properties)


def die_at(step):
    shown = ProgressCallback.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        shown(self, batch, logs)
        if self._done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    ProgressCallback.on_train_batch_end = on_train_batch_end


def main():
    for asked in json.loads(sys.argv[1]):
        for attempt, step in enumerate(asked["die_at"], 1):
            child = os.fork()
            if child == 0:
                die_at(step)
                start(asked, attempt)
                sys.stdout.flush()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(json.dumps({"ended": os.waitstatus_to_exitcode(status)}), flush=True)


main()
