"""What each run of a compiled job may be told anew: epochs, learning rate, target, where to push, which span of data.

TFX's runtime parameters stand for whole properties of a component, of which several are JSON: nobody wants to write
`custom_config` to train for ten epochs more. So a job declares plain parameters, whose defaults are the values of the
configuration. `declare` hands them to the steps that they matter to, beside what TFX has compiled; in the container
the entrypoint lets `lay_over` put them where the executor looks. A run that is told nothing is the one that was
configured. Importing this does not import TFX.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morph_core import MorphError

from ..config import PipelineConfig, PipelineKind
from ..config.location import LAUNCHER_ONLY, only_the_launcher_reads

PREFIX = "run_"
"""Before the names that steps know the parameters by, so that none is taken for a property of a component."""

_EXAMPLE_GENS = frozenset({"ImportExampleGen", "CsvExampleGen"})


@dataclass(frozen=True)
class Parameter:
    """One parameter of a job.

    Attributes:
        name: as people give it.
        kind: of its value, as the job's schema calls it.
        default: what the configuration says.
        meaning: in a few words, with the unit.
        components: the steps that receive it.
    """

    name: str
    kind: str
    default: int | float | str
    meaning: str
    components: frozenset[str]


def parameters_of(config: PipelineConfig, pipeline: PipelineKind) -> list[Parameter]:
    """The parameters of a configuration's job; those alone for which the configuration has one plain value.

    Args:
        config: as the pods see it.
        pipeline: which of its pipelines.
    """
    found = []

    def offer(name: str, kind: str, default: Any, meaning: str, *components: str) -> None:
        if default is not None:
            found.append(Parameter(name, kind, default, meaning, frozenset(components)))

    searches = pipeline == "morph"
    rate = config.hparams.get("learning_rate")
    rate = float(rate) if isinstance(rate, (int, float)) and not isinstance(rate, bool) else None
    span = "" if config.data.has_spans else None
    judge = () if span is None else ("PushedStructure",)  # it judges by these whether there is anything to train
    if searches:
        offer("search_epochs", "NUMBER_INTEGER", config.search.epochs, "epochs of each search", "MorphTrainer")
    trains = ("MorphTrainer", "Retrainer") if searches and config.finish != "from_scratch" else ("Retrainer",)
    offer("retrain_epochs", "NUMBER_INTEGER", config.retrain.epochs, "epochs of the training after it", *trains, *judge)
    offer("learning_rate", "NUMBER_DOUBLE", rate, "hparams.learning_rate", "MorphTrainer", "Retrainer", *judge)
    if searches:
        for name, value, meaning in (
            ("target", config.target, "fraction of the seed's cost, above 0 and at most 1"),
            ("budget", config.budget, "cost, absolute, in its unit"),
        ):
            offer(name, "NUMBER_DOUBLE", value if isinstance(value, float) else None, meaning, "MorphTrainer")
    offer("push_to", "STRING", config.push_to, "directory that receives the model", "Pusher", "PushedStructure")
    meaning = "which span of the data: a number, or a date as 2026-01-31; empty: the newest"
    offer("span", "STRING", span, meaning, *_EXAMPLE_GENS, *judge)
    return found


def declare(spec: dict[str, Any], parameters: list[Parameter], kinds: Mapping[str, str]) -> None:
    """Adds the parameters to a job that TFX compiled, in place.

    Args:
        spec: the PipelineSpec, as parsed JSON.
        parameters: what `parameters_of` returned.
        kinds: component by step.
    """
    root = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for parameter in parameters:
        steps = [name for name in spec["root"]["dag"]["tasks"] if kinds.get(name) in parameter.components]
        if parameter.name == "retrain_epochs":
            steps = [name for name in steps if kinds[name] != "MorphTrainer" or _trains_to_the_end(spec, name)]
        if not steps:
            continue
        definition = {"parameterType": parameter.kind, "description": parameter.meaning}
        root[parameter.name] = {**definition, "defaultValue": parameter.default}
        for step in steps:
            task = spec["root"]["dag"]["tasks"][step]
            component = spec["components"][task["componentRef"]["name"]]
            inside = PREFIX + parameter.name
            declared = component.setdefault("inputDefinitions", {}).setdefault("parameters", {})
            declared[inside] = {"parameterType": parameter.kind}
            given = task.setdefault("inputs", {}).setdefault("parameters", {})
            given[inside] = {"componentInputParameter": parameter.name}


def most_target(spec: Mapping[str, Any]) -> float:
    """The largest `target` that a job can be told: what its searches widen to, or the whole of the seed.

    Args:
        spec: the PipelineSpec, as parsed JSON; from a file, so any part of it may be another thing.
    """

    def inside(value: Any, *keys: str) -> Any:
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    tasks = inside(spec, "root", "dag", "tasks")
    given = [inside(task, "inputs", "parameters") for task in (tasks.values() if isinstance(tasks, Mapping) else ())]
    widened = [inside(one, "expand_to", "runtimeValue", "constant") for one in given if inside(one, PREFIX + "target")]
    return min((1.0, *(number for number in widened if isinstance(number, int | float))))


def _trains_to_the_end(spec: Mapping[str, Any], step: str) -> bool:
    return "search_fraction" in spec["root"]["dag"]["tasks"][step].get("inputs", {}).get("parameters", {})


def lay_over(properties: dict[str, Any]) -> None:
    """Puts a run's parameters in the place of what was compiled into a step's execution properties.

    Args:
        properties: of the step, in place; those of ours are taken out.

    Raises:
        MorphError: a value that no step can use, where no executor would say so.
    """
    given = {name.removeprefix(PREFIX): properties.pop(name) for name in list(properties) if name.startswith(PREFIX)}
    for name in ("target", "budget"):
        if name in given:
            properties[name] = given[name]
    _lay_training(properties, given)
    if "push_to" in given:
        _lay_push_to(properties, str(given["push_to"]))
    if given.get("span"):
        number = _span_number(str(given["span"]))
        span = {"static_range": {"start_span_number": number, "end_span_number": number}}
        properties["range_config"] = json.dumps(span)


def _lay_training(properties: dict[str, Any], given: Mapping[str, Any]) -> None:
    changes: dict[str, Any] = {}
    lengths = {name: _whole(name, given[name]) for name in ("search_epochs", "retrain_epochs") if name in given}
    if lengths:
        changes["epochs"] = sum(lengths.values())
    if len(lengths) == 2:  # a search that trains to the end: both lengths are parts of one run
        properties["search_fraction"] = lengths["search_epochs"] / changes["epochs"]
    if not changes and "learning_rate" not in given:
        return
    config = json.loads(properties.get("custom_config") or "null") or {}
    if "learning_rate" in given:
        changes["hparams"] = {**(config.get("hparams") or {}), "learning_rate": given["learning_rate"]}
    if {**config, **changes} != config:  # else what was compiled stays as it is, to the letter
        properties["custom_config"] = json.dumps({**config, **changes})


def _whole(name: str, value: Any) -> int:
    if value != int(value) or value < 1:
        raise MorphError(f"{name} is {value!r}; expected a whole number of at least 1. Start the run with another one.")
    return int(value)


def _lay_push_to(properties: dict[str, Any], push_to: str) -> None:
    if not push_to or only_the_launcher_reads(push_to):
        raise MorphError(
            f"push_to is {push_to!r}; expected a directory on a volume that the pods mount, or an address that TFX can "
            f"open, such as gs://bucket/serving; {LAUNCHER_ONLY} is for Kubeflow's launcher alone. Start the run with "
            "another one."
        )
    if "push_destination" in properties:
        destination = json.loads(properties["push_destination"])
        if destination["filesystem"]["base_directory"] != push_to:
            destination["filesystem"]["base_directory"] = push_to
            properties["push_destination"] = json.dumps(destination)
    else:
        properties["push_to"] = push_to


def _span_number(span: str) -> int:
    """A span as TFX counts it: a number as it is, a date in days since 1970-01-01."""
    if span.isdecimal() and span.isascii():
        return int(span)
    try:
        return (datetime.date.fromisoformat(span) - datetime.date(1970, 1, 1)).days
    except ValueError:
        raise MorphError(
            f"span is {span!r}; expected a number, or a date such as 2026-01-31, or nothing for the newest one. Start "
            "the run with another one."
        ) from None
