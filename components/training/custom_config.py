"""`custom_config`: which entries the components that train know, what may stand there, and how the entries travel.

They travel as JSON among a component's execution properties. The checks need no data, so a mistake ends where the
pipeline is built; a `RuntimeParameter` has no value there, and is checked where it has one.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from tfx.orchestration.data_types import RuntimeParameter
from tfx.utils import json_utils

from morph_core import MorphError
from morph_core.search.distill import distillation_of

from . import distribution

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
    "distill": "true, or a dict with 'temperature' and 'weight', of a MorphTrainer that trains to the end: the seed "
    "teaches what is left of it; of a Retrainer with a teacher, how that is listened to",
    "allow_uncounted": "true, of a MorphTrainer, to search although a cost leaves out layers whose work is not known",
}


def custom_config_of(exec_properties: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `custom_config`; none where there is no such property, or it is empty."""
    return json_utils.loads(exec_properties.get("custom_config") or "null") or {}


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
    check_distillation(config.get("distill", False), "custom_config['distill']")
    if not isinstance(config.get("hparams") or {}, Mapping):
        raise MorphError(f"custom_config['hparams'] is {config['hparams']!r}; expected a dict for build_model.")


def check_distillation(distill: Any, caller: str) -> None:
    """Raises MorphError unless `distill` is true, false, or a dict of settings that can travel."""
    unknown = isinstance(distill, Mapping) and set(distill) - {"temperature", "weight"}
    if unknown or not isinstance(distill, (bool, Mapping, type(None))):
        raise MorphError(
            f"{caller} is {distill!r}; expected true, false, or a dict with some of 'temperature' (above 0, 3 by "
            "default) and 'weight' (of the teacher beside the labels, above 0 and at most 1, 0.5 by default)."
        )
    distillation_of(distill, caller)


def with_flag(custom_config: Any, name: str, wanted: Any) -> Any:
    """`custom_config` with a flag or setting of the component's own added, if it is wanted.

    Raises:
        MorphError: the configuration has no value yet.
    """
    if wanted is None or wanted is False:
        return custom_config
    if isinstance(custom_config, RuntimeParameter):
        raise MorphError(
            f"{name}={wanted!r} cannot be added to a custom_config that is a RuntimeParameter: put it in there."
        )
    return {**(custom_config or {}), name: wanted}


def _listed(known: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({meaning})" for name, meaning in known.items())
