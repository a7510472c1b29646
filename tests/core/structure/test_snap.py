"""Snapping scores to a structure: within every limit, near the binding one, on allowed widths, best channels first."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import morph_core as morph
from morph_core.structure.budget import budget_of
from morph_core.structure.choices import choices_of
from morph_core.structure.snap import check_feasible, room, snap
from tests.core.networks import conv, mlp, residual


def towers(first=6, second=3):
    """Two towers, of which one may go, then a layer of its own; the first tower is the dearer one."""
    image = keras.Input((4, 4, 2))
    joined = layers.Concatenate()([conv(first, "big", 3)(image), conv(second, "small", 1)(image)])
    pooled = layers.GlobalAveragePooling2D()(conv(4, "after", 1)(joined))
    return keras.Model(image, layers.Dense(3, name="head")(pooled))


GRAPHS = {
    "mlp": morph.ChannelGraph.from_model(mlp((9, 7), inputs=5)),
    "narrow": morph.ChannelGraph.from_model(mlp((3, 2, 3), inputs=4)),
    "residual": morph.ChannelGraph.from_model(residual(5, blocks=2)),
    "towers": morph.ChannelGraph.from_model(towers()),
}


def widths_kept(graph, kept):
    """The width of each group that can be pruned, by name, in the normal form of a structure."""
    counts = np.bincount(graph.group_of, kept, len(graph.groups)).astype(int)
    widths = {group.name: int(count) for group, count in zip(graph.groups, counts, strict=True) if group.prunable}
    return {name: entry["width"] for name, entry in morph.describe(graph, widths).groups.items()}


def all_structures(graph, choices):
    """Every structure there is, one by one: the slow and obvious way."""
    prunable = [index for index, group in enumerate(graph.groups) if group.prunable]
    ladders = [[0, *choices.ladders[index].tolist()] for index in prunable]
    for widths in itertools.product(*ladders):
        try:
            yield morph.describe(
                graph, {graph.groups[index].name: w for index, w in zip(prunable, widths, strict=True)}
            )
        except morph.MorphError:
            continue


def fullest(graph, structure, amounts):
    return max(graph.cost(name, structure) / most for name, most in amounts.items())


CASES = [(name, multiple, least) for name in GRAPHS for multiple, least in ((1, 1), (2, 1), (3, 2))]
EVERY = {
    (name, multiple, least): list(all_structures(GRAPHS[name], choices_of(GRAPHS[name], multiple, least)))
    for name, multiple, least in CASES
}


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    case=st.sampled_from(CASES),
    shares=st.fixed_dictionaries(
        {"flops": st.floats(0.03, 1.0)},
        optional={"params": st.floats(0.03, 1.0), "activation_memory": st.floats(0.3, 1.0)},
    ),
    seed=st.integers(0, 1000),
)
def test_a_snap_is_within_every_limit_and_within_one_per_cent_where_any_structure_is(case, shares, seed):
    name, multiple, least = case
    graph, choices = GRAPHS[name], choices_of(GRAPHS[name], multiple, least)
    amounts = {cost: share * graph.cost(cost) for cost, share in shares.items()}
    budget = budget_of(graph, "flops", budget=amounts)
    reached = [used for used in (fullest(graph, structure, amounts) for structure in EVERY[case]) if used <= 1]
    scores = np.random.default_rng(seed).normal(size=len(graph.group_of))
    if not reached:
        with pytest.raises(morph.MorphError, match="No structure of model"):
            check_feasible(budget, choices=choices)
        return
    widths = widths_kept(graph, snap(budget, scores, choices=choices))
    used = fullest(graph, morph.describe(graph, widths), amounts)
    assert used <= 1
    assert used >= min(0.99, max(reached))
    allowed = {group.name: {0, *ladder} for group, ladder in zip(graph.groups, choices.ladders, strict=True)}
    assert all(width in allowed[name] for name, width in widths.items())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("target", "multiple"), [(0.9, 1), (0.5, 1), (0.1, 1), (0.5, 4)])
def test_not_one_more_step_of_a_group_that_is_left_fits(seed, target, multiple):
    graph = morph.ChannelGraph.from_model(residual(16, blocks=3))
    choices = choices_of(graph, multiple, 1)
    budget = target * graph.cost("flops")
    scores = np.random.default_rng(seed).normal(size=len(graph.group_of))
    widths = widths_kept(graph, snap(budget_of(graph, "flops", budget=budget), scores, choices=choices))
    assert graph.cost("flops", morph.describe(graph, widths)) <= budget
    for name, width in widths.items():
        assert width % multiple == 0
        if 0 < width < 16:
            assert graph.cost("flops", morph.describe(graph, {**widths, name: width + multiple})) > budget


def test_the_best_channels_of_each_group_are_kept():
    graph = morph.ChannelGraph.from_model(mlp((10, 10)))
    scores = np.random.default_rng(0).random(len(graph.group_of))
    kept = snap(budget_of(graph, "params", target=0.5), scores)
    for index, group in enumerate(graph.groups):
        if group.prunable:
            mine = graph.group_of == index
            assert scores[mine & kept].min() > scores[mine & ~kept].max(initial=0)


def test_a_dear_branch_with_the_better_scores_gives_way_where_only_the_other_fits():
    graph = GRAPHS["towers"]
    scores = np.where(graph.group_of == 0, 9.0, 1.0)
    least = graph.cost("flops", morph.describe(graph, {"big": 0, "small": 1, "after": 1}))
    widths = widths_kept(graph, snap(budget_of(graph, "flops", budget=1.05 * least), scores))
    assert widths["big"] == 0
    assert widths["small"] >= 1


def test_a_layer_keeps_its_floor_or_dies_with_its_branch():
    graph = morph.ChannelGraph.from_model(residual(16, blocks=3))
    choices = choices_of(graph, min_channels={"stem": 5, "b1_in": 7})
    for seed in range(20):
        scores = np.random.default_rng(seed).normal(size=len(graph.group_of))
        widths = widths_kept(graph, snap(budget_of(graph, "flops", target=0.25), scores, choices=choices))
        assert widths["stem"] >= 5
        assert widths["b1_in"] == 0 or widths["b1_in"] >= 7


def test_what_the_granularity_leaves_is_told():
    graph = morph.ChannelGraph.from_model(mlp((4, 4), inputs=4))
    choices = choices_of(graph, multiple_of=2)
    budget = budget_of(graph, "params", target={"params": 0.6, "flops": 0.9})
    widths = widths_kept(graph, snap(budget, np.arange(len(graph.group_of)), choices=choices))
    kept = morph.describe(graph, widths)
    found = room(budget, kept.widths_in(graph), choices)
    left = 1 - graph.cost("params", kept) / (0.6 * graph.cost("params"))
    assert found["binding"] == "params"
    assert found["left"] == pytest.approx(left)
    assert left > 0.01
    assert (
        f"{left:.1%} of the limit on params is left, because not one more step fits: the smallest, 2 more"
        in (found["granularity"])
    )


def test_limits_that_hold_alone_but_not_together_are_refused_as_such():
    """One tower has many weights at few positions, the other the reverse; one of them has to stay."""
    image = keras.Input((16, 16, 2))
    wide = layers.Conv2D(4, 12, strides=12, name="weights")(image)
    fine = layers.UpSampling2D(8)(layers.Conv2D(4, 9, padding="same", name="positions")(image))
    pooled = layers.Concatenate()([layers.GlobalAveragePooling2D()(part) for part in (wide, fine)])
    graph = morph.ChannelGraph.from_model(keras.Model(image, layers.Dense(3, name="head")(pooled)))
    alone = {
        name: graph.cost("params", morph.describe(graph, {name: 1, other: 0}))
        for name, other in (("weights", "positions"), ("positions", "weights"))
    }
    flops = {
        name: graph.cost("flops", morph.describe(graph, {name: 1, other: 0}))
        for name, other in (("weights", "positions"), ("positions", "weights"))
    }
    assert alone["weights"] > alone["positions"]
    assert flops["weights"] < flops["positions"]
    limits = {
        "params": (alone["weights"] + alone["positions"]) / 2,
        "flops": (flops["weights"] + flops["positions"]) / 2,
    }
    for name, most in limits.items():
        check_feasible(budget_of(graph, name, budget=most))
    with pytest.raises(morph.MorphError, match="Each limit could be kept alone, but not all together"):
        check_feasible(budget_of(graph, "flops", budget=limits))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.1, "min_channels": 40}, r"with every group at its floor \(min_channels\) it still costs"),
        ({"target": 0.1, "multiple_of": 32}, r"with one multiple in every group \(multiple_of\) it"),
        ({"target": 0.1, "multiple_of": 32, "min_channels": 2}, "as narrow as min_channels and multiple_of allow it"),
    ],
)
def test_floors_and_multiples_that_leave_nothing_within_the_budget_are_named(arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.StructureSearch(mlp((64, 64), inputs=8), gate="fisher", **arguments)


def test_the_default_floor_gives_way_to_a_small_budget():
    floors = {
        target: morph.StructureSearch(mlp((64, 64), inputs=8), gate="fisher", target=target)._plan.settings["floor"]
        for target in (0.5, 0.02, 0.008)
    }
    assert floors[0.5] == 1 / 16
    assert floors[0.5] > floors[0.02] > floors[0.008]
