"""The morph pipeline: ingest -> validate -> transform -> (shrink, expand) x cycles -> retrain -> evaluate -> push.

`morph_pipeline(config)` wires the components and runs nothing. The cycles are unrolled in the graph: `MorphTrainer-2`
starts from the structure that `MorphTrainer-1` found, so each cycle has its own artifact, is cached on its own, and a
run that was interrupted goes on where it stopped. The Retrainer trains the last structure from scratch; Evaluator
compares it with the bound in the configuration and with the latest blessed model; Pusher pushes it only when it passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow_model_analysis as tfma
from google.protobuf.message import Message
from tfx import v1 as tfx

from morph_tfx.components import MorphTrainer, Retrainer

from .baseline import LatestOtherBlessedModel
from .config import DataConfig, EvaluateConfig, PipelineConfig, TrainingConfig

LATEST_BLESSED = "latest blessed"
"""The baseline of a local run: looked up in ML metadata by a Resolver node."""


def cycle_id(cycle: int) -> str:
    """The node id of the MorphTrainer of a cycle, which is counted from 1."""
    return f"MorphTrainer-{cycle}"


def morph_pipeline(
    config: PipelineConfig, *, baseline: str | None = LATEST_BLESSED, training_platform: Message | None = None
) -> tfx.dsl.Pipeline:
    """Builds the pipeline of a configuration.

    Args:
        config: what `load_config` returned.
        baseline: the model that a new one is compared with, beside the absolute bound. `LATEST_BLESSED` looks it up
            with a Resolver; any other text is the URI of a model; None compares with nothing.
        training_platform: platform configuration (resources) of the MorphTrainer and Retrainer nodes.

    Returns:
        The pipeline, for any TFX runner. Run it with `local_runner`, compile it with `kubeflow_runner`.
    """
    example_gen = _example_gen(config.data)
    examples = example_gen.outputs["examples"]
    statistics = tfx.components.StatisticsGen(examples=examples)
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    validator = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    )
    transform = tfx.components.Transform(
        examples=examples, schema=schema.outputs["schema"], module_file=config.preprocessing_file
    )
    nodes: list[Any] = [example_gen, statistics, schema, validator, transform]

    data = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "module_file": config.module_file,
    }
    structure: Any = None
    for cycle, expand_to in enumerate(config.expansions, 1):
        trainer = MorphTrainer(
            **data,
            structure=structure,
            cost=config.cost,
            target=config.target,
            budget=config.budget,
            strength=config.strength,
            gate=config.gate,
            expand_to=expand_to,
            **_training(config.search, config.hparams, cycle=f"{cycle}/{config.cycles}"),
        ).with_id(cycle_id(cycle))
        structure = trainer.outputs["structure"]
        nodes.append(trainer)
    retrainer = Retrainer(**data, structure=structure, **_training(config.retrain, config.hparams))
    model = retrainer.outputs["model"]
    nodes.append(retrainer)
    if training_platform is not None:
        for node in nodes:
            if isinstance(node, (MorphTrainer, Retrainer)):
                node.with_platform_config(training_platform)

    baseline_model: dict[str, Any] = {}
    if baseline == LATEST_BLESSED:
        resolver = tfx.dsl.Resolver(
            strategy_class=LatestOtherBlessedModel,
            model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
            model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
            candidate=model,
        ).with_id("LatestBlessedModel")
        baseline_model = {"baseline_model": resolver.outputs["model"]}
        nodes.append(resolver)
    elif baseline is not None:
        importer = tfx.dsl.Importer(source_uri=baseline, artifact_type=tfx.types.standard_artifacts.Model).with_id(
            "BaselineModel"
        )
        baseline_model = {"baseline_model": importer.outputs["result"]}
        nodes.append(importer)
    evaluator = tfx.components.Evaluator(
        examples=examples,
        model=model,
        eval_config=eval_config(config.evaluate, config.label, compare=baseline is not None),
        **baseline_model,
    )
    pusher = tfx.components.Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=config.push_to)
        ),
    )
    nodes += [evaluator, pusher]

    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.pipeline_root,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(config.metadata),
        components=nodes,
        enable_cache=True,
        beam_pipeline_args=list(config.beam_args),
    )


def eval_config(evaluate: EvaluateConfig, label: str, *, compare: bool) -> tfma.EvalConfig:
    """What TFMA computes and what blesses a model: the absolute bound and, with `compare`, that on getting worse."""
    if evaluate.higher_is_better:
        bound, direction, sign = {"lower_bound": {"value": evaluate.lower_bound}}, "HIGHER_IS_BETTER", -1
    else:
        bound, direction, sign = {"upper_bound": {"value": evaluate.upper_bound}}, "LOWER_IS_BETTER", 1
    threshold = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(**bound))
    if compare:
        threshold.change_threshold.CopyFrom(
            tfma.GenericChangeThreshold(
                direction=getattr(tfma.MetricDirection, direction), absolute={"value": sign * evaluate.max_drop}
            )
        )
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key=label, prediction_key="outputs")],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name=evaluate.metric, threshold=threshold),
                    tfma.MetricConfig(class_name="ExampleCount"),
                ]
            )
        ],
    )


def _example_gen(data: DataConfig) -> Any:
    kind = tfx.components.ImportExampleGen if data.format == "tfrecord" else tfx.components.CsvExampleGen
    if data.splits is not None:
        splits = [tfx.proto.Input.Split(name=name, pattern=pattern) for name, pattern in sorted(data.splits.items())]
        return kind(input_base=data.path, input_config=tfx.proto.Input(splits=splits))
    # Hash buckets, in thousandths.
    eval_buckets = min(999, max(1, round(1000 * (data.eval_fraction or 0))))
    split = tfx.proto.SplitConfig.Split
    output = tfx.proto.Output(
        split_config=tfx.proto.SplitConfig(
            splits=[
                split(name="train", hash_buckets=1000 - eval_buckets),
                split(name="eval", hash_buckets=eval_buckets),
            ]
        )
    )
    return kind(input_base=data.path, output_config=output)


def _training(training: TrainingConfig, hparams: Mapping[str, Any], **display: str) -> dict[str, Any]:
    """The training length as MorphTrainer and Retrainer take it: steps are TFX's, epochs are in custom_config."""
    custom_config = {"batch_size": training.batch_size, "hparams": dict(hparams), **display}
    if training.steps is not None:
        return {"train_args": tfx.proto.TrainArgs(num_steps=training.steps), "custom_config": custom_config}
    return {"custom_config": {"epochs": training.epochs, **custom_config}}
