"""Looks for the newest pushed model that can be retrained, and copies structure, schema and model into artifacts.

A version whose files are damaged is passed over with a word on what is wrong, and the one before it is taken: a night's
training should neither fail at its end, in Evaluator, nor be left out. Where the step is told of the data, it also says
whether there is anything to train (`news`).
"""

import os
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

import morph_core as morph

from ..artifacts import model_assets, saved_model
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..structure_exporter import StructureExporter
from .news import news_of

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
            exec_properties: `push_to`, maybe those by which `news_of` judges.

        Raises:
            MorphError: nothing with a structure was pushed yet, or nothing of it can be used.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        model, structure, schema, faults = _latest(exec_properties["push_to"])
        for fault in faults:
            print(f"Passed over: {fault}", flush=True)
        print(f"The latest pushed model{' that can be used' if faults else ''}: {model}", flush=True)
        news = news_of(model, exec_properties) if exec_properties.get("input_base") else None
        if news is not None:
            print(f"{'There is something' if news.there else 'There is nothing'} to train. {news.because}", flush=True)

        artifacts = {name: artifact_utils.get_single_instance(found) for name, found in output_dict.items()}
        StructureExporter(artifacts["structure"]).write(structure)
        with complete_or_absent(artifacts["schema"].uri) as directory:
            io_utils.write_string_file(os.path.join(directory, SCHEMA_FILE), schema)
        with complete_or_absent(artifacts["model"].uri) as directory:
            io_utils.copy_dir(model, path_utils.serving_model_dir(directory))
        origin: dict[str, str | int | float] = {"pushed_destination": model}
        if faults:
            origin["passed_over"] = " ".join(faults)
        for artifact in artifacts.values():
            set_custom_properties(artifact, origin)
        if news is not None:
            set_custom_properties(
                artifacts["structure"],
                {"has_news": int(news.there), "news": news.because, model_assets.TRAINED_ON: news.trained_on},
            )


def _latest(push_to: str) -> tuple[str, morph.Structure, str, list[str]]:
    """The newest version below a directory that can be retrained: its path, structure and schema.

    The last of the four is what was wrong with each newer version that carries a structure. Pusher copies
    saved_model.pb last, so a version without it is still being pushed, or its push was cut off.
    """
    names = [str(name).rstrip("/") for name in fileio.listdir(push_to)] if fileio.exists(push_to) else []
    faults: list[str] = []
    for version in sorted((name for name in names if name.isdecimal()), key=int, reverse=True):
        model = os.path.join(push_to, version)
        if not fileio.exists(os.path.join(model, saved_model.SAVED_MODEL_FILE)):
            continue
        if not fileio.exists(os.path.join(model, model_assets.STRUCTURE_FILE)):
            continue
        try:
            structure, schema = _structure(model), _schema(model)
        except morph.MorphError as error:
            faults.append(str(error))
            continue
        fault = saved_model.fault_of(model)
        if fault is None:
            return model, structure, schema, faults
        faults.append(f"{model}: {fault}.")
    if faults:
        raise morph.MorphError(
            f"There is nothing to retrain: no model that was pushed to {push_to} can be used. {' '.join(faults)} "
            "Restore one of them, run the morph pipeline, which pushes another one, or name a structure in the "
            "configuration: retrain_pipeline: {structure: PATH}."
        )
    found = f"it holds {', '.join(sorted(names))}" if names else "it is empty or not there"
    raise morph.MorphError(
        f"There is nothing to retrain: no model with a structure was pushed to {push_to} ({found}). Expected a "
        f"numbered directory with {model_assets.STRUCTURE_FILE}, as the morph pipeline pushes it: run that one first, "
        "or name a structure in the configuration: retrain_pipeline: {structure: PATH}."
    )


def _structure(model: str) -> morph.Structure:
    path = os.path.join(model, model_assets.STRUCTURE_FILE)
    return morph.Structure.from_json(_carried(model, model_assets.STRUCTURE_FILE), source=path)


def _schema(model: str) -> str:
    """The text of the schema, which has been read once."""
    text = _carried(model, model_assets.SCHEMA_FILE)
    try:
        schema = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise morph.MorphError(
            f"{os.path.join(model, model_assets.SCHEMA_FILE)} is no schema: {error}. Expected the text of a "
            "tensorflow.metadata.v0.Schema, as it was pushed."
        ) from error
    if not schema.feature:
        raise morph.MorphError(
            f"{os.path.join(model, model_assets.SCHEMA_FILE)} names no feature. Expected the schema of the examples "
            "that the model was trained on, as it was pushed."
        )
    return text


def _carried(model: str, name: str) -> str:
    text = model_assets.read(model, name)
    if text is None:
        raise morph.MorphError(f"The model in {model} does not carry {name}.")
    return text
