"""The configuration as a whole: what a goal means, and which settings do not go together."""

import pytest

from morph_core import MorphError
from tests.pipelines.config.sample import config_of, expect_refusal


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), (None,)),
        (("cycles: 3",), (1.0, 1.0, None)),
        (("cycles: 2", "expand_to: 0.8"), (0.8, 0.8)),
        (("cycles: 2", "expand_to: [1.2, null]"), (1.2, None)),
        (("cycles: 2", "expand_to: [0.9, 0.5]"), (0.9, 0.5)),
        (("target:", "budget: 1e6", "cycles: 2"), (1.0, None)),
    ],
)
def test_expansions_has_one_value_for_each_cycle(changes, expected):
    assert config_of(*changes).expansions == expected


def test_goals_widths_and_floors_may_be_given_by_name():
    config = config_of("target: {flops: 0.5, params: 0.6}", "multiple_of: {conv_1: 8}", "min_channels: 4")
    assert config.target == {"flops": 0.5, "params": 0.6}
    assert config.multiple_of == {"conv_1": 8}
    assert config.min_channels == 4
    assert config_of("strength: 1e-3").strength == pytest.approx(1e-3)  # beside a target: where the price starts
    assert config_of("target:", "cost: latency:v100", "budget: {latency_ms: 3, params: 1e4}").budget == {
        "latency_ms": 3,
        "params": 1e4,
    }


def test_a_retraining_may_start_from_the_weights_that_the_last_search_keeps():
    config = config_of("cycles: 2", "search: {epochs: 3, keep_weights: true}", "retrain: {epochs: 3, warm_start: true}")
    assert (config.search.keep_weights, config.retrain.warm_start) == (True, True)
    assert (config_of().search.keep_weights, config_of().retrain.warm_start) == (False, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["retrain: {epochs: 3, warm_start: true}"], "retrain.warm_start: .* because search.keep_weights is not true"),
        (
            ["expand_to: 0.6", "search: {epochs: 3, keep_weights: true}"],
            "search.keep_weights: expand_to widens the last structure to 0.6 of the seed's cost, and nobody trained",
        ),
        (
            ["cycles: 2", "expand_to: [1.0, 0.8]", "search: {epochs: 3, keep_weights: true}"],
            "search.keep_weights: .* null be the last value of its list",
        ),
        (
            [
                "target:", "budgets: [0.25, 0.5]", "choose: {min_accuracy: 0.9}",
                "search: {epochs: 3, keep_weights: true}", "retrain: {epochs: 3, warm_start: true}",
            ],
            "retrain.warm_start: with 'budgets' learned networks are compared",
        ),
        (["search: {epochs: 3, warm_start: true}"], "search.warm_start: unknown key; .* keep_weights"),
        (["retrain: {epochs: 3, keep_weights: true}"], "retrain.keep_weights: unknown key; .* warm_start"),
    ],
)  # fmt: skip
def test_weights_that_nobody_keeps_or_trained_are_refused_by_name(changes, said):
    with pytest.raises(MorphError, match=said):
        config_of(*changes)


def test_the_file_with_the_preprocessing_is_the_module_file_unless_named():
    assert config_of().preprocessing_file == "/base/module.py"
    assert config_of("transform_module_file: prep.py").preprocessing_file == "/base/prep.py"


