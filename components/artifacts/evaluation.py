"""What Evaluator measured, as plain numbers. Importing this imports TFMA."""

from __future__ import annotations

import os

import tensorflow_model_analysis as tfma


def measured(evaluation: str | os.PathLike[str]) -> dict[str, float]:
    """The metrics of an evaluation over all its examples, by TFMA's names; `example_count` is among them."""
    for slice_key, outputs in tfma.load_eval_result(str(evaluation)).slicing_metrics:
        if slice_key == ():
            [per_output] = [metrics for sub_keys in outputs.values() for metrics in sub_keys.values()]
            return {name: value["doubleValue"] for name, value in per_output.items() if "doubleValue" in value}
    return {}
