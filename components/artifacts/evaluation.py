"""What Evaluator measured, as plain numbers. Importing this imports TFMA."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow_model_analysis as tfma

from morph_core.report.card import Slice


def measured(evaluation: str | os.PathLike[str]) -> dict[str, float]:
    """The metrics of an evaluation over all its examples, by TFMA's names; `example_count` is among them."""
    for slice_key, outputs in tfma.load_eval_result(str(evaluation)).slicing_metrics:
        if slice_key == ():
            return _numbers(outputs)
    return {}


def slices(evaluation: str | os.PathLike[str]) -> list[Slice]:
    """The metrics of all examples, then of each value of each feature that Evaluator was told to slice by.

    A feature that no example has is a slice without numbers.
    """
    result = tfma.load_eval_result(str(evaluation))
    found: dict[str, list[Slice]] = {}
    for slice_key, outputs in result.slicing_metrics:
        metrics = without_differences(_numbers(outputs))
        count = metrics.pop("example_count", None)
        feature, value = slice_key[0] if slice_key else ("", None)
        found.setdefault(feature, []).append(Slice(feature, value, metrics, None if count is None else int(count)))
    asked = ["".join(spec.feature_keys) for spec in result.config.slicing_specs]
    by_value = {
        feature: sorted(some, key=lambda one: (isinstance(one.value, str), one.value)) if feature else some
        for feature, some in found.items()
    }
    return [one for feature in asked for one in by_value.get(feature, [Slice(feature, None, {}, 0)])]


def without_differences(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without their differences from a baseline, which TFMA gives as further ones where there is a baseline."""
    return {name: value for name, value in metrics.items() if name not in {f"{other}_diff" for other in metrics}}


def _numbers(outputs: dict[str, dict[str, dict[str, Any]]]) -> dict[str, float]:
    """The metrics of one slice, of a model with one output."""
    [per_output] = [metrics for sub_keys in outputs.values() for metrics in sub_keys.values()]
    return {name: value["doubleValue"] for name, value in per_output.items() if "doubleValue" in value}
