"""What the constructors of MorphTrainer and Retrainer share: inputs and parameters, as TFX's Trainer has them.

The checks here need no data, so a mistake in a pipeline file ends where the pipeline is built. A `RuntimeParameter` has
no value yet; the executor checks it again when it has.
"""

from typing import Any

from tfx import types
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils

from morph_core import MorphError

from .custom_config import check_custom_config

INPUTS = {
    "examples": ChannelParameter(type=standard_artifacts.Examples),
    "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph, optional=True),
    "schema": ChannelParameter(type=standard_artifacts.Schema, optional=True),
    "hyperparameters": ChannelParameter(type=standard_artifacts.HyperParameters, optional=True),
}

PARAMETERS = {
    "train_args": ExecutionParameter(type=trainer_pb2.TrainArgs),
    "eval_args": ExecutionParameter(type=trainer_pb2.EvalArgs),
    "module_file": ExecutionParameter(type=str, optional=True),
    "module_path": ExecutionParameter(type=str, optional=True),
    "custom_config": ExecutionParameter(type=str, optional=True),
}


def arguments(
    *,
    component: str,
    examples: types.BaseChannel,
    transform_graph: types.BaseChannel | None,
    schema: types.BaseChannel | None,
    hyperparameters: types.BaseChannel | None,
    module_file: str | RuntimeParameter | None,
    module_path: str | RuntimeParameter | None,
    train_args: trainer_pb2.TrainArgs | RuntimeParameter | None,
    eval_args: trainer_pb2.EvalArgs | RuntimeParameter | None,
    custom_config: dict[str, Any] | RuntimeParameter | None,
) -> dict[str, Any]:
    """Checks the shared constructor arguments and turns them into those of a `ComponentSpec`.

    Raises:
        MorphError: neither or both of `module_file` and `module_path`, neither `transform_graph` nor `schema`, or a
            wrong `custom_config`.
    """
    if bool(module_file) == bool(module_path):
        raise MorphError(
            f"{component} needs exactly one of module_file (the path of a Python file) and module_path (an importable "
            f"module); received module_file={module_file!r}, module_path={module_path!r}."
        )
    if not transform_graph and not schema:
        raise MorphError(
            f"{component} needs transform_graph=transform.outputs['transform_graph'] (with the transformed "
            "examples) or schema=schema_gen.outputs['schema'] (with raw examples); it received neither, so the "
            "examples cannot be parsed."
        )
    if not isinstance(custom_config, RuntimeParameter):
        check_custom_config(custom_config)
    return {
        "examples": examples,
        "transform_graph": transform_graph,
        "schema": schema,
        "hyperparameters": hyperparameters,
        "module_file": module_file,
        "module_path": module_path,
        "train_args": trainer_pb2.TrainArgs() if train_args is None else train_args,
        "eval_args": trainer_pb2.EvalArgs() if eval_args is None else eval_args,
        "custom_config": custom_config
        if isinstance(custom_config, RuntimeParameter)
        else json_utils.dumps(custom_config),
    }
