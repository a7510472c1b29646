"""When a model is pushed: a bound that is missing, and a choice without a rule."""

import pytest

from tests.pipelines.config.sample import config_of, expect_refusal


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("target:", "budgets: [0.5]", "choose: {}"), ["choose: exactly one of 'min_accuracy'", "got neither"]),
        (
            ("evaluate: {lower_bound: 0.9, slices: [plan, plan]}",),
            ["evaluate: slices: plan, plan: different features are expected"],
        ),
        (("evaluate: {lower_bound: 0.9, slices: ['']}",), ["evaluate.slices"]),
        (("evaluate: {}",), ["evaluate: exactly one of 'lower_bound'", "got neither"]),
    ],
)
def test_what_a_bound_a_rule_or_slices_lack_is_told(changes, parts):
    expect_refusal(changes, parts)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("target:", "budgets: [0.5]", "choose: {max_cost: 0.5}"), ["compare: with 'budgets'", "leave compare out"]),
        (("target:", "strength: 0.1"), ["compare: uniform widths are made for one fraction", "target: 0.5"]),
        (("target: {flops: 0.5, params: 0.6}",), ["compare: uniform widths are made for one fraction"]),
        (("expand_to: 1.5",), ["compare: expand_to widens the last structure to 1.5"]),
        (("retrain: {epochs: 2}", "finish: both"), ["compare: ", "with finish: both"]),
    ],
)
def test_there_is_one_network_of_uniform_widths_to_compare_with(changes, parts):
    expect_refusal((*changes, "compare: true"), parts)


def test_one_target_is_compared_when_that_is_asked_for():
    assert config_of("compare: true").compare and not config_of().compare
