"""Looks for the newest pushed model that carries a structure, and copies structure, schema and model into artifacts."""

import os
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

import morph_core as morph

from ..artifacts import model_assets
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..structure_exporter import StructureExporter

SCHEMA_FILE = "schema.pbtxt"


class Executor(base_executor.BaseExecutor):
    """Executor of `PushedStructure`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads the newest pushed model.

        Args:
            input_dict: empty.
            output_dict: `structure`, `schema` and `model`.
            exec_properties: `push_to`.

        Raises:
            MorphError: nothing with a structure was pushed yet.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        model = _latest(exec_properties["push_to"])
        print(f"The latest pushed model: {model}", flush=True)
        structure_path = os.path.join(model, model_assets.STRUCTURE_FILE)
        structure = morph.Structure.from_json(_carried(model, model_assets.STRUCTURE_FILE), source=structure_path)
        schema = _carried(model, model_assets.SCHEMA_FILE)

        artifacts = {name: artifact_utils.get_single_instance(found) for name, found in output_dict.items()}
        StructureExporter(artifacts["structure"]).write(structure)
        with complete_or_absent(artifacts["schema"].uri) as directory:
            io_utils.write_string_file(os.path.join(directory, SCHEMA_FILE), schema)
        with complete_or_absent(artifacts["model"].uri) as directory:
            io_utils.copy_dir(model, path_utils.serving_model_dir(directory))
        for artifact in artifacts.values():
            set_custom_properties(artifact, {"pushed_destination": model})


def _latest(push_to: str) -> str:
    """The newest version below a directory that carries a structure.

    Pusher numbers versions by the clock and copies saved_model.pb last, so a version without it is still being pushed.
    """
    names = [str(name).rstrip("/") for name in fileio.listdir(push_to)] if fileio.exists(push_to) else []
    versions = sorted((name for name in names if name.isdecimal()), key=int, reverse=True)
    pushed = [os.path.join(push_to, version) for version in versions]
    for model in pushed:
        complete = fileio.exists(os.path.join(model, "saved_model.pb"))
        if complete and fileio.exists(os.path.join(model, model_assets.STRUCTURE_FILE)):
            return model
    found = f"it holds {', '.join(sorted(names))}" if names else "it is empty or not there"
    raise morph.MorphError(
        f"There is nothing to retrain: no model with a structure was pushed to {push_to} ({found}). Expected a "
        f"numbered directory with {model_assets.STRUCTURE_FILE}, as the morph pipeline pushes it: run that one first, "
        "or name a structure in the configuration: retrain_pipeline: {structure: PATH}."
    )


def _carried(model: str, name: str) -> str:
    text = model_assets.read(model, name)
    if text is None:
        raise morph.MorphError(
            f"The model in {model} does not carry {name}. Restore the file, or run the morph pipeline, which pushes "
            "another one."
        )
    return text
