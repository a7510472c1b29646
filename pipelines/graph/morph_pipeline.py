"""The morph pipeline: ingest -> validate -> transform -> (shrink, expand) x cycles -> retrain -> evaluate -> push.

`morph_pipeline(config)` wires the components and runs nothing. The cycles are unrolled in the graph: `MorphTrainer-2`
starts from the structure that `MorphTrainer-1` found, so each cycle has its own artifact, is cached on its own, and a
run that was interrupted goes on where it stopped. The Retrainer trains the last structure, from scratch or, with
`warm_start`, from the weights of its search. With `finish: in_place` there is none, and the last MorphTrainer trains
its network to the end itself. Evaluator compares the model with the bound in the configuration and with the latest
blessed model; Pusher pushes it only when it passed. With `finish: both` there are two models of the one structure, each
with an Evaluator, and Frontier hands the better one of those that passed to Pusher. With `calibrate` a device is
measured first, for `cost: latency`; with `export` the model that passed is also written for devices. With `compare` the
seed and uniform widths are trained and evaluated as well, to be looked at and never pushed.
"""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx

from morph_tfx.components import Frontier, MorphTrainer, Retrainer
from morph_tfx.components.frontier.component import Branch

from ..config import PipelineConfig
from . import stages
from .frontier_pipeline import FRONTIER, compare, frontier_pipeline


def cycle_id(cycle: int) -> str:
    """The node id of the MorphTrainer of a cycle, which is counted from 1."""
    return f"MorphTrainer-{cycle}"


def morph_pipeline(config: PipelineConfig, *, baseline: str | None = stages.LATEST_BLESSED) -> tfx.dsl.Pipeline:
    """Builds the pipeline of a configuration; with `budgets` it is that of `frontier_pipeline`.

    Args:
        config: what `load_config` returned.
        baseline: the model that a new one is compared with, beside the absolute bound. `stages.LATEST_BLESSED` looks it
            up with a Resolver; any other text is the path or address of a model; None compares with nothing.
            With `budgets` the networks are compared with each other, and with no baseline.

    Returns:
        The pipeline, for any TFX runner; `run_pipeline` runs it here, `compile_pipeline` makes a job of it.
    """
    if config.budgets is not None:
        return frontier_pipeline(config)
    data = stages.prepare(config)
    measured = stages.calibrate(config)
    search = stages.search(config, data, stages.calibration_of(measured))
    training: list[Any] = list(search)
    if config.finish != "in_place":
        retrainer = Retrainer(
            **data.arguments,
            structure=search[-1].outputs["structure"],
            warm_start=config.retrain.warm_start,
            **stages.training(config, config.retrain),
        )
        training.append(retrainer)
    if config.finish == "both":
        push = _push_the_better(config, data, search[-1], training[-1], baseline)
    else:
        push = stages.evaluate_and_push(config, data, training[-1].outputs["model"], baseline)
    compared = compare(config, data, stages.calibration_of(measured))
    for node in compared:  # what is only compared with delays no push, and a failure there spoils none
        node.add_upstream_nodes(push)
    return stages.assemble(config, config.name, [*data.nodes, *measured, *training, *push, *compared])


def _push_the_better(
    config: PipelineConfig,
    data: stages.Data,
    search: MorphTrainer,
    retrainer: Retrainer,
    baseline: str | None,
) -> list[Any]:
    """Evaluates the model of the search and that of the retraining alike, and pushes the better one that passed."""
    models = {"in place": search.outputs["model"], "from scratch": retrainer.outputs["model"]}
    nodes, compared_with = stages.find_baseline(config, baseline, *models.values())
    branches = []
    for label, model in models.items():
        evaluator = stages.evaluate(config, data.examples, model, compared_with)
        evaluator = evaluator.with_id(f"Evaluator-{label.replace(' ', '-')}")
        evaluation = evaluator.outputs["evaluation"]
        branches.append(Branch(label, "learned", model, evaluation, search.outputs["structure"]))
        nodes.append(evaluator)
    better = Frontier(
        branches, cost=config.cost, higher_is_better=config.evaluate.higher_is_better, max_cost=1.0
    ).with_id(FRONTIER)
    return [*nodes, better, *stages.deliver(config, data, better.outputs["model"], better.outputs["blessing"])]
