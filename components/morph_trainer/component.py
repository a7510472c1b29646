"""The MorphTrainer component: examples and a module file go in, the learned structure of the network comes out.

The search trains the user's own network with gates on its channels, under a price on their cost, and keeps the channels
that earn it. With `finish="in_place"` it takes the first part of the epochs only; the network is then cut, trained to
the end in the same run, and comes out as a model, so that the component stands where TFX's Trainer stood. Otherwise the
weights are thrown away unless `keep_weights` is set, and Retrainer trains the structure from scratch. Cycles are
unrolled: a MorphTrainer whose `structure` is the output of another continues from there.
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

from morph_core import MorphError
from morph_core.structure.choices import Floors, Multiples

from ..artifacts.calibration import DeviceCalibration
from ..structure_exporter import MorphStructure
from ..training import spec as training_spec
from ..training.custom_config import check_distillation, with_flag
from ..training.inputs import DEFAULT_EPOCHS
from ..training.user_module import package_user_module
from . import in_place
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
        "search_fraction": ExecutionParameter(type=float, optional=True),
    }
    # Inputs and outputs share one name space, so the structure to start from cannot be called "structure" too.
    INPUTS: ClassVar = {
        **training_spec.INPUTS,
        "seed_structure": ChannelParameter(type=MorphStructure, optional=True),
        "calibration": ChannelParameter(type=DeviceCalibration, optional=True),
    }
    OUTPUTS: ClassVar = {
        "structure": ChannelParameter(type=MorphStructure),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "model": ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    TYPE_ANNOTATION = Train


class _Outputs(dict[str, Any]):
    """The outputs of a MorphTrainer without a model; who expects one, as of a Trainer, is told how to get it."""

    def __missing__(self, name: str) -> Any:
        if name != "model":
            raise KeyError(name)
        raise MorphError(
            "This MorphTrainer has no output 'model': with finish='from_scratch' its result is a structure. Give it "
            "finish='in_place', or take the model of a Retrainer."
        )


class MorphTrainer(base_component.BaseComponent):
    """Learns how wide every layer of the user's network should be, under a budget.

    ```python
    search = MorphTrainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        module_file="my_model.py",
        target=0.5,
        finish="in_place",
        train_args=trainer_pb2.TrainArgs(num_steps=6000),
    )
    evaluator = Evaluator(model=search.outputs["model"], ...)
    ```

    Outputs:

    - `structure`: a `MorphStructure`, with the report.
    - `model_run`: TensorBoard logs of the run.
    - `model`, with `finish="in_place"` only: the trained network, as Retrainer's `model` is. Otherwise there is no such
      output, so nothing can be connected to a model that nobody has trained.
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
        calibration: types.BaseChannel | None = None,
        cost: str | RuntimeParameter = "flops",
        target: float | Mapping[str, float] | RuntimeParameter | None = None,
        budget: float | Mapping[str, float] | RuntimeParameter | None = None,
        strength: float | RuntimeParameter | None = None,
        gate: str | RuntimeParameter = "auto",
        expand_to: float | RuntimeParameter | None = None,
        multiple_of: Multiples | RuntimeParameter | None = None,
        min_channels: Floors | RuntimeParameter | None = None,
        train_args: trainer_pb2.TrainArgs | RuntimeParameter | None = None,
        eval_args: trainer_pb2.EvalArgs | RuntimeParameter | None = None,
        custom_config: dict[str, Any] | RuntimeParameter | None = None,
        keep_weights: bool = False,
        finish: str = in_place.FROM_SCRATCH,
        search_fraction: float | RuntimeParameter | None = None,
        distill: bool | Mapping[str, float] = False,
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
            calibration: channel of `DeviceCalibration`, from a DeviceCalibrator: `"latency"` by itself is then what was
                measured there.
            cost: what to bring down: `"flops"` (a multiply-add counts as 2), `"params"`, `"activation_memory"`,
                `"latency"` with a calibration, or `"latency:v100"`, where the device is one of `morph_core.DEVICES` or
                the path of a calibration file.
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
            multiple_of: keep widths on multiples of so many channels, or, as a dict, those of the layers it names;
                "auto" takes the number from a measured latency.
            min_channels: channels that each layer keeps, unless its branch goes whole; a number or numbers by layer, or
                "uniform": what it has when all layers are narrowed alike to the budget. A `RuntimeParameter` of this
                and of multiple_of holds JSON, as does one of target or budget that is text.
            train_args: `splits` (default: train) and `num_steps`, the total number of steps.
            eval_args: `splits` (default: eval) and `num_steps` of each validation; default: the whole split.
            custom_config: `epochs` (of the whole run) and `batch_size`, `hparams` for `build_model`, `cycle` to show,
                `checkpoint_dir` to continue from when the execution was killed.
            keep_weights: write the narrowed network's weights at the end of the run beside the structure, for a
                Retrainer with `warm_start=True`. Not with expand_to, since nobody trained the channels that it adds.
            finish: `"from_scratch"`: the structure is the result, and a Retrainer makes a model of it. `"in_place"`:
                the network is cut in the middle of the run, keeps its weights, and is trained to the end; it is the
                output `model`. Not with expand_to, nor with the strategy "multi_worker_mirrored".
            search_fraction: with `"in_place"`, the part of the epochs that the search takes, to the nearest whole
                epoch; a quarter by default.
            distill: with `"in_place"`, True or a dict with some of "temperature" (3) and "weight" (0.5): the network
                that is cut also learns to answer as the seed did at that moment, after the search's epochs only: a weak
                teacher, so compare. See `StructureSearch`.

        Raises:
            MorphError: what can be seen to be wrong without data.
        """
        fraction = in_place.fraction_asked_for(finish, search_fraction)
        goal = Goal(cost, target, budget, strength, gate, expand_to, multiple_of, min_channels, fraction)
        goal.check(calibrated=calibration is not None)
        check_distillation(distill, "distill")
        taught = with_flag(custom_config, "distill", dict(distill) if isinstance(distill, Mapping) else distill)
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
            custom_config=with_flag(taught, "keep_weights", keep_weights),
        )
        if not isinstance(custom_config, RuntimeParameter):
            in_place.check(goal, taught, (custom_config or {}).get("epochs") or DEFAULT_EPOCHS)
        spec = MorphTrainerSpec(
            **shared,
            **goal.properties(),
            seed_structure=structure,
            calibration=calibration,
            structure=types.Channel(type=MorphStructure),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
            model=None if fraction is None else types.Channel(type=standard_artifacts.Model),
        )
        if fraction is None:
            spec.outputs = _Outputs(spec.outputs)
        super().__init__(spec=spec)
        package_user_module(self)
