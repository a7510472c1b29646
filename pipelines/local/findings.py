"""What a finished step found that a person watching should know, in words. Importing this imports TFX."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from morph_tfx.components import MorphStructure

from ..config import DataConfig

Outputs = Mapping[str, Sequence[Artifact]]

_MOST_ANOMALIES = 3  # are told one by one; the rest is counted


def findings(node_id: str, outputs: Outputs, data: DataConfig) -> list[str]:
    """What to say about a step, one line each; mostly nothing.

    Args:
        node_id: of the step.
        outputs: its artifacts, by name.
        data: where the examples come from.
    """
    lines = []
    if node_id == "LatestBlessedModel":
        lines.append(f"{'an' if outputs.get('model') else 'no'} earlier blessed model to compare with")
    for name, artifacts in outputs.items():
        for artifact in artifacts:
            kind = artifact.type_name  # of artifacts out of ML metadata, the class itself may be made anew
            if kind == standard_artifacts.Examples.TYPE_NAME and name == "examples" and data.has_spans:
                lines.append(f"the newest span: {_span(artifact, data)}")
            elif kind == standard_artifacts.ExampleAnomalies.TYPE_NAME:
                lines += _anomalies(artifact)
            elif kind == MorphStructure.TYPE_NAME and not node_id.startswith("MorphTrainer"):
                lines.append(f"the structure to retrain: {_structure(artifact)}")
            elif kind == standard_artifacts.PushedModel.TYPE_NAME and node_id == "PushedStructure":
                lines.append(
                    f"pushed on {_date(artifact)} to {artifact.get_string_custom_property('pushed_destination')}"
                )
    return lines


def _structure(artifact: Artifact) -> str:
    """Its costs, and where and when it was found."""
    properties = artifact.mlmd_artifact.custom_properties
    suffix = "_fraction"
    costs = [
        f"{properties[name].double_value:.1%} of the seed's {name.removesuffix(suffix).replace('_', ' ')}"
        for name in sorted(properties)
        if name in (f"flops{suffix}", f"params{suffix}")
    ]
    return ", ".join([*costs, f"from {_date(artifact)}", artifact.uri])


def _date(artifact: Artifact) -> str:
    seconds = artifact.mlmd_artifact.create_time_since_epoch / 1000
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _span(examples: Artifact, data: DataConfig) -> str:
    """The number of a span, or its date where the patterns hold dates: TFX counts days from 1970 on then."""
    # Not the property of that name: the driver of TFX's example generators sets a custom one.
    span = examples.get_int_custom_property("span")
    if any("{DD}" in pattern for pattern in data.patterns.values()):
        return (datetime.date(1970, 1, 1) + datetime.timedelta(days=span)).isoformat()
    return str(span)


def _anomalies(artifact: Any) -> list[str]:
    """Where the examples depart from the schema."""
    lines = []
    for split in artifact_utils.decode_split_names(artifact.split_names):
        path = os.path.join(artifact_utils.get_split_uri([artifact], split), "SchemaDiff.pb")
        found: Any = anomalies_pb2.Anomalies()
        found.ParseFromString(io_utils.read_bytes_file(path))
        told = [f"{name}: {info.description}" for name, info in sorted(found.anomaly_info.items())]
        if told:
            more = f" (and {len(told) - _MOST_ANOMALIES} more)" if len(told) > _MOST_ANOMALIES else ""
            lines.append(f"'{split}' departs from the schema: {' '.join(told[:_MOST_ANOMALIES])}{more}")
    return lines
