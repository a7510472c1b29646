"""What Frontier takes and refuses; tests/e2e runs it on trained networks."""

import json
import pathlib
from types import SimpleNamespace

import pytest
from tfx.types import Channel, standard_artifacts

from morph_core import MorphError
from morph_tfx.components import Frontier, MorphStructure
from morph_tfx.components.frontier import executor
from morph_tfx.components.frontier.component import MOST_BRANCHES, Branch
from tests.components.conftest import DIGITS, HALF, channel, make, narrowed


def branch(label="learned 50 %", kind="learned"):
    return Branch(
        label,
        kind,
        Channel(type=standard_artifacts.Model),
        Channel(type=standard_artifacts.ModelEvaluation),
        Channel(type=MorphStructure),
    )


def test_a_frontier_has_three_inputs_a_branch_and_no_others():
    component = Frontier([branch(), branch("seed", "seed")], min_accuracy=0.9)
    assert sorted(component.inputs) == [
        "evaluation_0", "evaluation_1", "model_0", "model_1", "structure_0", "structure_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "rule", "said"),
    [
        (0, {"min_accuracy": 0.9}, "compares 1 to 41 networks; received 0"),
        (MOST_BRANCHES + 1, {"min_accuracy": 0.9}, "received 42"),
        (1, {}, "exactly one of min_accuracy and max_cost; received neither"),
        (1, {"min_accuracy": 0.9, "max_cost": 0.5}, "received both"),
    ],
)
def test_a_frontier_refuses_what_cannot_be(count, rule, said):
    with pytest.raises(MorphError, match=said):
        Frontier([branch()] * count, **rule)


def test_a_frontier_is_told_how_far_behind_uniform_widths_a_network_may_be():
    component = Frontier([branch()], min_accuracy=0.9, max_behind_uniform=0.01)
    assert component.exec_properties["max_behind_uniform"] == 0.01
    assert Frontier([branch()], min_accuracy=0.9).exec_properties["max_behind_uniform"] is None
    with pytest.raises(MorphError, match="max_behind_uniform is -1; expected a number of at least 0"):
        Frontier([branch()], min_accuracy=0.9, max_behind_uniform=-1)


def test_what_uniform_widths_beat_is_neither_blessed_nor_copied(run, tmp_path, monkeypatch):
    """By the number of examples that Evaluator counted: on 10,000 a tenth of a point more than chance explains."""
    monkeypatch.setattr(executor.tfma, "load_validation_result", lambda uri: SimpleNamespace(validation_ok=True))
    accuracies = {"learned": 0.9835, "uniform": 0.9858}
    branches = []
    for kind in accuracies:
        model = make(standard_artifacts.Model, tmp_path / kind / "model")
        (tmp_path / kind / "model").mkdir(parents=True)
        (tmp_path / kind / "model" / "weights").write_text(kind)
        evaluation = make(standard_artifacts.ModelEvaluation, tmp_path / kind / "evaluation")
        structure = narrowed(DIGITS, tmp_path / kind, **HALF)
        branches.append(Branch(f"{kind} 50 %", kind, channel(model), channel(evaluation), channel(structure)))
    for examples, chosen in ((10_000, False), (360, True)):
        monkeypatch.setattr(
            executor,
            "measured",
            lambda uri, n=examples: {"accuracy": accuracies[pathlib.Path(uri).parent.name], "example_count": float(n)},
        )
        found = run(Frontier(branches, max_cost=1.0), f"on {examples}")
        assert found["blessing"].get_int_custom_property("blessed") == chosen
        assert (pathlib.Path(found["model"].uri) / "weights").exists() == chosen
        content = json.loads((pathlib.Path(found["frontier"].uri) / "frontier.json").read_text())
        assert [point["behind_uniform"] for point in content["points"]] == [not chosen, False]
        assert [point["examples"] for point in content["points"]] == [examples, examples]
