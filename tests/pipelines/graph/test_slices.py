"""Slices of an evaluation, which TFMA itself makes here by the configuration of the pipelines."""

import numpy as np
import pandas
import pytest
import tensorflow_model_analysis as tfma

from morph_tfx.components.artifacts.evaluation import measured, slices, without_differences
from morph_tfx.pipelines.config import EvaluateConfig
from morph_tfx.pipelines.graph.stages import eval_config

EXAMPLES = pandas.DataFrame(
    {
        "label": [0, 1, 1, 0, 1, 0],
        "outputs": [0.1, 0.9, 0.2, 0.3, 0.8, 0.6],
        "country": ["AT", "AT", "DE", "DE", "AT", "<b>|x"],
        "ink": [10, 9, 10, 9, 10, 9],
    }
)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> str:
    """By the configuration that the pipelines make; half of one country's answers are wrong, and all of another's."""
    evaluate = EvaluateConfig(metric="BinaryAccuracy", lower_bound=0.6, slices=("ink", "country", "nowhere"))
    place = str(tmp_path_factory.mktemp("evaluation"))
    config = eval_config(evaluate, "label", compare=False)
    config.model_specs[0].signature_name = ""  # there are answers here, and no model
    tfma.analyze_raw_data(EXAMPLES, config, output_path=place)
    return place


def test_slices_come_in_the_order_in_which_they_were_asked_for_and_by_value(evaluation):
    found = [(one.feature, one.value, one.examples) for one in slices(evaluation)]
    assert found == [
        ("", None, 6),
        ("ink", 9, 3), ("ink", 10, 3),
        ("country", "<b>|x", 1), ("country", "AT", 3), ("country", "DE", 2),
        ("nowhere", None, 0),
    ]  # fmt: skip


def test_a_slice_has_the_metric_of_its_own_examples(evaluation):
    right = np.equal(EXAMPLES["outputs"] > 0.5, EXAMPLES["label"] == 1)
    for one in slices(evaluation):
        if one.feature == "nowhere":
            assert one.metrics == {}
        else:
            of_it = right if not one.feature else right[EXAMPLES[one.feature] == one.value]
            assert one.metrics == {"binary_accuracy": pytest.approx(of_it.mean())}


def test_all_examples_are_measured_as_without_slices(evaluation):
    assert measured(evaluation) == {"binary_accuracy": pytest.approx(4 / 6), "example_count": 6}


def test_the_bound_is_on_all_examples_and_a_bad_slice_holds_nothing_back(evaluation):
    """One country is right in no case, with a bound of 0.6; all together are at 0.67."""
    verdict = tfma.load_validation_result(evaluation)
    assert verdict is not None and verdict.validation_ok


def test_differences_from_a_baseline_are_left_out_and_a_metric_of_such_a_name_is_not():
    assert without_differences({"auc": 0.9, "auc_diff": 0.1, "color_diff": 2.0}) == {"auc": 0.9, "color_diff": 2.0}
