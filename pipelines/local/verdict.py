"""Why Evaluator did not bless a model, in words. Importing this imports TFMA."""

from __future__ import annotations

import os
from typing import Any

import tensorflow_model_analysis as tfma


def objections(evaluation: str | os.PathLike[str]) -> list[str]:
    """Why a model was not blessed, one sentence a bound; empty when it was."""
    verdict = tfma.load_validation_result(str(evaluation))
    if verdict is None:
        return ["it was not checked against any bound"]
    failures = [failure for one in verdict.metric_validations_per_slice for failure in one.failures]
    return [_objection(failure) for failure in failures]


def _objection(failure: Any) -> str:
    name, value = failure.metric_key.name, failure.metric_value.double_value.value
    threshold = failure.metric_threshold
    if threshold.HasField("change_threshold"):
        allowed = abs(threshold.change_threshold.absolute.value)
        return f"{name} is {abs(value):.4g} worse than the earlier blessed model's, and max_drop is {allowed:.4g}"
    bounds = threshold.value_threshold
    if bounds.HasField("lower_bound"):
        return f"{name} is {value:.4g}, and lower_bound is {bounds.lower_bound.value:.4g}"
    return f"{name} is {value:.4g}, and upper_bound is {bounds.upper_bound.value:.4g}"