def test_the_retrain_pipeline_has_a_name_and_a_structure_of_its_own():
    config = config_of("retrain_pipeline: {structure: best/structure.json}")
    assert config.retrain_pipeline.structure == "/base/best/structure.json"
    assert config.pipeline_names == ("digits", "digits-retrain")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("name: My Pipeline",), ["name: expected text that matches", "'My Pipeline'", "lower-case"]),
        (("target: 1.5",), ["target: expected less than or equal to 1, got 1.5", "fraction of the seed's cost"]),
        (("target: 0",), ["target: expected greater than 0, got 0"]),
        (("target:",), ["exactly one of 'target', 'budget', 'budgets' and (fixed) 'strength' is expected, got none"]),
        (("budget: 100",), ["exactly one of 'target', 'budget',", "got target and budget"]),
        (("target: {flops: 0.5, params: 1.5}",), ["target: expected less than or equal to 1, got 1.5"]),
        (("target: {flops: 0.5, parms: 0.5}",), ["target: Unknown cost 'parms'. Did you mean 'params'?"]),
        (("target: {}",), ["target: target names no cost"]),
        (("target:", "budget: {latency_ms: 3}"), ["budget: budget names 'latency_ms', but not the device"]),
        (("multiple_of: 0",), ["multiple_of: expected greater than or equal to 1, got 0"]),
        (("multiple_of: 2.5",), ["multiple_of: expected a valid integer, got 2.5"]),
        (("min_channels: {conv_1: some}",), ["min_channels: expected a valid integer, got 'some'"]),
        (("min_channels: evenly",), ["min_channels: expected 'uniform', got 'evenly'"]),
        (
            ("target:", "strength: 0.001", "min_channels: uniform"),
            ["min_channels: uniform widths are those within a budget", "For example: target: 0.5"],
        ),
        (("target: {flops: 0.5, params: 0.6}", "expand_to: 0.55"), ["expand_to: 0.55 is not above target (0.6)"]),
        (("target:", "budgets: [0.5]"), ["'budgets' and 'choose' belong together"]),
        (("choose: {max_cost: 0.5}",), ["'budgets' and 'choose' belong together"]),
        (("target:", "budgets: [1.5]", "choose: {max_cost: 1}"), ["budgets: 1 to 20 different fractions", "[1.5]"]),
        (("target:", "budgets: [0.5, 0.5]", "choose: {max_cost: 1}"), ["budgets: 1 to 20 different fractions"]),
        (("target:", "budgets: [0.5]", "choose: {max_cost: 0.4}"), ["choose.max_cost: 0.4 is below the smallest"]),
        (("target:", "budgets: [0.5]", "choose: {max_cost: 1}", "expand_to: 0.7"), ["leave expand_to out"]),
        (("cost: flop",), ["cost: Unknown cost 'flop'. Did you mean 'flops'?", "'flops', 'params'"]),
        (("gate: gama",), ["gate: Unknown gate 'gama'. Did you mean 'gamma'?", "'auto', 'fisher', 'gamma', "]),
        (("cycles: 0",), ["cycles: expected greater than or equal to 1, got 0"]),
        (("expand_to: 0.4",), ["expand_to: 0.4 is not above target (0.5)", "Raise expand_to or lower target"]),
        (("cycles: 2", "expand_to: 0.5"), ["expand_to: 0.5 is not above target (0.5), so cycle 1 of 2"]),
        (("cycles: 2", "expand_to: [1.0]"), ["expand_to: a list needs one value for each of the 2 cycles, got 1"]),
        (
            ("cycles: 2", "expand_to: [null, 1.0]"),
            ["expand_to: cycle 1 of 2 would leave the next one nothing to shrink"],
        ),
        (("expand_to: lots",), ["expand_to: expected a valid number", "got 'lots'"]),
        (("expand_to: -1", "target:", "budget: 10"), ["expand_to: a fraction above 0", "got -1"]),
    ],
)
def test_a_goal_that_cannot_be_met_is_refused_by_name(changes, parts):
    expect_refusal(changes, parts)


def test_a_configuration_cannot_be_changed():
    config = config_of()
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


IN_PLACE = ("finish: in_place", "retrain: {epochs: 9}")


@pytest.mark.parametrize(
    ("changes", "length", "fraction"),
    [
        (IN_PLACE, {"epochs": 12}, 0.25),
        (("finish: in_place", "search: {steps: 50}", "retrain: {steps: 150}"), {"steps": 200}, 0.25),
    ],
)
def test_in_place_the_last_search_takes_the_length_of_both_trainings(changes, length, fraction):
    config = config_of(*changes)
    assert config.whole_run.model_dump(include={"epochs", "steps"}, exclude_none=True) == length
    assert config.search_fraction == pytest.approx(fraction)
    assert config_of().finish == "from_scratch"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (("finish: inplace",), "finish: expected 'from_scratch', 'in_place' or 'both', got 'inplace'"),
        ((*IN_PLACE, "expand_to: 0.8"), "finish: expand_to widens the last structure to 0.8 of the seed's cost"),
        (
            (*IN_PLACE, "target:", "budgets: [0.25, 0.5]", "choose: {min_accuracy: 0.9}"),
            "finish: with 'budgets' learned networks are compared",
        ),
        (
            ("finish: in_place", "search: {epochs: 3, keep_weights: true}", "retrain: {epochs: 9, warm_start: true}"),
            "retrain.warm_start: with finish: in_place the network goes on with its own weights",
        ),
        (("finish: in_place", "retrain: {steps: 9}"), "the lengths of both are expected in 'epochs' or those of both"),
        (
            ("finish: in_place", "retrain: {epochs: 9, batch_size: 16}"),
            "so their batch_size is expected to be the same, got 32 and 16",
        ),
        (
            ("finish: in_place", "retrain: {epochs: 9, distribution: {strategy: mirrored}}"),
            "so their distribution is expected to be the same, got None and {'strategy': 'mirrored'}",
        ),
        (("finish: in_place", "retrain: {epochs: 9, mixed_precision: true}"), "so their mixed_precision is expected"),
    ],
)
def test_what_does_not_go_into_one_run_is_refused(changes, part):
    expect_refusal(changes, [part])


@pytest.mark.parametrize(
    ("hparams", "told"),
    [
        ("{start: 2024-01-31}", "hparams.start is datetime.date(2024, 1, 31) (date)"),
        ("{rates: [0.1, .nan]}", "hparams.rates[1] is nan (float)"),
        ("{widths: {1: 32}}", "hparams.widths has the key 1; keys are expected to be text"),
    ],
)
def test_hyperparameters_are_what_json_can_hold(hparams, told):
    expect_refusal([f"hparams: {hparams}"], [told])
    assert config_of("hparams: {a: [1, 0.5, null, true, {b: text}]}").hparams["a"][4] == {"b": "text"}


def test_a_number_that_is_none_is_refused():
    expect_refusal(["evaluate: {lower_bound: .nan}"], ["evaluate.lower_bound: expected a finite number, got nan"])
