"""Reads a model, or a structure, at a path and writes it into an artifact, whole or not at all."""

import os
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

import morph_core as morph

from ..artifacts import inside, saved_model
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..structure_exporter import StructureExporter
from ..structure_exporter.exporter import STRUCTURE_FILE

_MOUNTS = "On Kubeflow, the step needs the volume: kubeflow.steps: {'*': {volumes: [{pvc: NAME, mount: PATH}]}}."


class ModelExecutor(base_executor.BaseExecutor):
    """Executor of `ImportedModel`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the model.

        Args:
            input_dict: empty.
            output_dict: `result`.
            exec_properties: `path`.

        Raises:
            MorphError: no SavedModel lies there, or it does more than a model has to.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        path = exec_properties["path"]
        artifact = artifact_utils.get_single_instance(output_dict["result"])
        model = _saved_model(path)
        if (threat := saved_model.threat_of(model)) is not None:
            raise morph.MorphError(
                f"The model at {model} is not imported: {threat}. Name a model that Trainer, MorphTrainer or Retrainer "
                "exported, or export this one anew."
            )
        with complete_or_absent(artifact.uri) as directory:
            io_utils.copy_dir(model, path_utils.serving_model_dir(directory))
        set_custom_properties(artifact, {"imported_from": path})
        print(f"Imported the model at {model}", flush=True)


class StructureExecutor(base_executor.BaseExecutor):
    """Executor of `ImportedStructure`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads the structure and writes it anew, with its report.

        Args:
            input_dict: empty.
            output_dict: `result`.
            exec_properties: `path`.

        Raises:
            MorphError: no structure lies there.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        path = exec_properties["path"]
        artifact = artifact_utils.get_single_instance(output_dict["result"])
        file = os.path.join(path, STRUCTURE_FILE) if fileio.isdir(path) else path
        if not fileio.exists(file):
            raise morph.MorphError(
                f"There is no structure at {file}. Expected a {STRUCTURE_FILE}, as MorphTrainer writes it, or the "
                f"directory that holds one. {_MOUNTS}"
            )
        structure = morph.Structure.from_json(_text(file), source=file)
        StructureExporter(artifact).write(structure, title="Imported structure")
        set_custom_properties(artifact, {"imported_from": path})
        print(f"Imported the structure in {file}", flush=True)


def _saved_model(path: str) -> str:
    """The SavedModel at a path, which may also be a `Model` artifact that holds one."""
    for directory in (path, path_utils.serving_model_dir(path)):
        if fileio.exists(os.path.join(directory, saved_model.SAVED_MODEL_FILE)):
            return directory
    names = sorted(str(name).rstrip("/") for name in fileio.listdir(path)) if fileio.isdir(path) else None
    versions = [name for name in names or () if name.isdecimal()]
    if versions:
        newest = os.path.join(path, max(versions, key=int))
        advice = f"It holds the versions {', '.join(versions)}: name one of them, such as {newest}."
    else:
        advice = _MOUNTS
    found = "it is not there" if names is None else f"it holds {', '.join(names) or 'nothing'}"
    raise morph.MorphError(
        f"There is no model at {path} ({found}). Expected a directory with {saved_model.SAVED_MODEL_FILE}, as Pusher "
        f"leaves one. {advice}"
    )


def _text(file: str) -> str:
    try:
        return inside.read_bounded(file).decode()
    except UnicodeDecodeError as error:
        raise morph.MorphError(f"{file} is not a text file ({error}), so it is no structure. Restore it.") from error
