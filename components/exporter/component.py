"""The Exporter component: a model that may be pushed goes in, files for devices come out.

What Pusher copies answers serialized examples, in a server. A device runs the network alone, from a LiteRT or an ONNX
file. This component makes the network again from the user's module file and what the model carries (its structure and
its weights), writes it in each format that is asked for, and runs every file beside the network on real examples. One
that answers otherwise, loses accuracy or is slower is not kept, and the summary says why.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from morph_core.device.request import check_request

from ..training import spec as training_spec
from ..training.user_module import package_user_module
from .artifact import ExportedModel
from .executor import Executor


class ExporterSpec(ComponentSpec):
    """Inputs, outputs and parameters of `Exporter`."""

    PARAMETERS: ClassVar = {
        **{name: value for name, value in training_spec.PARAMETERS.items() if name != "train_args"},
        "formats": ExecutionParameter(type=str),
        "tolerances": ExecutionParameter(type=str, optional=True),
        "max_accuracy_loss": ExecutionParameter(type=float, optional=True),
        "batch_size": ExecutionParameter(type=int),
        "keep_slower": ExecutionParameter(type=int),
    }
    INPUTS: ClassVar = {
        **training_spec.INPUTS,
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing, optional=True),
    }
    OUTPUTS: ClassVar = {"exported_model": ChannelParameter(type=ExportedModel)}


class Exporter(base_component.BaseComponent):
    """Writes a trained network in the formats that devices run, and keeps what is right.

    ```python
    exporter = Exporter(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        module_file="my_model.py",
        formats=["litert", "litert-int8"],
    )
    ```

    Outputs:

    - `exported_model`: an `ExportedModel`, the files with a summary of what each was measured to be. Without a blessing
      it holds the summary alone, which says so.
    """

    SPEC_CLASS = ExporterSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel | None = None,
        schema: types.BaseChannel | None = None,
        model_blessing: types.BaseChannel | None = None,
        module_file: str | RuntimeParameter | None = None,
        module_path: str | RuntimeParameter | None = None,
        hyperparameters: types.BaseChannel | None = None,
        formats: Sequence[str] = ("litert",),
        tolerances: Mapping[str, float] | None = None,
        max_accuracy_loss: float | None = None,
        batch_size: int = 1,
        keep_slower: bool = False,
        eval_args: trainer_pb2.EvalArgs | RuntimeParameter | None = None,
        custom_config: dict[str, Any] | RuntimeParameter | None = None,
    ):
        """Constructs the component.

        Args:
            model: channel of `Model`: of Retrainer, of MorphTrainer with `finish="in_place"`, or of Frontier.
            examples: channel of `Examples`, the same that the model was trained on: those of the evaluation split are
                run, and give the ranges of whole-number formats.
            transform_graph: channel of `TransformGraph`, when the examples are transformed.
            schema: channel of `Schema`, when there is no transform_graph.
            model_blessing: channel of `ModelBlessing`, from Evaluator or Frontier: a model that is not blessed is not
                exported, as Pusher does not push it. Without it every model is.
            module_file: path of the user's Python file, the same that the model was trained by. Exactly one of
                module_file and module_path.
            module_path: an importable module with the same functions.
            hyperparameters: channel of `HyperParameters` from a Tuner, the same that the training was given.
            formats: names in `morph_core.device.request.FORMATS`: "litert", "litert-float16", "litert-dynamic",
                "litert-int8" and "onnx".
            tolerances: by format, how far its outputs may be off, as a share of the largest; else the format's own.
            max_accuracy_loss: how much less accurate than the model a file may be, such as 0.01; for models with a
                score for each class.
            batch_size: that the files are made for and timed with.
            keep_slower: keep files that are slower than the model where this runs, which is seldom the device.
            eval_args: `splits` to take examples from; default: eval.
            custom_config: `hparams` for `build_model`; other keys are those of the trainers and have no effect.

        Raises:
            MorphError: what can be seen to be wrong without data.
        """
        check_request(formats, tolerances, max_accuracy_loss, batch_size)
        shared = training_spec.arguments(
            component="Exporter",
            examples=examples,
            transform_graph=transform_graph,
            schema=schema,
            hyperparameters=hyperparameters,
            module_file=module_file,
            module_path=module_path,
            train_args=None,
            eval_args=eval_args,
            custom_config=custom_config,
        )
        del shared["train_args"]
        spec = ExporterSpec(
            **shared,
            model=model,
            model_blessing=model_blessing,
            formats=json.dumps(list(formats)),
            tolerances=json.dumps(dict(tolerances)) if tolerances else None,
            max_accuracy_loss=None if max_accuracy_loss is None else float(max_accuracy_loss),
            batch_size=batch_size,
            keep_slower=int(keep_slower),
            exported_model=types.Channel(type=ExportedModel),
        )
        super().__init__(spec=spec)
        package_user_module(self)
