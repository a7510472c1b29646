"""Structures survive JSON, and nothing else passes for one."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import morph_core as morph
from tests.core.networks import mlp, random_structure, residual, sizes

GRAPH = morph.ChannelGraph.from_model(residual())
SOME = random_structure(GRAPH, 0.5)
SOME_DATA = json.loads(SOME.to_json())


@pytest.mark.parametrize("share", [1.0, 0.6, 0.1])
def test_json_round_trip(share):
    structure = random_structure(GRAPH, share)
    assert morph.Structure.from_json(structure.to_json()) == structure


def test_equal_structures_are_equal_bytes():
    assert (
        random_structure(GRAPH, 0.5).to_json()
        == random_structure(morph.ChannelGraph.from_model(residual()), 0.5).to_json()
    )


def test_the_file_alone_rebuilds_the_network(tmp_path):
    SOME.save(tmp_path / "structure.json")
    student = morph.rebuild(residual(), morph.Structure.load(tmp_path / "structure.json"))
    assert student.get_layer("stem").filters == 8
    assert sizes(morph.ChannelGraph.from_model(student)) == dict.fromkeys(sizes(GRAPH), 8)


def test_saving_leaves_one_file(tmp_path):
    SOME.save(tmp_path / "structure.json")
    SOME.save(tmp_path / "structure.json")
    assert [path.name for path in tmp_path.iterdir()] == ["structure.json"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(morph.MorphError, match=r"nowhere\.json cannot be read"):
        morph.Structure.load(tmp_path / "nowhere.json")


def test_another_networks_structure_is_told_by_its_fingerprint():
    with pytest.raises(morph.MorphError, match=r"made for another network .*functional"):
        SOME.check_belongs_to(morph.ChannelGraph.from_model(mlp()))


def test_a_changed_group_is_told_although_the_fingerprint_fits():
    data = copy.deepcopy(SOME_DATA)
    data["groups"]["other"] = data["groups"].pop("stem")
    with pytest.raises(morph.MorphError, match="groups are not those of model"):
        morph.Structure.from_json(json.dumps(data)).check_belongs_to(GRAPH)


def broken(change):
    data = copy.deepcopy(SOME_DATA)
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        (SOME.to_json()[:200], "not valid JSON .*cut short"),
        ("[]", "expected a JSON object"),
        (broken(lambda data: data.update(schema_version=99)), "schema_version is 99, this version reads 1"),
        (broken(lambda data: data.pop("groups")), "expected the fields"),
        (broken(lambda data: data.update(extra=1)), "expected the fields"),
        (broken(lambda data: data["groups"]["stem"].update(width=-3)), r"groups\['stem'\]\.width is -3"),
        (broken(lambda data: data["groups"]["stem"].update(width=10**30)), r"groups\['stem'\]\.width is 1000"),
        (broken(lambda data: data["groups"]["stem"].update(alive=[0])), "alive has 1 channels, but its width is 8"),
        (
            broken(lambda data: data["groups"]["stem"].update(alive=[*range(7), 99])),
            r"alive names channel \[99\] of 16",
        ),
        (broken(lambda data: data["groups"]["stem"].update(alive=[0] * 8)), "not in rising order"),
        (broken(lambda data: data.update(goal={"targets": 0.5})), "field 'goal' has other fields"),
        (broken(lambda data: data.update(goal={"cost": 3})), "goal.cost is not text"),
        (broken(lambda data: data.update(goal={"target": {"flops": "half"}})), "goal.target holds something that is"),
        (broken(lambda data: data.update(goal={"strength": {"flops": 1}})), "goal.strength is not a number"),
        (broken(lambda data: data.update(layers={})), "field 'layers' is not a list"),
        (SOME.to_json().replace('"seed": ', '"seed": NaN, "was": ', 1), "NaN is not a number"),
    ],
)
def test_what_is_not_a_structure_is_refused_by_field(text, message):
    with pytest.raises(morph.MorphError, match=message) as error:
        morph.Structure.from_json(text, source="some/structure.json")
    assert "some/structure.json" in str(error.value)


def paths(value, prefix=()):
    yield prefix
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*prefix, key))


PATHS = [path for path in paths(SOME_DATA) if path]
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), junk=JUNK, cut=st.one_of(st.none(), st.integers(0, 3000)))
def test_damaged_files_are_refused_or_harmless(path, junk, cut):
    """200 damaged files: each is read as a structure that can be checked against the network, or is one clear error."""
    data = copy.deepcopy(SOME_DATA)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = junk
    text = json.dumps(data) if cut is None else json.dumps(data)[:cut]
    try:
        structure = morph.Structure.from_json(text, source="damaged.json")
        widths = structure.widths_in(GRAPH)
    except morph.MorphError as error:
        widths, told = None, str(error)
    if widths is None:
        assert len(told) > 40
    else:
        assert (widths >= 0).all()
        assert sorted(structure.groups) == sorted(SOME.groups)


def test_chaining_gives_the_channels_of_the_first_seed():
    model = residual()
    first = random_structure(GRAPH, 0.5, seed=1)
    student = morph.rebuild(model, first, weights="inherit")
    second_graph = morph.ChannelGraph.from_model(student)
    second = random_structure(second_graph, 0.5, seed=2)
    both = morph.chain(first, second)
    assert both.groups["stem"]["alive"] == [
        first.groups["stem"]["alive"][channel] for channel in second.groups["stem"]["alive"]
    ]
    assert both.costs["flops"]["structure"] == second.costs["flops"]["structure"] == GRAPH.cost("flops", both)
    assert both.costs["flops"]["seed"] == GRAPH.cost("flops")
    assert morph.rebuild(model, both).count_params() == morph.rebuild(student, second).count_params()


def test_chaining_keeps_removed_blocks_removed():
    model = residual()
    first = morph.describe(GRAPH, {"b1_in": 0})
    second_graph = morph.ChannelGraph.from_model(morph.rebuild(model, first))
    both = morph.chain(first, random_structure(second_graph, 0.5))
    assert both.groups["b1_in"] == {"seed_width": 16, "width": 0, "alive": []}
    assert "b1_in" in both.removed["layers"]
    assert morph.rebuild(model, both).count_params() == both.costs["params"]["structure"]


def test_chaining_after_expansion_needs_no_channels_of_the_seed():
    first = morph.expand(random_structure(GRAPH, 0.5), GRAPH, target=1.2)
    second_graph = morph.ChannelGraph.from_model(morph.rebuild(residual(), first))
    both = morph.chain(first, random_structure(second_graph, 0.3))
    assert {entry["alive"] for entry in both.groups.values()} == {None}
    assert morph.Structure.from_json(both.to_json()) == both


def test_limits_are_fractions_of_the_seeds_costs_whatever_was_asked():
    seed = GRAPH.cost("params")

    def limits(**goal):
        return morph.describe(GRAPH, {}, goal=goal).limits

    assert limits(cost="flops", target=0.5) == {"flops": 0.5}
    assert limits(cost="params", budget=seed / 4) == pytest.approx({"params": 0.25})
    assert limits(target={"flops": 0.5, "params": 0.6}) == {"flops": 0.5, "params": 0.6}
    assert limits(budget={"params": seed / 2}) == pytest.approx({"params": 0.5})
    assert limits(cost="flops", strength=1e-3) == {}


def test_chaining_counts_several_goals_and_their_trajectory_in_the_first_seed():
    first = morph.describe(GRAPH, {"stem": 8, "b1_in": 8, "b2_in": 8})
    second_graph = morph.ChannelGraph.from_model(morph.rebuild(residual(), first))
    row = {"step": 1, "cost": 0.6, "target": 0.5, "alive": 9, "loss": None}
    row |= {"cost_flops": 0.4, "target_flops": 0.5, "cost_params": 0.6, "target_params": 0.5}
    goal = {"target": {"flops": 0.5, "params": 0.5}}
    both = morph.chain(first, morph.describe(second_graph, {"stem": 4}, goal=goal, trajectory=[row]))
    shares = {name: second_graph.cost(name) / GRAPH.cost(name) for name in ("flops", "params")}
    assert both.limits == pytest.approx({name: 0.5 * share for name, share in shares.items()})
    (chained,) = both.trajectory
    assert chained["cost_flops"] == pytest.approx(0.4 * shares["flops"])
    assert (chained["cost"], chained["target"]) == (chained["cost_params"], chained["target_params"])
    assert chained["cost"] == pytest.approx(0.6 * shares["params"])
    assert morph.Structure.from_json(both.to_json()) == both


def test_chaining_unrelated_structures_is_refused():
    with pytest.raises(morph.MorphError, match="not found on the first one's network: its group 'd1'"):
        morph.chain(SOME, random_structure(morph.ChannelGraph.from_model(mlp()), 0.5))


def test_an_unknown_group_is_refused_with_the_known_ones():
    with pytest.raises(morph.MorphError, match=r"Group 'stemm' cannot be given a width.*stem"):
        morph.describe(GRAPH, {"stemm": 3})
    with pytest.raises(morph.MorphError, match=r"Group 'head' cannot .*: it is an output of the model"):
        morph.describe(GRAPH, {"head": 3})
