"""The Retrainer component: a learned structure and examples go in, an ordinary trained model comes out.

The network of the user's module file is built with the structure's widths and trained from fresh weights (or, with
`warm_start`, from those of the search), without any regulariser of ours. The model is exported as TFX's Trainer exports
one, so Evaluator, InfraValidator, BulkInferrer and Pusher take it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec
from tfx.types.system_executions import Train

from ..structure_exporter import MorphStructure
from ..training import spec as training_spec
from ..training.custom_config import check_distillation, with_flag
from ..training.user_module import package_user_module
from .executor import Executor, check_teacher_given


class RetrainerSpec(ComponentSpec):
    """Inputs, outputs and parameters of `Retrainer`."""

    PARAMETERS: ClassVar = training_spec.PARAMETERS
    INPUTS: ClassVar = {
        **training_spec.INPUTS,
        "structure": ChannelParameter(type=MorphStructure),
        "teacher": ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS: ClassVar = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
    }
    TYPE_ANNOTATION = Train


class Retrainer(base_component.BaseComponent):
    """Trains a learned structure from scratch and exports the model.

    ```python
    trainer = Retrainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        structure=search.outputs["structure"],
        module_file="my_model.py",
        custom_config={"epochs": 20},
    )
    ```

    Outputs:

    - `model`: a SavedModel in TFX's `Model` layout. Unless the module file's `signatures` says otherwise, its signature
      `serving_default` takes serialized `tf.Example`s (`examples`: string (batch,)) and returns `outputs`. Another one,
      `raw_tensors` or with a transform_graph `transformed_tensors`, takes the model's inputs by name. Custom
      properties say which structure it has and what it costs; the SavedModel itself carries that structure and the
      schema of the raw examples in `assets.extra/`.
    - `model_run`: TensorBoard logs.
    """

    SPEC_CLASS = RetrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        structure: types.BaseChannel,
        transform_graph: types.BaseChannel | None = None,
        schema: types.BaseChannel | None = None,
        module_file: str | RuntimeParameter | None = None,
        module_path: str | RuntimeParameter | None = None,
        hyperparameters: types.BaseChannel | None = None,
        train_args: trainer_pb2.TrainArgs | RuntimeParameter | None = None,
        eval_args: trainer_pb2.EvalArgs | RuntimeParameter | None = None,
        custom_config: dict[str, Any] | RuntimeParameter | None = None,
        warm_start: bool = False,
        teacher: types.BaseChannel | None = None,
        distill: Mapping[str, float] | None = None,
    ):
        """Constructs the component.

        Args:
            examples: channel of `Examples`, transformed or raw.
            structure: channel of `MorphStructure`, from MorphTrainer or an importer.
            transform_graph: channel of `TransformGraph`, when the examples are transformed.
            schema: channel of `Schema`, when there is no transform_graph.
            module_file: path of the user's Python file, the same that MorphTrainer was given. Exactly one of
                module_file and module_path.
            module_path: an importable module with the same functions.
            hyperparameters: channel of `HyperParameters` from a Tuner, the same that MorphTrainer was given.
            train_args: `splits` (default: train) and `num_steps`, the total number of steps.
            eval_args: `splits` (default: eval) and `num_steps` of each validation; default: the whole split.
            custom_config: `epochs`, `batch_size`, `hparams` for `build_model`, and `checkpoint_dir` to continue from
                when the execution was killed.
            warm_start: start from the weights that a MorphTrainer with `keep_weights=True` left beside the structure,
                with the statistics of BatchNormalization estimated anew, instead of from fresh ones.
            teacher: channel of a `Model` with the network's inputs and outputs, such as that of the unpruned network.
                The student also learns to answer as it does (distillation, Hinton et al. 2015, arXiv 1503.02531). A
                SavedModel with a signature that takes the network's inputs, as MorphTrainer and Retrainer write it.
                After Transform it is asked about transformed examples, so it must have been trained with the same
                transform_graph: vocabularies and scales of another one would mean other things.
            distill: how it is listened to: a dict with some of "temperature" (3) and "weight" of the teacher beside the
                labels (0.5). Only with a teacher.

        Raises:
            MorphError: what can be seen to be wrong without data.
        """
        check_distillation(distill, "distill")
        config = with_flag(custom_config, "distill", distill if distill is None else dict(distill))
        if not isinstance(config, RuntimeParameter):
            check_teacher_given(config, teacher is not None)
        shared = training_spec.arguments(
            component="Retrainer",
            examples=examples,
            transform_graph=transform_graph,
            schema=schema,
            hyperparameters=hyperparameters,
            module_file=module_file,
            module_path=module_path,
            train_args=train_args,
            eval_args=eval_args,
            custom_config=with_flag(config, "warm_start", warm_start),
        )
        spec = RetrainerSpec(
            **shared,
            structure=structure,
            teacher=teacher,
            model=types.Channel(type=standard_artifacts.Model),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
        )
        super().__init__(spec=spec)
        package_user_module(self)
