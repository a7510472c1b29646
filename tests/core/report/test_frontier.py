"""The frontier: which networks no other one beats, and which one is taken."""

import dataclasses
import itertools
import json
import re

import matplotlib.figure
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

import morph_core as morph
from morph_core import MorphError
from morph_core.report import frontier_page
from morph_core.report.frontier import Frontier, Point
from tests.core.networks import mlp, residual

MLP = morph.ChannelGraph.from_model(mlp())
RESIDUAL = morph.ChannelGraph.from_model(residual())

POINTS = (
    Point("seed", "seed", 100.0, 1.0, 0.97),
    Point("learned 25 %", "learned", 25.0, 0.25, 0.90),
    Point("learned 50 %", "learned", 50.0, 0.5, 0.95),
    Point("learned 75 %", "learned", 75.0, 0.75, 0.94),
    Point("uniform 25 %", "uniform", 24.0, 0.24, 0.85),
    Point("uniform 50 %", "uniform", 50.0, 0.5, 0.93),
)


def frontier(points=POINTS, **rule):
    return Frontier(points, "flops", "accuracy", **rule)


def test_the_smallest_that_is_accurate_enough_is_chosen():
    assert frontier(min_accuracy=0.91).chosen() == POINTS[2]
    assert frontier(min_accuracy=0.90).chosen() == POINTS[1]


def test_the_most_accurate_that_is_cheap_enough_is_chosen():
    assert frontier(max_cost=0.75).chosen() == POINTS[2]
    assert frontier(max_cost=0.3).chosen() == POINTS[1]


def test_where_none_will_do_none_is_chosen_and_the_verdict_says_why():
    too_much = frontier(min_accuracy=0.96)
    assert too_much.chosen() is None  # the seed would do, but it is no learned network
    assert too_much.verdict() == "Nothing was chosen: no learned network has accuracy of at least 0.96."
    assert frontier(max_cost=0.1).chosen() is None


def test_what_did_not_pass_its_bounds_is_never_chosen():
    points = [Point(p.label, p.kind, p.cost, p.fraction, p.accuracy, passed=p.fraction > 0.5) for p in POINTS]
    assert frontier(tuple(points), min_accuracy=0.9).chosen() == points[3]
    assert "2 did not pass the bounds" in frontier(tuple(points), min_accuracy=0.96).verdict()


@pytest.mark.parametrize(
    ("scores", "passed", "chosen", "said"),
    [
        ((0.95, 0.93), (True, True), "in place", "from scratch is 0.0200 worse."),
        ((0.91, 0.93), (True, True), "from scratch", "in place is 0.0200 worse."),
        ((0.95, 0.93), (False, True), "from scratch", "in place is 0.0200 better, and did not pass its bounds."),
    ],
)
def test_of_two_trainings_of_one_structure_the_verdict_says_by_how_much_they_differ(scores, passed, chosen, said):
    points = [
        Point(label, "learned", 50.0, 0.5, score, good)
        for label, score, good in zip(("in place", "from scratch"), scores, passed, strict=True)
    ]
    found = frontier((points[0], points[1]), max_cost=1.0)
    assert found.verdict().startswith(f"Chosen: {chosen}, accuracy")
    assert found.verdict().endswith(f" {said}")
    assert not re.search(r"learned \d+ % is .* worse", frontier(max_cost=0.75).verdict())


def test_for_a_loss_less_is_better():
    losses = tuple(Point(p.label, p.kind, p.cost, p.fraction, 1 - p.accuracy) for p in POINTS)
    assert frontier(losses, higher_is_better=False, min_accuracy=0.09).chosen() == losses[2]
    assert frontier(losses, higher_is_better=False, max_cost=0.8).chosen() == losses[2]


def test_a_gain_is_over_the_best_uniform_network_that_costs_no_more():
    assert frontier(max_cost=1).gain(POINTS[1]) == pytest.approx(0.05)
    assert frontier(max_cost=1).gain(POINTS[3]) == pytest.approx(0.01)
    assert frontier(POINTS[:4], max_cost=1).gain(POINTS[1]) is None


