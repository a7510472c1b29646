"""What the constructors of MorphTrainer and Retrainer share: inputs and parameters, as TFX's Trainer has them.

The checks here need no data, so a mistake in a pipeline file ends where the pipeline is built. A `RuntimeParameter` has
no value yet; the executor checks it again when it has.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from tfx import types
from tfx.components.util import udf_utils
from tfx.dsl.components.base import base_component
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils

from morph_core import MorphError

from . import distribution
from .custom_config import custom_config_of

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

CUSTOM_CONFIG = {
    "epochs": "how many times the training split is read, or, with train_args.num_steps, in how many parts the "
    "steps are cut",
    "batch_size": "examples per step",
    "hparams": "a dict, handed to build_model",
    "cycle": "such as '1/2', shown in the progress",
    "distribution": "a dict such as {'strategy': 'mirrored'}, over which devices to train",
    "mixed_precision": "true to compute in bfloat16",
    "checkpoint_dir": "a directory or URI that survives a killed execution; each execution has a subdirectory there",
    "keep_weights": "true, of a MorphTrainer, to write the search's weights beside the structure",
    "warm_start": "true, of a Retrainer, to start from such weights",
    "allow_uncounted": "true, of a MorphTrainer, to search although a cost leaves out layers whose work is not known",
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


def check_custom_config(config: Any) -> None:
    """Raises MorphError for a `custom_config` with an unknown key or a wrong value; None is an empty one."""
    if config is None:
        return
    if not isinstance(config, Mapping):
        raise MorphError(f"custom_config is {config!r}; expected a dict with some of: {_listed(CUSTOM_CONFIG)}.")
    for name in config:
        if name not in CUSTOM_CONFIG:
            close = difflib.get_close_matches(str(name), CUSTOM_CONFIG, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise MorphError(
                f"custom_config has an unknown key {name!r}. {hint}Known: {_listed(CUSTOM_CONFIG)}. What "
                "build_model is to receive goes under 'hparams'."
            )
    for name in ("epochs", "batch_size"):
        value = config.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise MorphError(f"custom_config[{name!r}] is {value!r}; expected a whole number of at least 1.")
    distribution.check(config)
    if not isinstance(config.get("checkpoint_dir") or "", str):
        raise MorphError(f"custom_config['checkpoint_dir'] is {config['checkpoint_dir']!r}; expected a path or a URI.")
    for name in ("keep_weights", "warm_start", "allow_uncounted"):
        if not isinstance(config.get(name, False), bool):
            raise MorphError(f"custom_config[{name!r}] is {config[name]!r}; expected true or false.")
    if not isinstance(config.get("hparams") or {}, Mapping):
        raise MorphError(f"custom_config['hparams'] is {config['hparams']!r}; expected a dict for build_model.")


def with_flag(custom_config: Any, name: str, wanted: bool) -> Any:
    """`custom_config` with a flag of the component's own added, if it is wanted.

    Raises:
        MorphError: the configuration has no value yet.
    """
    if not wanted:
        return custom_config
    if isinstance(custom_config, RuntimeParameter):
        raise MorphError(f"{name}=True cannot be added to a custom_config that is a RuntimeParameter: put it in there.")
    return {**(custom_config or {}), name: True}


def has_flag(exec_properties: Mapping[str, Any], name: str) -> bool:
    """Whether a component's execution properties have that flag."""
    return bool(custom_config_of(exec_properties).get(name))


def package_user_module(component: base_component.BaseComponent) -> None:
    """Has TFX pack the module file into a wheel when the pipeline is compiled, as for its own Trainer.

    The wheel lies under the pipeline root, so that the module reaches executors on other machines; the packing fills
    `module_path` and clears `module_file`. A path given as a `RuntimeParameter` cannot be packed and stays a path.
    """
    if component.exec_properties.get("module_file") and udf_utils.should_package_user_modules():
        udf_utils.add_user_module_dependency(component, "module_file", "module_path")


def _listed(known: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({meaning})" for name, meaning in known.items())
