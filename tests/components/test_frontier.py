"""UniformWidths by itself, and what Frontier refuses; tests/e2e runs both on trained networks."""

import pytest
from tfx.types import Channel, standard_artifacts

import morph_core as morph
from morph_core import MorphError
from morph_tfx.components import Frontier, MorphStructure, StructureExporter, UniformWidths
from morph_tfx.components.frontier.component import MOST_BRANCHES, Branch
from morph_tfx.components.training import user_module


def branch(label="learned 50 %", kind="learned"):
    return Branch(
        label,
        kind,
        Channel(type=standard_artifacts.Model),
        Channel(type=standard_artifacts.ModelEvaluation),
        Channel(type=MorphStructure),
    )


@pytest.mark.parametrize("target", [0.5, 1.0])
def test_uniform_widths_are_a_structure_of_the_users_network(run, module_file, target):
    module = module_file("digits")
    outputs = run(UniformWidths(target=target, module_file=module, custom_config={"hparams": {}}))
    graph = morph.ChannelGraph.from_model(user_module.load({"module_file": module}).seed({}))
    structure = StructureExporter(outputs["structure"]).read(graph)
    assert structure.costs["flops"]["structure"] <= target * structure.costs["flops"]["seed"]
    assert structure.costs["flops"]["structure"] > 0.8 * target * structure.costs["flops"]["seed"]
    assert outputs["structure"].get_float_custom_property("target") == target


def test_uniform_widths_keep_to_multiples_and_floors(run, module_file):
    module = module_file("digits")
    graph = morph.ChannelGraph.from_model(user_module.load({"module_file": module}).seed({}))
    outputs = run(UniformWidths(target=0.3, module_file=module, multiple_of=4, min_channels={graph.groups[0].name: 8}))
    groups = StructureExporter(outputs["structure"]).read(graph).groups
    assert all(group["width"] % 4 == 0 for group in groups.values())
    assert groups[graph.groups[0].name]["width"] >= 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"target": 0.5, "module_file": "a.py", "multiple_of": 0}, "UniformWidths: multiple_of is 0; expected a whole"),
        ({"target": 0.5}, "exactly one of module_file and module_path"),
        ({"target": 0.0, "module_file": "a.py"}, "expected a fraction above 0 and at most 1"),
        ({"target": 1.5, "module_file": "a.py"}, "expected a fraction above 0 and at most 1"),
        ({"target": 0.5, "module_file": "a.py", "custom_config": {"hparam": {}}}, "Did you mean 'hparams'"),
    ],
)
def test_uniform_widths_refuses_what_cannot_be(arguments, said):
    with pytest.raises(MorphError, match=said):
        UniformWidths(**arguments)


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