@pytest.mark.parametrize("rule", [{}, {"min_accuracy": 0.9, "max_cost": 0.5}])
def test_exactly_one_rule(rule):
    with pytest.raises(MorphError, match="exactly one of min_accuracy and max_cost"):
        frontier(**rule)


def counted(examples: int, **accuracies: float):
    """The points with as many examples; accuracies by label, with _ for spaces and without the sign."""
    given = {label.replace("_", " ") + (" %" if label != "seed" else ""): value for label, value in accuracies.items()}
    return tuple(
        dataclasses.replace(point, accuracy=given.get(point.label, point.accuracy), examples=examples)
        for point in POINTS
    )


def test_what_uniform_widths_beat_by_more_than_chance_is_not_chosen():
    """On 10,000 examples a share of 0.9835 varies by 0.0013."""
    points = counted(10_000, learned_50=0.9835, uniform_50=0.9858, learned_75=0.96)
    found = frontier(points, max_cost=0.75)
    assert found.chosen() is not None and found.chosen().label == "learned 25 %"
    assert found.is_behind(points[2]) and found.is_behind(points[3]) and not found.is_behind(points[1])
    verdict = found.verdict()
    assert "beats by more than its standard error" in verdict
    assert (
        "learned 50 % (0.9835) was left out: uniform 50 % reached 0.9858 at 50.0 %, and its standard error is 0.0013."
        in verdict
    )
    assert "uniform 25 % has 0.8500, 0.0500 worse. The seed has 0.9700." in verdict


def test_where_uniform_widths_beat_all_nothing_is_chosen_and_the_verdict_says_by_what():
    points = counted(10_000, uniform_25=0.96)
    found = frontier(points, max_cost=0.75)
    assert found.chosen() is None
    assert found.verdict().startswith(
        "Nothing was chosen: no learned network costs at most 75 % of the seed's flops and that no uniform network"
    )
    assert found.verdict().count("was left out: uniform 25 % reached 0.9600 at 24.0 %") == 3


def test_a_difference_that_chance_explains_does_not_count():
    """On 360 examples the same difference is a third of the standard error."""
    points = counted(360, learned_50=0.9835, uniform_50=0.9858)
    found = frontier(points, max_cost=0.6)
    assert found.chosen() == points[2]
    assert "uniform 50 % has 0.9858, 0.0023 better, within its standard error of 0.0067." in found.verdict()


@pytest.mark.parametrize(
    ("allowed", "chosen"), [(0.0, "learned 25 %"), (0.0023, "learned 50 %"), (1.0, "learned 50 %")]
)
def test_how_far_behind_a_network_may_be_can_be_said(allowed, chosen):
    points = counted(10_000, learned_50=0.9835, uniform_50=0.9858)
    found = frontier(points, max_cost=0.6, max_behind_uniform=allowed).chosen()
    assert found is not None and found.label == chosen


def test_a_uniform_network_of_the_same_budget_counts_though_it_costs_a_little_more():
    learned = Point("learned 50 %", "learned", 49.5, 0.495, 0.9, examples=10_000)
    uniform = Point("uniform 50 %", "uniform", 50.0, 0.5, 0.95, examples=10_000)
    assert frontier((learned, uniform), max_cost=0.5).chosen() is None
    dearer = dataclasses.replace(uniform, cost=60.0, fraction=0.6)
    assert frontier((learned, dearer), max_cost=0.5).chosen() == learned


def test_of_a_loss_no_standard_error_is_known_so_it_is_told_only():
    losses = tuple(Point(p.label, p.kind, p.cost, p.fraction, 1 - p.accuracy, examples=10_000) for p in POINTS)
    worse = tuple(dataclasses.replace(p, accuracy=0.01) if p.kind == "uniform" else p for p in losses)
    found = frontier(worse, higher_is_better=False, max_cost=0.6)
    assert found.chosen() == worse[2]
    assert "uniform 25 % has 0.0100, 0.0400 better" in found.verdict()
    assert frontier(worse, higher_is_better=False, max_cost=0.6, max_behind_uniform=0.01).chosen() is None


