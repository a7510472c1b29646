"""Trains a learned structure, from fresh weights or its search's, and exports the model, whole or not at all."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

import morph_core as morph
from morph_core.search.distill import Lesson, distillation_of

from ..artifacts.model_assets import TRAINED_ON
from ..artifacts.staging import emptied_on_failure
from ..structure_exporter import StructureExporter
from ..training import checkpoints, distribution, loop, serving, teacher, trained_model
from ..training import inputs as training_inputs
from ..training.custom_config import custom_config_of
from ..training.progress import ProgressCallback

# Batches from which a warm start estimates the statistics of BatchNormalization: more change little, and take time.
_RECALIBRATION_STEPS = 100


class Executor(base_executor.BaseExecutor):
    """Executor of `Retrainer`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Trains and exports.

        Args:
            input_dict: `examples`, `structure`, `transform_graph` or `schema`, maybe `hyperparameters`, `teacher`.
            output_dict: `model` and `model_run`.
            exec_properties: those of `RetrainerSpec`.

        Raises:
            MorphError: what was given cannot be trained; raised before training starts, and nothing stays behind.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict["model"])
        config = custom_config_of(exec_properties)
        check_teacher_given(config, bool(input_dict.get("teacher")))
        with (
            distribution.training_scope(config, output_dict),
            emptied_on_failure(artifact_utils.get_single_uri(output_dict["model_run"])) as log_dir,
        ):
            inputs = training_inputs.read(input_dict, exec_properties)
            seed = inputs.module.seed(inputs.hparams)
            graph = morph.ChannelGraph.from_model(seed)
            inputs.check_labels(seed)
            source = artifact_utils.get_single_instance(input_dict["structure"])
            structure = StructureExporter(source).read(graph)
            model = morph.rebuild(seed, structure, weights="fresh")
            model.compile(**morph.compile_arguments(seed))
            inputs.check_fit(model)
            taught = _taught(model, input_dict.get("teacher"), config)
            if config.get("warm_start"):
                StructureExporter(source).read_weights(model)
                steps = min(inputs.steps_per_epoch, _RECALIBRATION_STEPS)
                renewed = morph.recalibrate(model, inputs.train, steps)
                print(f"Starting from the search's weights; {renewed} BatchNormalizations estimated anew.", flush=True)
            signatures = serving.signatures(model, inputs.spec, inputs.module)
            progress = ProgressCallback(task="retrain", epochs=inputs.epochs, steps_per_epoch=inputs.steps_per_epoch)
            checkpoint = checkpoints.place(self._context, input_dict, exec_properties, graph.fingerprint)
            identity = {"network": graph.fingerprint, "widths": structure.widths}
            with taught:
                results = loop.train(model, inputs, log_dir, progress, checkpoint, identity)
            looked_at = source.get_string_custom_property(TRAINED_ON)
            trained_model.write(artifact, model, signatures, structure, source.uri, inputs.spec, results, looked_at)
            loop.record_time(artifact_utils.get_single_instance(output_dict["model_run"]), progress)
            checkpoints.clear(checkpoint)
        print(f"Model: {path_utils.serving_model_dir(artifact.uri)}", flush=True)


def check_teacher_given(config: Mapping[str, Any] | None, given: bool) -> None:
    """Raises MorphError where a `custom_config` says how to listen to a teacher, and there is none."""
    asked = (config or {}).get("distill")
    if asked not in (None, False) and not given:
        raise morph.MorphError(
            f"distill={asked!r}, but this Retrainer has no teacher. Give it teacher=..., a channel of the Model that "
            "it is to learn from, or leave distill out."
        )


def _taught(
    model: keras.Model, teachers: list[Artifact] | None, config: Mapping[str, Any]
) -> contextlib.AbstractContextManager[None]:
    """While the block runs, the model is trained with its teacher, if there is one."""
    if not teachers:
        return contextlib.nullcontext()
    artifact = artifact_utils.get_single_instance(teachers)
    settings = distillation_of(config.get("distill") or True, "custom_config['distill']")
    assert settings is not None
    lesson = Lesson(settings, model, morph.compile_arguments(model))
    answers = teacher.read(artifact, model)
    print(
        f"Teacher: {artifact.uri} (temperature {settings.temperature:g}, weight {settings.weight:g} beside the labels)",
        flush=True,
    )
    return lesson.taught(model, answers)
