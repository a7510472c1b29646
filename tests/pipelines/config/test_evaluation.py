"""When a model is pushed: a bound that is missing, and a choice without a rule."""

import pytest

from tests.pipelines.config.sample import expect_refusal


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("target:", "budgets: [0.5]", "choose: {}"), ["choose: exactly one of 'min_accuracy'", "got neither"]),
        (("evaluate: {}",), ["evaluate: exactly one of 'lower_bound'", "got neither"]),
    ],
)
def test_exactly_one_bound_and_one_rule_are_expected(changes, parts):
    expect_refusal(changes, parts)
