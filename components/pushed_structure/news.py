"""Whether there is anything to train: what a retraining would be made of, beside what the newest model was made of.

A job on Kubeflow remembers nothing of the night before, so a model does: what is found here goes with the structure to
Retrainer, which writes it into the model that it trains (`assets.extra/trained_on.json`). It is

- the span of the data, its version, and ExampleGen's fingerprint of the files (their number, sizes and times);
- a hash of the training: settings, the user's module with its neighbours, versions of the software.

The files are looked at before anybody reads them. What changes between the look and the reading is trained on and not
written down, so it is trained on once more; nothing new is ever taken for known. In any doubt there is news.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tfx
from tfx.components.example_gen import driver, utils

import morph_core as morph
from morph_core.errors import first_line
from morph_core.files import digest_of, json_of, sources_beside

from ..artifacts import model_assets


@dataclasses.dataclass(frozen=True)
class News:
    """What was found.

    Attributes:
        there: whether there is anything to train.
        because: why, or why not, in a sentence or two.
        trained_on: what a model is to carry that is trained now; empty where that cannot be told.
    """

    there: bool
    because: str
    trained_on: str


def news_of(model: str, properties: Mapping[str, Any]) -> News:
    """Compares what would be trained now with what a model says of its training.

    Args:
        model: directory of the newest pushed model.
        properties: execution properties of the step: `input_base`, `input_config` and `module_file`, maybe
            `range_config` (of a run that is told its span), `custom_config` and `settings`.
    """
    try:
        now = _look(properties)
    except (ValueError, OSError, morph.MorphError, tf.errors.OpError) as error:
        return News(True, f"What there is to train cannot be told here: {first_line(error)}", "")
    text = json.dumps(now, sort_keys=True)
    try:
        difference = _difference(model, _carried(model), now, properties["input_config"])
    except (ValueError, OverflowError, morph.MorphError) as error:
        return News(True, f"What the model in {model} was trained on cannot be read: {first_line(error)}", text)
    if difference is not None:
        return News(True, difference, text)
    name = _name(now, properties["input_config"])
    return News(False, f"The model in {model} was trained on {name}, and nothing else has changed.", text)


def _look(properties: Mapping[str, Any]) -> dict[str, Any]:
    """What a training now would be made of."""
    nothing: Any = None  # the driver wants the metadata, the pipeline and the component, and looks at none of them
    asked = {name: properties.get(name) for name in ("input_base", "input_config", "range_config")}
    found = driver.FileBasedDriver(nothing).resolve_exec_properties(asked, nothing, nothing)
    data = {name: found[name] for name in ("span", "version", "input_fingerprint")}
    return {**data, "training": _training(properties)}


def _training(properties: Mapping[str, Any]) -> str:
    """A hash of all but the data that a training depends on."""
    module_file = pathlib.Path(properties["module_file"])
    if not module_file.is_file():
        raise morph.MorphError(
            f"the module file {module_file} is not there. Expected it where Retrainer finds it: give this step the "
            "same image."
        )
    parts = {
        "custom_config": json.loads(properties.get("custom_config") or "null"),
        "module": digest_of(sources_beside(module_file)),
        "settings": json.loads(properties.get("settings") or "null"),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__, "tfx": tfx.__version__},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _carried(model: str) -> dict[str, Any] | None:
    """What a model says of its training; None where it says nothing."""
    text = model_assets.read(model, model_assets.TRAINED_ON_FILE)
    if text is None:
        return None
    found = json_of(text)
    if not isinstance(found, dict):
        raise ValueError(f"{model_assets.TRAINED_ON_FILE} holds no JSON object")
    return found


def _difference(model: str, before: Mapping[str, Any] | None, now: Mapping[str, Any], input_config: str) -> str | None:
    """What makes a training worth while, in words; None where nothing does."""
    if before is None:
        return f"The model in {model} does not say what it was trained on."
    name = _name(now, input_config)
    if any(before.get(key) != now[key] for key in ("span", "version")):
        return f"There is {name}; the model in {model} was trained on {_name(before, input_config)}."
    if before.get("input_fingerprint") != now["input_fingerprint"]:
        return f"The files of {name} have changed since the model in {model} was trained on them."
    if before.get("training") != now["training"]:
        return (
            f"The settings of the training, its module files, or the versions of TFX, TensorFlow or Keras are others "
            f"than those that the model in {model} was trained by."
        )
    return None


def _name(found: Mapping[str, Any], input_config: str) -> str:
    """A span as its data are called: by its number or its date, and by its version, if there are several."""
    span = found.get("span")
    if "{YYYY}" in input_config and isinstance(span, int):
        span = "{}-{:02}-{:02}".format(*utils.span_number_to_date(span))
    version = found.get("version")
    return f"span {span}" if version is None else f"span {span}, version {version}"
