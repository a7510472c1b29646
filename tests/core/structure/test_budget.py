"""Budgets: what a user may say, which limit binds, and what no structure can keep."""

import numpy as np
import pytest

import morph_core as morph
from morph_core.structure.budget import budget_of
from tests.core.networks import mlp, residual

GRAPH = morph.ChannelGraph.from_model(residual())


def outputs(calls):
    """A user's own cost: how many channels the convolutions make."""
    return sum(call.axes["out"] for call in calls if call.rule.kernels and "out" in call.axes)


@pytest.mark.parametrize(
    ("cost", "arguments", "limits", "goal"),
    [
        ("flops", {"target": 0.5}, {"flops": 0.5}, {"cost": "flops", "target": 0.5}),
        ("flops", {"budget": 1e5}, {"flops": 1e5 / GRAPH.cost("flops")}, {"cost": "flops", "budget": 1e5}),
        ("flops", {"target": {"params": 0.5}}, {"params": 0.5}, {"cost": "params", "target": 0.5}),
        (
            "flops",
            {"target": {"flops": 0.5, "params": 0.6}},
            {"flops": 0.5, "params": 0.6},
            {"target": {"flops": 0.5, "params": 0.6}},
        ),
        (
            "latency:v100",
            {"budget": {"latency_ms": 0.01, "params": 100}},
            {"latency:v100": 0.01 / GRAPH.cost("latency:v100"), "params": 100 / GRAPH.cost("params")},
            {"budget": {"latency:v100": 0.01, "params": 100.0}},
        ),
        (
            outputs,
            {"target": {"outputs": 0.5, "flops": 0.5}},
            {"outputs": 0.5, "flops": 0.5},
            {"target": {"outputs": 0.5, "flops": 0.5}},
        ),
    ],
)
def test_a_budget_is_a_number_or_numbers_by_cost(cost, arguments, limits, goal):
    budget = budget_of(GRAPH, cost, **arguments)
    assert dict(zip(budget.names, budget.shares.tolist(), strict=True)) == pytest.approx(limits)
    assert budget.goal == goal


@pytest.mark.parametrize(
    ("cost", "arguments", "message"),
    [
        ("flops", {"target": {}}, r'target names no cost; expected .*target=\{"flops": 0.5\}'),
        ("flops", {"budget": {"latency_ms": 3.0}}, r"'latency_ms', but not the device. Add cost='latency:DEVICE'"),
        (
            "latency:v100",
            {"target": {"latency_ms": 0.5, "latency:v100": 0.6}},
            "two limits for the cost 'latency",
        ),
        ("flops", {"target": {"flop": 0.5}}, "Unknown cost 'flop'. Did you mean 'flops'"),
        ("flops", {"target": {"flops": -1}}, r"target\['flops'\] is -1; expected a positive number"),
        ("flops", {"budget": {"params": "many"}}, r"budget\['params'\] is 'many'; expected a positive number"),
        ("flops", {"target": True}, "target is True; expected a positive number"),
    ],
)
def test_mistakes_are_explained(cost, arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        budget_of(GRAPH, cost, **arguments)


def test_costs_of_several_networks_at_once_are_those_of_each():
    budget = budget_of(GRAPH, outputs, target={"outputs": 0.5, "flops": 0.4, "params": 0.3, "latency:t4": 0.5})
    widths = np.random.default_rng(0).integers(1, 17, (5, len(GRAPH.groups))).astype(float)
    widths[:, ~GRAPH.prunable] = GRAPH.seed_widths[~GRAPH.prunable]
    for one, used in zip(widths, budget.used(widths), strict=True):
        assert used == pytest.approx((budget.costs(one) / budget.most).max())
        assert budget.used(one)[0] == used
        assert budget.fits(one) == (used <= 1)


def test_the_binding_limit_is_the_fullest():
    budget = budget_of(GRAPH, "flops", target={"flops": 0.5, "params": 0.25})
    assert budget.binding(budget.seed) == 1
    assert budget.binding(np.array([0.9, 0.1]) * budget.most) == 0
    assert budget.weights(np.array([1.0, 0.5]) * budget.most) == pytest.approx([1.0, 0.5**8])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": {"flops": 0.5, "params": 1e-4}}, "within 0.985 parameters .*What weighs most .* layer 'head'"),
        ({"target": {"flops": 1e-5, "params": 0.5}}, "within .* FLOPs per example"),
        (
            {"budget": {"flops": 1e12, "params": 1e12}},
            "budget is .* and 1e.12 parameters, but the seed costs only",
        ),
        ({"target": {"flops": 0.5, "params": 1.5}}, "target is 1.5; expected a fraction"),
    ],
)
def test_what_cannot_be_met_is_refused_by_the_limit_at_fault(arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.StructureSearch(residual(), gate="logistic_sigmoid", **arguments)


def test_one_limit_above_the_seed_leaves_the_other_to_shrink():
    search = morph.StructureSearch(mlp(), gate="fisher", budget={"flops": 1e12, "params": 3000})
    assert search.update(0.0)["cost_params"] == 1.0
