"""Makes the trained network again, writes it in each format, and keeps the files that are right, all or nothing."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

import morph_core as morph
from morph_core.cost.machine import this_machine
from morph_core.device.export import MOST_EXAMPLES, CannotExpress, check_installed
from morph_core.device.request import FORMATS

from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..training import inputs as training_inputs
from ..training import trained_model

SUMMARY_FILE = "export.json"
SCHEMA_VERSION = 1


class Executor(base_executor.BaseExecutor):
    """Executor of `Exporter`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Exports, compares and keeps.

        Args:
            input_dict: `model`, `examples`, `transform_graph` or `schema`, maybe `model_blessing` and
                `hyperparameters`.
            output_dict: `exported_model`.
            exec_properties: those of `ExporterSpec`.

        Raises:
            MorphError: a package is missing, the network cannot be made again, or the examples cannot be used. Nothing
                is written then.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        source = artifact_utils.get_single_instance(input_dict["model"])
        target = artifact_utils.get_single_instance(output_dict["exported_model"])
        blessing = input_dict.get("model_blessing")
        if blessing and not model_utils.is_model_blessed(artifact_utils.get_single_instance(blessing)):
            with complete_or_absent(target.uri) as directory:
                _write_summary(directory, {"model": source.uri, "blessed": False, "forms": []})
            set_custom_properties(target, {"blessed": 0, "formats": "", "model_uri": source.uri})
            print("Nothing is exported: the model is not blessed.", flush=True)
            return
        formats, batch_size = json.loads(exec_properties["formats"]), exec_properties["batch_size"]
        for name in formats:
            check_installed(name)
        module, hparams, dataset = training_inputs.read_evaluation(input_dict, exec_properties)
        network, structure = trained_model.read_network(source.uri, module.seed(hparams))
        examples, labels = _taken(dataset, network, max(MOST_EXAMPLES, batch_size), module.source)
        loss = exec_properties.get("max_accuracy_loss")
        if loss is not None and labels is None:
            raise morph.MorphError(
                f"max_accuracy_loss is {loss:g}, but the accuracy cannot be measured: the model's outputs are "
                f"{[tuple(tensor.shape) for tensor in network.outputs]}, and one with a score for each class is "
                f"expected, and one class for each example from input_fn in {module.source}. Leave it out: outputs are "
                "compared in any case."
            )
        options = {
            "labels": labels,
            "batch_size": batch_size,
            "max_accuracy_loss": loss,
            "keep_slower": bool(exec_properties["keep_slower"]),
        }
        tolerances = json.loads(exec_properties.get("tolerances") or "{}")
        with complete_or_absent(target.uri) as directory, tempfile.TemporaryDirectory(prefix="morph-") as local:
            forms = []
            for name in formats:
                file = os.path.join(local, f"{name}{FORMATS[name].suffix}")
                forms.append(_form(network, file, examples, name, {**options, "tolerance": tolerances.get(name)}))
                print(told(forms[-1]), flush=True)
                if forms[-1]["file"] is not None:
                    io_utils.copy_file(file, os.path.join(directory, forms[-1]["file"]))
            summary = {
                "model": source.uri,
                "blessed": True,
                "structure_fingerprint": structure.fingerprint,
                "batch_size": batch_size,
                "examples": len(examples[0]) // batch_size * batch_size,
                "machine": this_machine(),
                "forms": forms,
            }
            _write_summary(directory, summary)
        set_custom_properties(target, _properties(summary))
        print(f"Files: {target.uri}", flush=True)


def told(form: Mapping[str, Any]) -> str:
    """One form of a summary, in words."""
    if form["size"] is None:
        return f"{form['format']}: not kept: {form['problem']}"
    parts = [f"{form['size']:,} bytes"]
    if form["difference"] is not None:
        parts.append(f"outputs within {form['difference']:.2g} of the model's")
    if form["accuracy"] is not None:
        parts.append(f"accuracy {form['accuracy']:.1%} (model {form['model_accuracy']:.1%})")
    parts.append(f"{form['milliseconds']:.3g} ms (model {form['model_milliseconds']:.3g} ms)")
    verdict = f"not kept: {form['problem']}" if form["problem"] else "kept"
    return f"{form['format']}: {verdict}; {', '.join(parts)}"


