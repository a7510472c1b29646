"""What a run is summed up as; tests/e2e sums up real ones."""

import keras
import pytest
from rich.console import Console
from tfx.types import standard_artifacts as artifacts

import morph_core as morph
from morph_core.device.measure import Measured
from morph_tfx.components import MorphStructure
from morph_tfx.pipelines.local.result import RunResult, Step
from morph_tfx.pipelines.local.summary import show_summary
from tests.pipelines.conftest import made

ACCURACIES = {"Evaluator": 0.975, "Evaluator-uniform-50": 0.97, "Evaluator-seed": 0.98}


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """outcome(names) is a run that also trained what these names say."""
    inputs = keras.Input((4,))
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(8)(inputs))))
    monkeypatch.setattr(
        "morph_tfx.components.artifacts.evaluation.measured",
        lambda place: (
            {"accuracy": ACCURACIES[place.name], "accuracy_diff": 0.1, "example_count": 400.0}
            if place.name == "Evaluator"
            else {"accuracy": ACCURACIES[place.name], "example_count": 400.0}
        ),
    )

    def structure(node: str, target: float) -> Step:
        artifact = made(MorphStructure)
        artifact.uri = str(tmp_path / node)
        (tmp_path / node).mkdir()
        morph.uniform(graph, target=target).save(tmp_path / node / "structure.json")
        return Step(node, "ran", 1.0, {"structure": [artifact]})

    def trained(node: str, seconds: float) -> Step:
        run = made(artifacts.ModelRun)
        run.set_float_custom_property("training_seconds", seconds)
        return Step(node, "ran", 1.0, {"model_run": [run]})

    def evaluated(node: str) -> Step:
        evaluation = made(artifacts.ModelEvaluation)
        evaluation.uri = str(tmp_path / node)
        return Step(node, "ran", 1.0, {"evaluation": [evaluation], "blessing": [made(artifacts.ModelBlessing)]})

    def run(names: dict[str, float]) -> RunResult:
        pushed = made(artifacts.PushedModel, pushed=1, pushed_destination=str(tmp_path))
        steps = [
            structure("MorphTrainer-1", 0.4),
            trained("Retrainer", 30.0),
            evaluated("Evaluator"),
            Step("Pusher", "ran", 1.0, {"pushed_model": [pushed]}),
        ]
        for name, target in names.items():
            steps += [
                structure(f"UniformWidths-{name}", target),
                trained(f"Retrainer-{name}", 1000.0),
                evaluated(f"Evaluator-{name}"),
            ]
        return RunResult(tuple(steps), 1.0)

    return run


def summed_up(result, config) -> str:
    console = Console(record=True, width=140)
    show_summary(result, config, more=[("held out", "97.0%", "96.0%", "-1.0 points")], console=console)
    return console.export_text()


def row(text: str, start: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.strip("│ ").startswith(start)]
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_the_networks_that_are_compared_with_stand_between_seed_and_final_model(outcome, config):
    text = summed_up(outcome({"uniform-50": 0.5, "seed": 1.0}), config)
    titles = next(line for line in text.splitlines() if "┃" in line and "final" in line)
    assert [cell.strip() for cell in titles.split("┃")[2:-1]] == ["seed", "uniform 50 %", "final", "change"]
    assert row(text, "accuracy, 400 examples (± 0.0078)")[1:] == ["0.9800", "0.9700", "0.9750", "-0.0050"]
    assert row(text, "held out")[1:] == ["97.0%", "", "96.0%", "-1.0 points"]
    assert "accuracy_diff" not in "".join(line for line in text.splitlines() if "│" in line)


def test_they_are_neither_the_run_s_structures_nor_its_time(outcome):
    result = outcome({"uniform-50": 0.5, "seed": 1.0})
    assert [path.name for path in result.structures] == ["MorphTrainer-1"]
    assert result.training_seconds == 30.0
    assert list(result.references) == ["uniform-50", "seed"]


def test_what_the_clock_said_stands_beside_what_was_predicted(outcome, config):
    """From the structure's file, so also where all steps came from the cache."""
    result = outcome({})
    assert "latency" not in summed_up(result, config)
    file = result.structures[-1] / "structure.json"
    told = Measured(predicted=2.0, structure=2.5, seed=4.0, repeatability=0.03, on="xla, float32, batch 1, a phone")
    told.noted_in(morph.Structure.load(file)).save(file)
    text = " ".join(summed_up(result, config).split())
    assert "latency Measured: 2.5 ms per example, 25% more than the predicted 2 ms; the seed takes 4 ms." in text
    assert "Measurements repeat within 3% (xla, float32, batch 1, a phone)." in text


def test_without_them_seed_and_final_model_stand_alone(outcome, config):
    text = summed_up(outcome({}), config)
    assert "uniform" not in text and "accuracy, 400 examples" not in text
    assert "accuracy 0.975" in text
