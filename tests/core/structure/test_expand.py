"""Expansion meets its budget, and one more channel breaks it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import morph_core as morph
from tests.core.networks import mlp, random_structure, residual

MLP = morph.ChannelGraph.from_model(mlp())
RESIDUAL = morph.ChannelGraph.from_model(residual())


def test_the_papers_own_example():
    shrunk = morph.describe(MLP, {"d1": 10, "d2": 80})
    wider = morph.expand(shrunk, MLP, multiplier=1.5)
    assert (wider.widths["d1"], wider.widths["d2"]) == (15, 120)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    graph=st.sampled_from([MLP, RESIDUAL]),
    share=st.floats(0.05, 0.9),
    room=st.floats(1.0, 6.0),
    cost=st.sampled_from(["flops", "params"]),
    seed=st.integers(0, 100),
)
def test_expansion_is_within_budget_and_no_single_step_fits(graph, share, room, cost, seed):
    shrunk = random_structure(graph, share, seed)
    budget = room * graph.cost(cost, shrunk)
    wider = morph.expand(shrunk, graph, cost=cost, budget=budget)
    assert graph.cost(cost, wider) <= budget
    widths = {name: entry["width"] for name, entry in wider.groups.items()}
    for name, width in widths.items():
        assert width >= shrunk.groups[name]["width"]
        one_more = morph.describe(graph, {**widths, name: width + 1}, dict.fromkeys(widths))
        assert graph.cost(cost, one_more) > budget


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    graph=st.sampled_from([MLP, RESIDUAL]),
    share=st.floats(0.05, 0.9),
    rooms=st.fixed_dictionaries({"flops": st.floats(1.0, 5.0), "params": st.floats(1.0, 5.0)}),
    multiple=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 100),
)
def test_expansion_is_within_each_budget_and_no_single_step_of_a_multiple_fits(graph, share, rooms, multiple, seed):
    shrunk = random_structure(graph, share, seed)
    budget = {cost: room * graph.cost(cost, shrunk) for cost, room in rooms.items()}
    wider = morph.expand(shrunk, graph, budget=budget, multiple_of=multiple)
    assert all(graph.cost(cost, wider) <= most for cost, most in budget.items())
    widths = {name: entry["width"] for name, entry in wider.groups.items()}
    for name, width in widths.items():
        before = shrunk.groups[name]["width"]
        assert width == before or (width > before and width % multiple == 0)
        step_up = (width // multiple + 1) * multiple
        one_more = morph.describe(graph, {**widths, name: step_up}, dict.fromkeys(widths))
        assert any(graph.cost(cost, one_more) > most for cost, most in budget.items())


def test_a_multiplier_goes_to_the_nearest_multiple():
    shrunk = morph.describe(MLP, {"d1": 10, "d2": 80})
    wider = morph.expand(shrunk, MLP, multiplier=1.5, multiple_of={"d1": 8})
    assert (wider.widths["d1"], wider.widths["d2"]) == (16, 120)
    assert wider.settings["multiple_of"] == {"d1": 8}


def test_several_targets_are_told_by_cost():
    wider = morph.expand(random_structure(MLP, 0.5), MLP, target={"flops": 0.9, "params": 0.8}, multiple_of=8)
    assert wider.settings["expanded_to"] == pytest.approx({"flops": 0.9, "params": 0.8})
    assert morph.Structure.from_json(wider.to_json()) == wider


def test_expansion_keeps_proportions():
    shrunk = morph.describe(RESIDUAL, {"stem": 4, "b1_in": 2, "b2_in": 8})
    wider = morph.expand(shrunk, RESIDUAL, target=1.0)
    ratios = [entry["width"] / shrunk.groups[name]["width"] for name, entry in wider.groups.items()]
    assert max(ratios) / min(ratios) < 1.35


def test_removed_blocks_stay_removed():
    wider = morph.expand(morph.describe(RESIDUAL, {"b1_in": 0}), RESIDUAL, target=1.0)
    assert wider.widths["b1_in"] == 0
    assert wider.removed["layers"][0] == "b1_in"


def test_an_expanded_structure_tells_how():
    wider = morph.expand(random_structure(MLP, 0.5), MLP, target=0.8)
    assert wider.settings["expanded_to"] == pytest.approx(0.8)
    assert 1 < wider.settings["multiplier"] < 2
    assert morph.Structure.from_json(wider.to_json()) == wider


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of target, budget and multiplier; received none"),
        ({"target": 1.0, "multiplier": 2.0}, "exactly one of"),
        ({"target": -1.0}, "expand: target is -1.0; expected a positive number"),
        ({"multiplier": float("nan")}, "multiplier is nan"),
        ({"target": 0.01}, "more than the budget.*smaller target first"),
        ({"budget": 1e30}, "within 1e.30 .*Is the budget given in the cost's own unit"),
        ({"target": 1.0, "cost": "joules"}, "Unknown cost 'joules'"),
        ({"target": {"flops": 1.0, "params": 0.01}}, "parameters, more than the budget"),
        ({"target": 1.0, "multiple_of": -8}, "expand: multiple_of is -8; expected a whole number"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.expand(random_structure(MLP, 0.5), MLP, **arguments)


def test_another_networks_structure_is_refused():
    with pytest.raises(morph.MorphError, match="another network"):
        morph.expand(random_structure(MLP, 0.5), RESIDUAL, target=1.0)
