"""What Frontier takes and refuses; tests/e2e runs it on trained networks."""

import pytest
from tfx.types import Channel, standard_artifacts

from morph_core import MorphError
from morph_tfx.components import Frontier, MorphStructure
from morph_tfx.components.frontier.component import MOST_BRANCHES, Branch


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
