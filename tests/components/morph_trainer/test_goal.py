"""What a search is asked for, between the constructor, the execution properties and the core."""

import pytest

import morph_core as morph
from morph_tfx.components.morph_trainer.goal import Goal


def test_a_goal_survives_its_execution_properties_and_later_cycles_count_in_the_original_seed():
    goal = Goal("flops", {"flops": 0.5, "params": 0.6}, multiple_of={"a": 8, "gone": 4}, min_channels=2)
    properties = {name: value for name, value in goal.properties().items() if value is not None}
    assert all(isinstance(value, (str, float)) for value in properties.values())
    assert Goal.from_properties(properties) == goal
    seed = {"flops": 1000.0, "params": 100.0}
    assert goal.search_arguments(seed, seed)["target"] == {"flops": 0.5, "params": 0.6}
    later = goal.search_arguments(seed, {"flops": 800.0, "params": 50.0}, removed=["gone"])
    assert later["budget"] == {"flops": 500.0, "params": 60.0}
    assert later["multiple_of"] == {"a": 8}
    with pytest.raises(morph.MorphError, match=r"allows 500 flops and 60 params, but .* needs only 400 .* and 50 "):
        goal.search_arguments(seed, {"flops": 400.0, "params": 50.0})
    evenly = Goal(target=0.5, min_channels="uniform")
    assert Goal.from_properties(evenly.properties()).check() == evenly
    assert evenly.search_arguments(seed, seed)["min_channels"] == "uniform"
    assert Goal("latency:v100", budget={"latency_ms": 3.0}).asked == {"cost": "latency:v100", "budget": 3.0}
