"""Which settings a step of a Kubeflow job gets: how the entries of the configuration combine.

`kubeflow.steps` maps names to settings. A name is `"*"` (every step), a component (`MorphTrainer`: all its cycles) or
one step (`MorphTrainer-2`); for a step they are laid over each other in that order. The `profile` of the last of them
that names one lies right below that entry. A later layer replaces a single value; `env` and `node_selector` are joined
name by name, lists are added up, and null takes away what earlier layers gave. What cannot work is refused for each
entry and, once more, for what a step's entries are together.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from morph_core import MorphError

from .step_settings import StepSettings

EVERY_STEP = "*"
TRAINING = ("MorphTrainer", "Retrainer")
"""The components that train, and may have an accelerator."""

COMPONENTS = (
    "ImportExampleGen",
    "CsvExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "DeviceCalibrator",
    "PushedStructure",
    "ImportedStructure",
    "ImportedModel",
    *TRAINING,
    "UniformWidths",
    "Evaluator",
    "Frontier",
    "Pusher",
    "Exporter",
)
"""Components whose steps one pipeline or the other has: one configuration serves several pipelines."""

PROFILES: Mapping[str, StepSettings] = MappingProxyType(
    {
        # Clusters keep other pods off GPU nodes with this taint. NCCL exchanges gradients through /dev/shm, and
        # container runtimes make that 64 MB.
        "gpu": StepSettings.model_validate(
            {
                "accelerator": {"type": "nvidia.com/gpu", "count": 1},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "shared_memory": "1Gi",
            }
        ),
        # One host of TPU v5e on GKE: four chips.
        "tpu": StepSettings.model_validate(
            {
                "accelerator": {"type": "google.com/tpu", "count": 4},
                "node_selector": {
                    "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
                    "cloud.google.com/gke-tpu-topology": "2x2",
                },
                "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
            }
        ),
    }
)
"""The profiles that every configuration has; one of the same name in the configuration replaces it."""


def component_of(step: str) -> str:
    """`"MorphTrainer-2"` is a step of `"MorphTrainer"`. Which steps there are is known when the pipeline is built."""
    return re.sub(r"-\d+$", "", step)


def settings_of(
    step: str, component: str, steps: Mapping[str, StepSettings], profiles: Mapping[str, StepSettings]
) -> StepSettings:
    """The settings of one step: all entries that speak of it, laid over each other.

    Args:
        step: the step's name in the job, such as "MorphTrainer-2".
        component: what it is, such as "MorphTrainer".
        steps: the entries, by name.
        profiles: those that the configuration adds to `PROFILES`.

    Raises:
        MorphError: the entries together cannot work, or name a profile that does not exist.
    """
    layers = [steps[name] for name in dict.fromkeys((EVERY_STEP, component, step)) if name in steps]
    chosen = next((layer for layer in reversed(layers) if "profile" in layer.model_fields_set), None)
    values: dict[str, Any] = {}
    for layer in layers:
        if layer is chosen and layer.profile is not None:
            _lay_over(values, profile_of(layer.profile, profiles))
        _lay_over(values, layer)
    try:
        return StepSettings.model_validate(values)
    except ValidationError as error:
        reasons = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise MorphError(f"kubeflow.steps: the entries for the step {step} do not go together: {reasons}.") from error


def profile_of(name: str, profiles: Mapping[str, StepSettings]) -> StepSettings:
    """The profile of that name.

    Raises:
        MorphError: there is none.
    """
    known = {**PROFILES, **profiles}
    if name not in known:
        raise MorphError(
            f"kubeflow.steps: unknown profile {name!r}; {_hint(name, known)}The profiles are "
            f"{', '.join(sorted(known))}."
        )
    return known[name]


def _lay_over(values: dict[str, Any], layer: StepSettings) -> None:
    for name, new in layer.given.items():
        old = values.get(name)
        if isinstance(new, Mapping) and old is not None:
            new = {**old, **new}
        elif isinstance(new, tuple) and old is not None:
            new = (*old, *(item for item in new if item not in old))
        values[name] = new


def check_names(names: Iterable[str], job: Mapping[str, str]) -> None:
    """Refuses entries that speak of no step.

    Args:
        names: the keys of `kubeflow.steps`.
        job: component by step, for every step of the job that runs in a container.

    Raises:
        MorphError: a name is neither a step of the job nor a component of any pipeline.
    """
    known = {EVERY_STEP, *COMPONENTS, *job, *job.values()}
    for name in names:
        component = component_of(name)
        of_another_pipeline = component in COMPONENTS and component not in job.values()
        if name not in known and not of_another_pipeline:
            here = dict.fromkeys(name for pair in job.items() for name in pair)
            raise MorphError(
                f"kubeflow.steps.{name}: unknown step; {_hint(name, known)}The steps and components of this job "
                f"are {', '.join(here)}; '*' means every step."
            )


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
