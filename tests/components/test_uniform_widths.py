"""UniformWidths: a structure of the user's network within its target, and what is refused."""

import pytest

import morph_core as morph
from morph_core import MorphError
from morph_tfx.components import StructureExporter, UniformWidths
from morph_tfx.components.training import user_module


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