SOME = st.lists(
    st.builds(
        lambda kind, cost, accuracy, passed: Point("p", kind, cost, cost / 10, accuracy / 10, passed),
        st.sampled_from(["learned", "uniform", "seed"]),
        st.integers(1, 10),
        st.integers(0, 10),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(SOME)
def test_every_point_is_on_the_frontier_or_beaten_by_one_that_is(points):
    best = frontier(tuple(points), max_cost=1).pareto()
    assert best
    for point in points:
        beaten = [o for o in best if o.cost <= point.cost and o.accuracy >= point.accuracy and (o != point)]
        assert point in best or beaten
    for one, other in itertools.pairwise(best):
        assert one.cost <= other.cost and one.accuracy <= other.accuracy


@given(SOME, st.integers(0, 10), st.booleans())
def test_a_choice_keeps_its_rule_and_nothing_allowed_is_better(points, bound, by_accuracy):
    rule = {"min_accuracy": bound / 10} if by_accuracy else {"max_cost": max(bound, 1) / 10}
    chosen = frontier(tuple(points), **rule).chosen()
    allowed = [
        p
        for p in points
        if p.kind == "learned"
        and p.passed
        and (p.accuracy >= rule["min_accuracy"] if by_accuracy else p.fraction <= rule["max_cost"])
    ]
    assert (chosen is None) == (not allowed)
    if chosen is not None:
        assert chosen in allowed
        key = "cost" if by_accuracy else "accuracy"
        values = [getattr(point, key) for point in allowed]
        assert getattr(chosen, key) == (min(values) if by_accuracy else max(values))


def test_the_json_says_all_of_it():
    content = json.loads(frontier(min_accuracy=0.91).to_json())
    assert [point["label"] for point in content["points"] if point["chosen"]] == ["learned 50 %"]
    assert {point["label"] for point in content["points"] if point["on_frontier"]} == {
        "seed", "learned 25 %", "learned 50 %", "uniform 25 %",
    }  # fmt: skip
    assert content["choose"] == {"min_accuracy": 0.91, "max_cost": None, "max_behind_uniform": None}
    assert not any(point["behind_uniform"] for point in content["points"])


def test_the_page_holds_everything_and_escapes_names():
    points = (*POINTS, Point("<script>x</script>", "learned", 60.0, 0.6, 0.5))
    page = frontier_page.html(frontier(points, min_accuracy=0.91))
    assert "Chosen: learned 50 %, accuracy 0.9500 at 50.0 % of the seed&#39;s flops" in page
    assert "<script" not in page and not re.search(r'(src|href)="(?!#)', page)
    assert page.count("<tr") == 1 + len(points)
    assert "<svg" in page and 'id="frontier-chosen"' in page
    assert frontier_page.html(frontier(points, min_accuracy=0.91)) == page
    assert "No network was chosen" in frontier_page.html(frontier(min_accuracy=0.99))


CROWDED = tuple(
    Point(f"{kind} {percent} %", kind, float(percent), percent / 100, 0.98 + 0.0005 * number)
    for number, (percent, kind) in enumerate(itertools.product((48, 50, 52, 75), ("learned", "uniform")))
)


@pytest.mark.parametrize("points", [POINTS, CROWDED, (*CROWDED, POINTS[0])])
def test_no_label_of_the_picture_covers_another_or_a_mark_or_leaves_it(points):
    figure = matplotlib.figure.Figure(figsize=(960 / 72, 460 / 72), dpi=72)
    axes = figure.add_axes((0.08, 0.13, 0.89, 0.82))
    found = frontier(points, max_cost=1)
    axes.plot([100 * p.fraction for p in points], [p.accuracy for p in points], "o")
    axes.margins(x=0.12, y=0.16)
    labels = frontier_page.label_points(axes, found)
    boxes = [label.get_window_extent(FigureCanvasAgg(figure).get_renderer()) for label in labels]
    assert [label.get_text() for label in labels] == [point.label for point in points]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 960 and box.y1 <= 460
        for p in points:
            x, y = axes.transData.transform((100 * p.fraction, p.accuracy))
            assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)


def test_headings_of_the_table_take_several_lines_so_that_no_column_is_cut_off():
    """In one line each, seven of them are wider than the page with a metric such as this one."""
    page = frontier_page.html(Frontier(POINTS, "activation_memory", "sparse_categorical_accuracy", max_cost=1))
    assert '<table class="points">' in page
    assert re.search(r"\.points th, \.points td \{ white-space: normal; \}", page)


@pytest.mark.parametrize("cost", ["flops", "params"])
@pytest.mark.parametrize("graph", [MLP, RESIDUAL], ids=["mlp", "residual"])
@pytest.mark.parametrize("target", [0.25, 0.5, 1.0])
def test_uniform_widths_meet_the_budget_and_one_more_channel_breaks_it(graph, cost, target):
    narrow = morph.uniform(graph, cost, target=target)
    limit = target * graph.cost(cost)
    assert graph.cost(cost, narrow) <= limit
    widths = {name: group["width"] for name, group in narrow.groups.items()}
    for name, width in widths.items():
        more = morph.describe(graph, {**widths, name: width + 1})
        assert graph.cost(cost, more) > limit
    if target == 1:
        assert all(group["width"] == group["seed_width"] for group in narrow.groups.values())
    else:
        ratios = [group["width"] / group["seed_width"] for group in narrow.groups.values()]
        assert max(ratios) - min(ratios) < 0.35
    assert morph.uniform(graph, cost, budget=limit).widths == narrow.widths


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.sampled_from([MLP, RESIDUAL]),
    st.sampled_from(["flops", "params"]),
    st.floats(0.05, 1.5),
    st.sampled_from([1, 3, 4, 8]),
    st.integers(1, 6),
)
def test_uniform_widths_are_multiples_above_the_floor_within_the_budget(graph, cost, target, multiple, least):
    """Or the seed's own width; and one more step in any group, up to the next such width, would be too much."""
    try:
        narrow = morph.uniform(graph, cost, target=target, multiple_of=multiple, min_channels=least)
    except MorphError:
        assume(False)
    limit = target * graph.cost(cost)
    assert graph.cost(cost, narrow) <= limit
    widths = {name: group["width"] for name, group in narrow.groups.items()}
    for name, group in narrow.groups.items():
        width, seed = group["width"], group["seed_width"]
        assert width >= min(least, seed)
        assert width % multiple == 0 or width == seed
        step = (width // multiple + 1) * multiple
        if target <= 1:
            assert width <= seed
            step = min(step, seed)
        if step > width:
            assert graph.cost(cost, morph.describe(graph, {**widths, name: step})) > limit


def test_multiples_and_floors_by_layer_leave_the_others_alone_and_are_told():
    layer, *others = morph.uniform(MLP, target=0.25).groups
    narrow = morph.uniform(MLP, target=0.25, multiple_of={layer: 4})
    assert narrow.groups[layer]["width"] % 4 == 0
    assert narrow.settings["multiple_of"] == {layer: 4} and "min_channels" not in narrow.settings
    seed = narrow.groups[layer]["seed_width"]
    floored = morph.uniform(MLP, target=0.5, min_channels={layer: seed})
    assert floored.groups[layer]["width"] == seed
    assert all(floored.groups[name]["width"] < floored.groups[name]["seed_width"] for name in others)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"target": 0.5, "min_channels": 1000},
            "with the narrowest widths that multiple_of and min_channels leave the",
        ),
        ({"target": 0.5, "multiple_of": 0}, r"uniform: multiple_of is 0; expected a whole number of channels"),
        ({}, "exactly one of target and budget"),
        ({"target": 0.5, "budget": 10}, "exactly one of target and budget"),
        ({"target": 0}, "expected a positive number"),
        ({"target": 1e-9}, "with one channel a layer the network still costs"),
    ],
)
def test_uniform_refuses_what_cannot_be(arguments, said):
    with pytest.raises(MorphError, match=said):
        morph.uniform(MLP, **arguments)
