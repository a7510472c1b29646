"""What an exported model carries beside its graph, so that whoever finds it can retrain it: its structure and schema.

SavedModel keeps the directory `assets.extra` for files of the user's own: TensorFlow and its servers do not read ours,
and Pusher copies them along. A pushed model thereby is enough to find out, without ML metadata, which structure is in
production and which schema the raw examples had.

```
assets.extra/structure.json    the structure (`morph_core.Structure`) that the model was built with
assets.extra/schema.pbtxt      the schema of the raw examples, before Transform
assets.extra/trained_on.json   where PushedStructure has looked at the data: the span, its files, and how it was trained
assets.extra/MODEL_CARD.md     for people: data, structure, costs, how it was searched, what was measured and evaluated
```
"""

import os
from collections.abc import Mapping

import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils

import morph_core as morph
from morph_core.report.card import evaluated

from .inside import text_inside

STRUCTURE_FILE = "assets.extra/structure.json"
SCHEMA_FILE = "assets.extra/schema.pbtxt"
CARD_FILE = "assets.extra/MODEL_CARD.md"
TRAINED_ON_FILE = "assets.extra/trained_on.json"

TRAINED_ON = "trained_on"
"""Custom property of a `MorphStructure`: the text of that file, for the model that is made from the structure."""


def write(
    directory: str,
    structure: morph.Structure,
    spec: tft.TFTransformOutput | schema_pb2.Schema,
    measured: Mapping[str, float] | None = None,
    trained_on: str = "",
) -> None:
    """Adds these files to a SavedModel.

    Args:
        directory: of the SavedModel.
        structure: that the model was built with.
        spec: of the examples: the output of Transform, which knows the schema of its input, or that schema itself.
        measured: what training measured of the model, by name, for the card.
        trained_on: text of `TRAINED_ON_FILE`; without one there is no such file.
    """
    schema = spec.raw_metadata.schema if isinstance(spec, tft.TFTransformOutput) else spec
    features = {feature.name: schema_pb2.FeatureType.Name(feature.type) for feature in schema.feature}
    texts = {
        STRUCTURE_FILE: structure.to_json(),
        SCHEMA_FILE: text_format.MessageToString(schema),
        CARD_FILE: morph.report.card(structure, data={"features": features}, measured=measured),
    }
    if trained_on:
        texts[TRAINED_ON_FILE] = trained_on
    put(directory, texts)


def put(directory: str, texts: Mapping[str, str]) -> None:
    """Writes text files into a SavedModel, by their paths inside it."""
    for name, text in texts.items():
        io_utils.write_string_file(os.path.join(directory, name), text)


def evaluated_card(directory: str, evaluation: str) -> dict[str, str]:
    """The card of a SavedModel with what Evaluator found on it, by its name; nothing for a model without a card.

    Args:
        directory: of the SavedModel.
        evaluation: URI of the `ModelEvaluation`.
    """
    text = read(directory, CARD_FILE)
    if text is None:
        return {}
    from .evaluation import slices  # imports TFMA, which a training does without

    return {CARD_FILE: f"{text.rstrip()}\n\n{evaluated(slices(evaluation))}\n"}


def read(directory: str, name: str) -> str | None:
    """The text of one of the files in a SavedModel, or None when the model does not carry it.

    Raises:
        MorphError: the file leads out of the model's directory, is too large, or is no text.
    """
    return text_inside(directory, name)
