"""The MorphTrainer component: examples and a module file go in, the learned structure of the network comes out.

The search trains the user's own network with gates on its channels, under a price on their cost, and keeps the channels
that earn it. The weights are thrown away unless `keep_weights` is set; Retrainer trains the structure from scratch.
Cycles are unrolled: a MorphTrainer whose `structure` is the output of another continues from there.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.system_executions import Train

from ..structure_exporter import MorphStructure
from ..training import spec as training_spec
from ..training.custom_config import with_flag
from ..training.user_module import package_user_module
from .executor import Executor
from .goal import Goal


class MorphTrainerSpec(ComponentSpec):
    """Inputs, outputs and parameters of `MorphTrainer`."""

    PARAMETERS: ClassVar = {
        **training_spec.PARAMETERS,
        "cost": ExecutionParameter(type=str),
        "target": ExecutionParameter(type=float, optional=True),
        "target_by_cost": ExecutionParameter(type=str, optional=True),
        "budget": ExecutionParameter(type=float, optional=True),
        "budget_by_cost": ExecutionParameter(type=str, optional=True),
        "strength": ExecutionParameter(type=float, optional=True),
        "gate": ExecutionParameter(type=str),
        "expand_to": ExecutionParameter(type=float, optional=True),
        "multiple_of": ExecutionParameter(type=str, optional=True),
        "min_channels": ExecutionParameter(type=str, optional=True),
    }
    # Inputs and outputs share one name space, so the structure to start from cannot be called "structure" too.
    INPUTS: ClassVar = {**training_spec.INPUTS, "seed_structure": ChannelParameter(type=MorphStructure, optional=True)}
    OUTPUTS: ClassVar = {
        "structure": ChannelParameter(type=MorphStructure),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
    }
    TYPE_ANNOTATION = Train


class MorphTrainer(base_component.BaseComponent):
    """Learns how wide every layer of the user's network should be, under a budget.

    ```python
    search = MorphTrainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        module_file="my_model.py",
        target=0.5,
        expand_to=1.0,
        train_args=trainer_pb2.TrainArgs(num_steps=2000),
    )
    ```

    Outputs:

    - `structure`: a `MorphStructure`, with the report.
    - `model_run`: TensorBoard logs of the search.
    """

    SPEC_CLASS = MorphTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel | None = None,
        schema: types.BaseChannel | None = None,
        module_file: str | RuntimeParameter | None = None,
        module_path: str | RuntimeParameter | None = None,
        structure: types.BaseChannel | None = None,
        hyperparameters: types.BaseChannel | None = None,
        cost: str | RuntimeParameter = "flops",
        target: float | Mapping[str, float] | RuntimeParameter | None = None,
        budget: float | Mapping[str, float] | RuntimeParameter | None = None,
        strength: float | RuntimeParameter | None = None,
        gate: str | RuntimeParameter = "auto",
        expand_to: float | RuntimeParameter | None = None,
        multiple_of: int | Mapping[str, int] | RuntimeParameter | None = None,
        min_channels: int | Mapping[str, int] | RuntimeParameter | None = None,
        train_args: trainer_pb2.TrainArgs | RuntimeParameter | None = None,
        eval_args: trainer_pb2.EvalArgs | RuntimeParameter | None = None,
        custom_config: dict[str, Any] | RuntimeParameter | None = None,
        keep_weights: bool = False,
    ):
        """Constructs the component.

        Args:
            examples: channel of `Examples`, transformed or raw.
            transform_graph: channel of `TransformGraph`, when the examples are transformed; `input_fn` then receives a
                `tft.TFTransformOutput` as its `spec`.
            schema: channel of `Schema`, when there is no transform_graph; then `spec` is the schema.
            module_file: path of the user's Python file with `build_model` and `input_fn`; packed into a wheel when the
                pipeline is compiled, as TFX's Trainer does. Exactly one of module_file and module_path.
            module_path: an importable module with the same functions.
            structure: channel of `MorphStructure` to start from: the cycle before this one.
            hyperparameters: channel of `HyperParameters` from a Tuner; its values go to `build_model`, over those of
                custom_config["hparams"].
            cost: what to bring down: `"flops"` (a multiply-add counts as 2), `"params"`, `"activation_memory"`, or
                `"latency:v100"`, where the device is one of `morph_core.DEVICES` or the path of a calibration file.
            target: fraction of the original seed's cost that may remain, in (0, 1], or several by name of cost, such as
                `{"flops": 0.5, "params": 0.6}`, all of which are kept. At most one of target and budget.
            budget: the same as absolute numbers. `{"latency_ms": 3.0}` is about the device in
                `cost="latency:DEVICE"`.
            strength: the paper's fixed regularisation factor, for a search without a target; beside one, where the
                price starts.
            gate: how channels are closed: `"gamma"` (L1 on BatchNormalization's scales) or, also for layers without
                BatchNormalization, `"logistic_sigmoid"` (FiGS), `"group_lasso"` or `"fisher"`; `"auto"` chooses, and
                the report says why.
            expand_to: widen the result by one factor until it costs this fraction of the original seed's cost; with
                several costs, until the first of them does.
            multiple_of: keep widths on multiples of so many channels, or, as a dict, those of the layers it names.
            min_channels: channels that each layer keeps, unless its branch goes whole; a number or numbers by layer. A
                `RuntimeParameter` of this and of multiple_of holds JSON, as does one of target or budget that is text.
            train_args: `splits` (default: train) and `num_steps`, the total number of steps of the search.
            eval_args: `splits` (default: eval) and `num_steps` of each validation; default: the whole split.
            custom_config: `epochs` and `batch_size` of the search, `hparams` for `build_model`, `cycle` to show,
                `checkpoint_dir` to continue from when the execution was killed.
            keep_weights: write the narrowed network's weights beside the structure, for a Retrainer with
                `warm_start=True`. Not with expand_to, since nobody trained the channels that it adds.

        Raises:
            MorphError: what can be seen to be wrong without data.
        """
        goal = Goal(cost, target, budget, strength, gate, expand_to, multiple_of, min_channels).check()
        shared = training_spec.arguments(
            component="MorphTrainer",
            examples=examples,
            transform_graph=transform_graph,
            schema=schema,
            hyperparameters=hyperparameters,
            module_file=module_file,
            module_path=module_path,
            train_args=train_args,
            eval_args=eval_args,
            custom_config=with_flag(custom_config, "keep_weights", keep_weights),
        )
        spec = MorphTrainerSpec(
            **shared,
            **goal.properties(),
            seed_structure=structure,
            structure=types.Channel(type=MorphStructure),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
        )
        super().__init__(spec=spec)
        package_user_module(self)
