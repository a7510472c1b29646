"""What Kubeflow's user interface shows of a step: a page for every structure, figures for every cost and accuracy.

The interface renders two types of output: `system.HTML`, a file, and `system.Metrics`, whose metadata becomes a table
of scalars in the step and columns when runs are compared. TFX's artifacts are neither. A compiled job therefore gives a
step more outputs, named after the one that they show (`structure_report`, `structure_metrics`), and the entrypoint
fills them after the executor. A new kind of artifact is shown by one line in `VIEWS`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

HTML, METRICS = "system.HTML", "system.Metrics"

VIEWS: dict[str, dict[str, str]] = {
    "morph_tfx.MorphStructure": {"report": HTML, "metrics": METRICS},
    "morph_tfx.MorphFrontier": {"report": HTML, "metrics": METRICS},
    "morph_tfx.ExportedModel": {"metrics": METRICS},
    "morph_tfx.DeviceCalibration": {"metrics": METRICS},
    "tfx.Model": {"metrics": METRICS},
    "tfx.ModelEvaluation": {"metrics": METRICS},
    "tfx.PushedModel": {"metrics": METRICS},  # pushed: 1, or 0 where the model was held back
}
"""For the title of an artifact type: the suffixes of the outputs that show it, and their types."""

_PAGE = "report.html"  # in the directory of an artifact that has a page
_NO_FIGURES = frozenset({"schema_version"})


def views_of(output: str, title: str) -> dict[str, str]:
    """The outputs that show an output, with their types.

    Args:
        output: name of the output that is shown.
        title: of its artifact type, such as `tfx.Model`.
    """
    return {f"{output}_{suffix}": kind for suffix, kind in VIEWS.get(title, {}).items()}


def source_of(view: str) -> str:
    """The name of the output that an output of `views_of` shows."""
    return view.rpartition("_")[0]


def fill(kind: str, source: Any, file: Path) -> dict[str, Any]:
    """Fills one output.

    Args:
        kind: `HTML` or `METRICS`.
        source: the TFX artifact that is shown, complete.
        file: where the page goes.

    Returns:
        The metadata of the output: figures by name, all of them finite.
    """
    if kind == HTML:
        from tfx.dsl.io import fileio

        with fileio.open(os.path.join(source.uri, _PAGE), "rb") as page:
            file.write_bytes(page.read())
        return {}
    return {name: value for name, value in _figures(source).items() if math.isfinite(value)}


def _figures(source: Any) -> dict[str, float]:
    if source.type_name == "ModelEvaluation":
        from morph_tfx.components.artifacts.evaluation import measured

        return measured(source.uri)
    from morph_tfx.components.artifacts.properties import custom_properties

    found = custom_properties(source).items()
    return {name: float(value) for name, value in found if not isinstance(value, str) and name not in _NO_FIGURES}
