"""Trains a learned structure, from fresh weights or its search's, and exports the model, whole or not at all."""

from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

import morph_core as morph

from ..artifacts.staging import emptied_on_failure
from ..structure_exporter import StructureExporter
from ..training import checkpoints, distribution, loop, serving, trained_model
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
            input_dict: `examples`, `structure`, `transform_graph` or `schema`, maybe `hyperparameters`.
            output_dict: `model` and `model_run`.
            exec_properties: those of `RetrainerSpec`.

        Raises:
            MorphError: what was given cannot be trained; raised before training starts, and nothing stays behind.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict["model"])
        config = custom_config_of(exec_properties)
        with (
            distribution.training_scope(config, output_dict),
            emptied_on_failure(artifact_utils.get_single_uri(output_dict["model_run"])) as log_dir,
        ):
            inputs = training_inputs.read(input_dict, exec_properties)
            seed = inputs.module.seed(inputs.hparams)
            graph = morph.ChannelGraph.from_model(seed)
            source = artifact_utils.get_single_instance(input_dict["structure"])
            structure = StructureExporter(source).read(graph)
            model = morph.rebuild(seed, structure, weights="fresh")
            model.compile(**morph.compile_arguments(seed))
            inputs.check_fit(model)
            if config.get("warm_start"):
                StructureExporter(source).read_weights(model)
                steps = min(inputs.steps_per_epoch, _RECALIBRATION_STEPS)
                renewed = morph.recalibrate(model, inputs.train, steps)
                print(f"Starting from the search's weights; {renewed} BatchNormalizations estimated anew.", flush=True)
            signatures = serving.signatures(model, inputs.spec, inputs.module)
            progress = ProgressCallback(task="retrain", epochs=inputs.epochs, steps_per_epoch=inputs.steps_per_epoch)
            checkpoint = checkpoints.place(self._context, input_dict, exec_properties, graph.fingerprint)
            identity = {"network": graph.fingerprint, "widths": structure.widths}
            results = loop.train(model, inputs, log_dir, progress, checkpoint, identity)
            trained_model.write(artifact, model, signatures, structure, source.uri, inputs.spec, results)
            loop.record_time(artifact_utils.get_single_instance(output_dict["model_run"]), progress)
            checkpoints.clear(checkpoint)
        print(f"Model: {path_utils.serving_model_dir(artifact.uri)}", flush=True)
