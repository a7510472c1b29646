"""The stages that the pipelines share: from files to transformed examples, and from a trained model to a push.

Nodes come in an order that runs. What a pipeline does in between, search or retrain, is its own matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow_model_analysis as tfma
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.components.base import base_beam_component

from morph_tfx.components import DeviceCalibrator, Exporter, ImportedModel, MorphTrainer

from ..config import DataConfig, EvaluateConfig, PipelineConfig, TrainingConfig
from ..config.location import only_the_launcher_reads
from .baseline import LatestOtherBlessedModel
from .pusher import Pusher
from .transform import LABEL, Transform

LATEST_BLESSED = "latest blessed"
"""The baseline of a local run: looked up in ML metadata by a Resolver node."""


@dataclass(frozen=True)
class Data:
    """The examples on their way into training.

    Attributes:
        nodes: that read, validate and transform them.
        examples: channel of the raw examples, which Evaluator takes.
        arguments: of MorphTrainer and Retrainer that say what to train on and with whose code.
    """

    nodes: list[Any]
    examples: types.BaseChannel
    arguments: dict[str, Any]


def prepare(config: PipelineConfig, schema: types.BaseChannel | None = None) -> Data:
    """Reads the examples, validates and transforms them.

    Args:
        config: of the pipeline.
        schema: channel of the `Schema` to validate against and to parse by. Without it SchemaGen infers one from the
            examples themselves.
    """
    example_gen = _example_gen(config.data)
    examples = example_gen.outputs["examples"]
    statistics = tfx.components.StatisticsGen(examples=examples)
    nodes: list[Any] = [example_gen, statistics]
    if schema is None:
        inferred = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
        nodes.append(inferred)
        schema = inferred.outputs["schema"]
    validator = tfx.components.ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema)
    # A column of a CSV file may be text, which nobody can see from here; the features of records have their types.
    transform = Transform(
        examples=examples,
        schema=schema,
        module_file=config.preprocessing_file,
        custom_config={LABEL: config.label} if config.data.format == "csv" else None,
    )
    arguments = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "module_file": config.module_file,
    }
    return Data([*nodes, validator, transform], examples, arguments)


def training(config: PipelineConfig, training: TrainingConfig, **display: str) -> dict[str, Any]:
    """What MorphTrainer and Retrainer are told of the training: steps are TFX's, all else is in custom_config.

    Args:
        config: of the pipeline.
        training: its `search` or `retrain`.
        display: further entries, to be shown.
    """
    custom_config: dict[str, Any] = {"batch_size": training.batch_size, **_shared(config), **display}
    if training.distribution is not None:
        custom_config["distribution"] = training.distribution.model_dump(mode="json", exclude_none=True)
    if training.mixed_precision:
        custom_config["mixed_precision"] = True
    if training.steps is not None:
        return {"train_args": tfx.proto.TrainArgs(num_steps=training.steps), "custom_config": custom_config}
    return {"custom_config": {"epochs": training.epochs, **custom_config}}


def _shared(config: PipelineConfig) -> dict[str, Any]:
    """What every step that builds the network has in its custom_config."""
    shared: dict[str, Any] = {"hparams": dict(config.hparams)}
    if config.checkpoint_dir is not None:
        shared["checkpoint_dir"] = config.checkpoint_dir
    return shared


def calibrate(config: PipelineConfig) -> list[DeviceCalibrator]:
    """The step that measures a device, where the configuration asks for one."""
    if config.calibrate is None:
        return []
    return [
        DeviceCalibrator(
            module_file=config.module_file,
            custom_config=_shared(config),
            **config.calibrate.model_dump(),
        )
    ]


def calibration_of(measured: Sequence[DeviceCalibrator]) -> types.BaseChannel | None:
    """The channel of what `calibrate` measures."""
    return measured[0].outputs["calibration"] if measured else None


def search(
    config: PipelineConfig, data: Data, calibration: types.BaseChannel | None = None, name: str = "MorphTrainer"
) -> list[MorphTrainer]:
    """The unrolled cycles of a search; each starts from the structure of the one before.

    With `finish: in_place` the last one trains its network to the end.

    Args:
        config: of the pipeline.
        data: what `prepare` returned.
        calibration: what `calibration_of` returned.
        name: the node ids are this and the number of the cycle, from 1.
    """
    trainers: list[MorphTrainer] = []
    for cycle, expand_to in enumerate(config.expansions, 1):
        to_the_end = cycle == config.cycles and config.finish != "from_scratch"
        distill = config.search.distill if to_the_end else None
        trainer = MorphTrainer(
            **data.arguments,
            structure=trainers[-1].outputs["structure"] if trainers else None,
            calibration=calibration,
            cost=config.cost,
            target=config.target,
            budget=config.budget,
            strength=config.strength,
            multiple_of=config.multiple_of,
            min_channels=config.min_channels,
            gate=config.gate,
            expand_to=expand_to,
            keep_weights=config.search.keep_weights and cycle == config.cycles,
            finish="in_place" if to_the_end else "from_scratch",
            search_fraction=config.search_fraction if to_the_end else None,
            distill=False if distill is None else distill.model_dump(),
            **training(config, config.whole_run if to_the_end else config.search, cycle=f"{cycle}/{config.cycles}"),
        ).with_id(f"{name}-{cycle}")
        trainers.append(trainer)
    return trainers


def evaluate_and_push(
    config: PipelineConfig,
    data: Data,
    model: types.BaseChannel,
    baseline: str | types.BaseChannel | None,
) -> list[Any]:
    """Evaluates a model against the bound and the baseline, and delivers it when it passed.

    Args:
        config: of the pipeline.
        data: what `prepare` returned.
        model: channel of the model.
        baseline: `LATEST_BLESSED`, path or address of a model, a channel of one, or None to compare with nothing.
    """
    nodes, found = find_baseline(config, baseline, model)
    evaluator = evaluate(config, data.examples, model, found)
    blessing, evaluation = evaluator.outputs["blessing"], evaluator.outputs["evaluation"]
    return [*nodes, evaluator, *deliver(config, data, model, blessing, evaluation)]


def find_baseline(
    config: PipelineConfig, baseline: str | types.BaseChannel | None, *candidates: types.BaseChannel
) -> tuple[list[Any], types.BaseChannel | None]:
    """The nodes that find the model to compare with, and its channel.

    Args:
        config: of the pipeline.
        baseline: as `evaluate_and_push` takes it.
        candidates: channels of the models that are to be compared with it, which it must not be one of.
    """
    if baseline is None or isinstance(baseline, types.BaseChannel):
        return [], baseline
    if baseline == LATEST_BLESSED:
        names = ["candidate", *(f"candidate_{number}" for number in range(2, len(candidates) + 1))]
        resolver = tfx.dsl.Resolver(
            strategy_class=LatestOtherBlessedModel,
            config={"pipelines": list(config.pipeline_names)},
            model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
            **dict(zip(names, candidates, strict=True)),
        ).with_id("LatestBlessedModel")
        return [resolver], resolver.outputs["model"]
    node = read_or_imported(baseline, ImportedModel, tfx.types.standard_artifacts.Model).with_id("BaselineModel")
    return [node], node.outputs["result"]


def read_or_imported(place: str, component: Any, artifact_type: Any) -> Any:
    """The node that makes an artifact of what lies at a place, as its output `result`.

    A step reads it: Kubeflow's importer takes no path, and looks at nothing. What only the launcher can read is
    imported; it has to be an artifact of an earlier run.

    Args:
        place: a path or an address.
        component: the class of the step, such as `ImportedModel`.
        artifact_type: of the result.
    """
    if only_the_launcher_reads(place):
        return tfx.dsl.Importer(source_uri=place, artifact_type=artifact_type)
    return component(path=place)


def evaluate(
    config: PipelineConfig,
    examples: types.BaseChannel,
    model: types.BaseChannel,
    baseline: types.BaseChannel | None = None,
) -> Any:
    """Evaluates a model against the absolute bound and, where there is a baseline, against that."""
    return tfx.components.Evaluator(
        examples=examples,
        model=model,
        baseline_model=baseline,
        eval_config=eval_config(config.evaluate, config.label, compare=baseline is not None),
    )


def deliver(
    config: PipelineConfig,
    data: Data,
    model: types.BaseChannel,
    blessing: types.BaseChannel,
    evaluation: types.BaseChannel | None = None,
) -> list[Any]:
    """Pushes a model that is blessed and, where that is asked for, writes it for devices.

    Args:
        config: of the pipeline.
        data: what `prepare` returned.
        model: channel of the model.
        blessing: channel that says whether it may be pushed.
        evaluation: channel of what was measured of it, for its card; None where that is on the card already.
    """
    pusher = Pusher(
        model=model,
        model_blessing=blessing,
        evaluation=evaluation,
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=config.push_to)
        ),
    )
    if config.export is None:
        return [pusher]
    exporter = Exporter(
        **data.arguments,
        model=model,
        model_blessing=blessing,
        custom_config={"hparams": dict(config.hparams)},
        **config.export.model_dump(),
    )
    return [pusher, exporter]


def assemble(config: PipelineConfig, name: str, nodes: Sequence[Any]) -> tfx.dsl.Pipeline:
    """Makes a pipeline of nodes, each Beam step with its place."""
    for node in nodes:
        if isinstance(node, base_beam_component.BaseBeamComponent):
            node.with_beam_pipeline_args(config.beam.arguments_of(type(node).__name__))
    return tfx.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=config.pipeline_root,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(config.metadata),
        components=list(nodes),
        enable_cache=True,
        beam_pipeline_args=list(config.beam_pipeline_args),
    )


def eval_config(evaluate: EvaluateConfig, label: str, *, compare: bool) -> tfma.EvalConfig:
    """What TFMA computes and what blesses a model: the absolute bound and, with `compare`, that on getting worse.

    The bounds are on all examples together; slices are there to be read.
    """
    if evaluate.higher_is_better:
        bound, direction, sign = {"lower_bound": {"value": evaluate.lower_bound}}, "HIGHER_IS_BETTER", -1
    else:
        bound, direction, sign = {"upper_bound": {"value": evaluate.upper_bound}}, "LOWER_IS_BETTER", 1
    everything = tfma.SlicingSpec()
    threshold = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(**bound))
    if compare:
        threshold.change_threshold.CopyFrom(
            tfma.GenericChangeThreshold(
                direction=getattr(tfma.MetricDirection, direction), absolute={"value": sign * evaluate.max_drop}
            )
        )
    # By itself a threshold holds for every slice, and a slice of three examples would hold a good model back.
    bounded = (
        {"per_slice_thresholds": [tfma.PerSliceMetricThreshold(slicing_specs=[everything], threshold=threshold)]}
        if evaluate.slices
        else {"threshold": threshold}
    )
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key=label, prediction_key="outputs")],
        slicing_specs=[everything, *(tfma.SlicingSpec(feature_keys=[name]) for name in evaluate.slices)],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name=evaluate.metric, **bounded),
                    tfma.MetricConfig(class_name="ExampleCount"),
                ]
            )
        ],
    )


def source_of(data: DataConfig) -> dict[str, Any]:
    """Which files an ExampleGen reads, as its arguments say it."""
    splits = [tfx.proto.Input.Split(name=name, pattern=pattern) for name, pattern in sorted(data.patterns.items())]
    return {"input_base": data.path, "input_config": tfx.proto.Input(splits=splits)}


def _example_gen(data: DataConfig) -> Any:
    kind = tfx.components.ImportExampleGen if data.format == "tfrecord" else tfx.components.CsvExampleGen
    arguments = source_of(data)
    if data.eval_fraction is None:
        return kind(**arguments)
    # Hash buckets, in thousandths.
    eval_buckets = min(999, max(1, round(1000 * data.eval_fraction)))
    split = tfx.proto.SplitConfig.Split
    output = tfx.proto.Output(
        split_config=tfx.proto.SplitConfig(
            splits=[
                split(name="train", hash_buckets=1000 - eval_buckets),
                split(name="eval", hash_buckets=eval_buckets),
            ]
        )
    )
    return kind(**arguments, output_config=output)
