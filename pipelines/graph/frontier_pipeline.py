"""The frontier pipeline: one branch for each budget, a comparison of all, and a push of the one that is asked for.

    data -+- search 25 % -> retrain -> evaluate -+
          +- search 50 % -> retrain -> evaluate -+-> Frontier -> push
          +- uniform 25 % -> retrain -> evaluate +
          +- uniform 50 % -> retrain -> evaluate +
          +- the seed     -> retrain -> evaluate +

The data steps are shared, the branches depend on nothing of each other, so Kubeflow runs them side by side. Networks of
uniform widths, one for each budget, and the seed are trained and evaluated exactly as the learned ones are; they are
there to compare with and are never pushed, and neither is a learned network that a uniform one of its cost beats. Every
learned network has to meet the bound of `evaluate` as well; there is no comparison with an earlier model, so `max_drop`
has no effect here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tfx import types
from tfx import v1 as tfx

from morph_tfx.components import Frontier, Retrainer, UniformWidths
from morph_tfx.components.frontier.component import Branch

from ..config import PipelineConfig, TrainingConfig
from . import stages

FRONTIER = "Frontier"
"""The node id of the comparison."""


@dataclass(frozen=True)
class Arm:
    """One network of the comparison, before it is built."""

    kind: Literal["learned", "uniform", "seed"]
    target: float

    @property
    def label(self) -> str:
        return "seed" if self.kind == "seed" else f"{self.kind} {100 * self.target:g} %"

    @property
    def name(self) -> str:
        """For node ids, which Kubeflow limits to letters, digits and '-'."""
        if self.kind == "seed":
            return "seed"
        percent = f"{100 * self.target:g}".replace(".", "p")
        return percent if self.kind == "learned" else f"uniform-{percent}"


def arms(config: PipelineConfig) -> list[Arm]:
    """The networks that a configuration with `budgets` compares, cheapest first, the seed last."""
    budgets = sorted(config.budgets or ())
    learned = [Arm("learned", budget) for budget in budgets]
    return [*learned, *(Arm("uniform", budget) for budget in budgets), Arm("seed", 1.0)]


def references(config: PipelineConfig) -> list[Arm]:
    """The networks that a configuration with `compare` trains beside its own; none without it."""
    if not config.compare:
        return []
    assert isinstance(config.target, float), "checked by the configuration"
    return [Arm("uniform", config.expansions[-1] or config.target), Arm("seed", 1.0)]


def compare(config: PipelineConfig, data: stages.Data, calibration: types.BaseChannel | None) -> list[Any]:
    """The nodes that train and evaluate what `references` names, as long as the final model is trained."""
    nodes: list[Any] = []
    for arm in references(config):
        widths = uniform_widths(config, arm, calibration)
        structure = widths.outputs["structure"]
        nodes += [widths, *train_and_evaluate(config, data, arm.name, structure, config.final_training)]
    return nodes


def uniform_widths(config: PipelineConfig, arm: Arm, calibration: types.BaseChannel | None) -> UniformWidths:
    """The node that narrows the seed evenly; by nothing where the arm is the seed."""
    return UniformWidths(
        target=arm.target,
        cost=config.cost,
        multiple_of=config.multiple_of,
        min_channels=None if config.min_channels == "uniform" else config.min_channels,
        module_file=config.module_file,
        custom_config={"hparams": dict(config.hparams)},
        calibration=calibration,
    ).with_id(f"UniformWidths-{arm.name}")


def train_and_evaluate(
    config: PipelineConfig, data: stages.Data, name: str, structure: types.BaseChannel, training: TrainingConfig
) -> tuple[Any, Any]:
    """The nodes that train a structure from scratch and evaluate what came of it, with no earlier model beside it."""
    retrainer = Retrainer(**data.arguments, structure=structure, **stages.training(config, training))
    retrainer = retrainer.with_id(f"Retrainer-{name}")
    evaluator = stages.evaluate(config, data.examples, retrainer.outputs["model"]).with_id(f"Evaluator-{name}")
    return retrainer, evaluator


def frontier_pipeline(config: PipelineConfig) -> tfx.dsl.Pipeline:
    """Builds the pipeline of a configuration with `budgets` and `choose`."""
    if config.budgets is None or config.choose is None:
        raise ValueError("a configuration with budgets and choose is expected")
    data = stages.prepare(config)
    measured = stages.calibrate(config)
    calibration = stages.calibration_of(measured)
    nodes: list[Any] = [*data.nodes, *measured]
    branches = []
    for arm in arms(config):
        if arm.kind == "learned":
            name = f"MorphTrainer-{arm.name}"
            makers: list[Any] = list(stages.search(config.at(arm.target), data, calibration, name))
        else:
            makers = [uniform_widths(config, arm, calibration)]
        structure = makers[-1].outputs["structure"]
        trained = train_and_evaluate(config, data, arm.name, structure, config.retrain)
        retrainer, evaluator = trained
        model = retrainer.outputs["model"]
        branches.append(Branch(arm.label, arm.kind, model, evaluator.outputs["evaluation"], structure))
        nodes += [*makers, *trained]
    frontier = Frontier(
        branches,
        cost=config.cost,
        higher_is_better=config.evaluate.higher_is_better,
        min_accuracy=config.choose.min_accuracy,
        max_cost=config.choose.max_cost,
        max_behind_uniform=config.choose.max_behind_uniform,
    ).with_id(FRONTIER)
    delivery = stages.deliver(config, data, frontier.outputs["model"], frontier.outputs["blessing"])
    return stages.assemble(config, config.name, [*nodes, frontier, *delivery])