def _form(network: keras.Model, file: str, examples: list[np.ndarray], name: str, options: dict[str, Any]) -> dict:
    """What came of one format, as the summary has it."""
    form: dict[str, Any] = {"format": name, "file": None, "problem": ""}
    numbers = ("size", "difference", "tolerance", "accuracy", "model_accuracy", "milliseconds", "model_milliseconds")
    try:
        done = morph.export(network, file, examples, format=name, **options)
    except CannotExpress as error:
        # The other formats may have what this one lacks.
        return {**form, "problem": str(error), **dict.fromkeys(numbers)}
    accuracy, model_accuracy = done.accuracy or (None, None)
    measured = (done.size, done.difference, done.tolerance, accuracy, model_accuracy, *done.milliseconds)
    return {
        **form,
        "file": None if done.problem else os.path.basename(done.path),
        "problem": done.problem,
        **dict(zip(numbers, map(_finite, measured), strict=True)),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no number for infinity, by which a file is off that answers no numbers."""
    return value if value is not None and math.isfinite(value) else None


def _write_summary(directory: str, summary: Mapping[str, Any]) -> None:
    text = json.dumps({"schema_version": SCHEMA_VERSION, **summary}, indent=2, allow_nan=False)
    with fileio.open(os.path.join(directory, SUMMARY_FILE), "wb") as file:
        file.write(text.encode())


def _properties(summary: Mapping[str, Any]) -> dict[str, str | int | float]:
    kept = [form for form in summary["forms"] if form["file"] is not None]
    properties: dict[str, str | int | float] = {
        "blessed": 1,
        "formats": " ".join(form["format"] for form in kept),
        "model_uri": summary["model"],
        "structure_fingerprint": summary["structure_fingerprint"],
    }
    for form in kept:
        prefix = form["format"].replace("-", "_")
        named = {"bytes": "size", "difference": "difference", "milliseconds": "milliseconds", "accuracy": "accuracy"}
        for name, key in named.items():
            if form[key] is not None:
                properties[f"{prefix}_{name}"] = float(form[key])
    return properties


# --- examples ---------------------------------------------------------------------------------------------------------


def _taken(
    dataset: tf.data.Dataset, network: keras.Model, count: int, source: str
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Examples for each input of a network, flat, and their classes where there are any."""
    inputs = keras.tree.flatten(network.input)
    batches: list[list[np.ndarray]] = []
    classes: list[np.ndarray | None] = []
    taken = 0
    for features, labels, *_ in dataset:
        given = _by_input(features, [tensor.name for tensor in inputs])
        if len(given) != len(inputs) or any(array.dtype == object for array in given):
            raise morph.MorphError(
                f"The features of input_fn in {source} are no examples for a device: the network takes "
                f"{ {tensor.name: (tuple(tensor.shape), tensor.dtype) for tensor in inputs} }, the first batch has "
                f"{[(array.shape, str(array.dtype)) for array in given]}. Expected an array of numbers for each input; "
                "let Transform make numbers of strings."
            )
        batches.append(given)
        classes.append(_classes(network, labels, len(given[0])))
        taken += len(given[0])
        if taken >= count:
            break
    if not batches:
        raise morph.MorphError(
            f"input_fn in {source} yields no batch for the evaluation split, so nothing is compared."
        )
    examples = [np.concatenate(arrays)[:count] for arrays in zip(*batches, strict=True)]
    known = [labels for labels in classes if labels is not None]
    return examples, np.concatenate(known)[:count] if len(known) == len(classes) else None


def _by_input(features: Any, names: list[str]) -> list[np.ndarray]:
    """Features as a network takes them: by the names of its inputs, where they have them all, else in their order."""
    if isinstance(features, Mapping) and set(names) <= set(features):
        return [_dense(features[name]) for name in names]
    return [_dense(value) for value in tf.nest.flatten(features)]


def _dense(value: Any) -> np.ndarray:
    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(value)
    return (value.to_tensor() if isinstance(value, tf.RaggedTensor) else value).numpy()


def _classes(network: keras.Model, labels: Any, count: int) -> np.ndarray | None:
    """The class of each example, where the network has one output, with a score for each class."""
    outputs = keras.tree.flatten(network.output)
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or (outputs[0].shape[1] or 0) < 2 or not tf.is_tensor(labels):
        return None
    array = _dense(labels)
    if array.shape == (count, outputs[0].shape[1]):
        return array.argmax(-1)
    whole = array.size == count and array.dtype.kind in "iuf" and bool((array == np.floor(array)).all())
    return array.reshape(-1).astype(int) if whole else None
