"""The morph pipeline: ingest -> validate -> transform -> (shrink, expand) x cycles -> retrain -> evaluate -> push.

`morph_pipeline(config)` wires the components and runs nothing. The cycles are unrolled in the graph: `MorphTrainer-2`
starts from the structure that `MorphTrainer-1` found, so each cycle has its own artifact, is cached on its own, and a
run that was interrupted goes on where it stopped. The Retrainer trains the last structure from scratch; Evaluator
compares it with the bound in the configuration and with the latest blessed model; Pusher pushes it only when it passed.
"""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx

from morph_tfx.components import MorphTrainer, Retrainer

from . import stages
from .config import PipelineConfig


def cycle_id(cycle: int) -> str:
    """The node id of the MorphTrainer of a cycle, which is counted from 1."""
    return f"MorphTrainer-{cycle}"


def morph_pipeline(config: PipelineConfig, *, baseline: str | None = stages.LATEST_BLESSED) -> tfx.dsl.Pipeline:
    """Builds the pipeline of a configuration.

    Args:
        config: what `load_config` returned.
        baseline: the model that a new one is compared with, beside the absolute bound. `stages.LATEST_BLESSED` looks it
            up with a Resolver; any other text is the URI of a model; None compares with nothing.

    Returns:
        The pipeline, for any TFX runner. Run it with `local_runner`, compile it with `kubeflow_runner`.
    """
    data = stages.prepare(config)
    nodes = data.nodes
    structure: Any = None
    for cycle, expand_to in enumerate(config.expansions, 1):
        trainer = MorphTrainer(
            **data.arguments,
            structure=structure,
            cost=config.cost,
            target=config.target,
            budget=config.budget,
            strength=config.strength,
            gate=config.gate,
            expand_to=expand_to,
            **stages.training(config.search, config.hparams, cycle=f"{cycle}/{config.cycles}"),
        ).with_id(cycle_id(cycle))
        structure = trainer.outputs["structure"]
        nodes.append(trainer)
    retrainer = Retrainer(**data.arguments, structure=structure, **stages.training(config.retrain, config.hparams))
    model = retrainer.outputs["model"]
    nodes.append(retrainer)
    nodes += stages.evaluate_and_push(config, data.examples, model, baseline)
    return stages.assemble(config, config.name, nodes)
