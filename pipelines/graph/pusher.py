"""TFX's Pusher, whose every push is the newest version, and is there as a whole or not at all.

Servers take the largest number below `push_to` for the newest version, and so does a retraining on Kubeflow. TFX's own
executor numbers by the clock alone: after a clock that was ahead, a new model would lie below the old one, unused, and
two pushes within one second would be one. Here a number is the clock's, or one above the largest that is there.

A model's card is written when it is trained, before anybody has evaluated it. What Evaluator found is put on the card
on the way.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from tfx import types
from tfx import v1 as tfx
from tfx.components.pusher import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter
from tfx.utils import io_utils, json_utils, proto_utils

from morph_tfx.components.artifacts.model_assets import evaluated_card, put
from morph_tfx.components.artifacts.saved_model import SAVED_MODEL_FILE

_UNFINISHED = "unfinished-"
_ABANDONED_AFTER_S = 24 * 3600  # no copy of a model takes a day


class Executor(executor.Executor):
    """TFX's executor with numbers that grow."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        model = self.GetModelPath(input_dict)
        destination: Any = tfx.proto.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        evaluations = input_dict.get("evaluation")
        texts = evaluated_card(model, artifact_utils.get_single_uri(evaluations)) if evaluations else {}
        directory = push(model, destination.filesystem.base_directory, texts)
        io_utils.copy_dir(model, pushed.uri)
        put(pushed.uri, texts)
        self._MarkPushed(pushed, pushed_destination=directory, pushed_version=os.path.basename(directory))


class PusherSpec(standard_component_specs.PusherSpec):
    """Inputs, outputs and parameters of `Pusher`: TFX's, and an evaluation."""

    INPUTS: ClassVar = {
        **standard_component_specs.PusherSpec.INPUTS,
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation, optional=True),
    }


class Pusher(base_component.BaseComponent):
    """TFX's component with our `Executor`, which also takes what Evaluator found."""

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        push_destination: tfx.proto.PushDestination,
        evaluation: types.BaseChannel | None = None,
    ):
        """Constructs the component.

        Args:
            model: channel of `Model`.
            model_blessing: channel of `ModelBlessing`.
            push_destination: the directory that holds the versions.
            evaluation: channel of the model's `ModelEvaluation`, for its card.
        """
        spec = PusherSpec(
            model=model,
            model_blessing=model_blessing,
            evaluation=evaluation,
            push_destination=push_destination,
            custom_config=json_utils.dumps(None),
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
        )
        super().__init__(spec=spec)


def push(model: str, push_to: str, texts: Mapping[str, str] | None = None) -> str:
    """Copies a model to where models are served from, as the newest version there.

    Args:
        model: directory of the SavedModel.
        push_to: the directory that holds the versions.
        texts: files to write into the copy, by their paths inside the model.

    Returns:
        The directory of the new version.
    """
    if "://" in push_to:
        return _copied(model, push_to, texts or {})
    os.makedirs(push_to, exist_ok=True)
    _remove_abandoned(push_to)
    unfinished = os.path.join(push_to, f"{_UNFINISHED}{uuid.uuid4().hex[:8]}")
    try:
        io_utils.copy_dir(model, unfinished)
        put(unfinished, texts or {})
        while True:
            directory = os.path.join(push_to, str(next_version(push_to)))
            try:
                os.rename(unfinished, directory)
            except OSError:
                if not os.path.isdir(directory):  # otherwise another push took the number just now
                    raise
            else:
                return directory
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def next_version(push_to: str) -> int:
    """A version above all that are there: the seconds since 1970, or one more than the largest number."""
    names = [str(name).rstrip("/") for name in fileio.listdir(push_to)] if fileio.exists(push_to) else []
    newest = max((int(name) for name in names if name.isdecimal()), default=0)
    now = int(time.time())
    if now <= newest:
        print(f"Version {newest + 1}: {push_to} holds {newest} already, and the clock says {now}.", flush=True)
    return max(now, newest + 1)


def _copied(model: str, push_to: str, texts: Mapping[str, str]) -> str:
    """On an object store a rename is a copy, so the file that servers wait for comes last, as TFX does it."""
    directory = os.path.join(push_to, str(next_version(push_to)))
    io_utils.copy_dir(model, directory, deny_regex_patterns=[r"/saved_model\.pb$"])
    put(directory, texts)
    io_utils.copy_file(os.path.join(model, SAVED_MODEL_FILE), os.path.join(directory, SAVED_MODEL_FILE))
    return directory


def _remove_abandoned(push_to: str) -> None:
    """Takes away what pushes left that were killed long ago."""
    for name in os.listdir(push_to):
        path = os.path.join(push_to, name)
        if name.startswith(_UNFINISHED) and time.time() - os.path.getmtime(path) > _ABANDONED_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)
