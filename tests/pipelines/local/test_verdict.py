"""Evaluator's decision in words."""

import pytest
from google.protobuf import text_format
from tensorflow_model_analysis.proto import validation_result_pb2

from morph_tfx.pipelines.local import verdict

FAILURE = """
metric_validations_per_slice {
  failures {
    metric_key { name: "accuracy" }
    metric_value { double_value { value: %s } }
    metric_threshold { %s }
  }
}
"""


def objections_to(monkeypatch, tmp_path, value: float, threshold: str) -> list[str]:
    result = text_format.Parse(FAILURE % (value, threshold), validation_result_pb2.ValidationResult())
    monkeypatch.setattr(verdict.tfma, "load_validation_result", lambda path: result)
    return verdict.objections(tmp_path)


@pytest.mark.parametrize(
    ("value", "threshold", "sentence"),
    [
        (0.42, "value_threshold { lower_bound { value: 0.9 } }", "accuracy is 0.42, and lower_bound is 0.9"),
        (0.42, "value_threshold { upper_bound { value: 0.1 } }", "accuracy is 0.42, and upper_bound is 0.1"),
        (
            -0.05,
            "change_threshold { absolute { value: -0.01 } direction: HIGHER_IS_BETTER }",
            "accuracy is 0.05 worse than the earlier blessed model's, and max_drop is 0.01",
        ),
    ],
)
def test_every_bound_is_named_with_the_value(monkeypatch, tmp_path, value, threshold, sentence):
    assert objections_to(monkeypatch, tmp_path, value, threshold) == [sentence]


def test_a_blessed_model_meets_no_objection(monkeypatch, tmp_path):
    ok = validation_result_pb2.ValidationResult(validation_ok=True)
    monkeypatch.setattr(verdict.tfma, "load_validation_result", lambda path: ok)
    assert verdict.objections(tmp_path) == []
