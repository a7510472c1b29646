"""The configuration as a whole: the sections together, and the goal of the search with what it has to agree with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from morph_core import MorphError
from morph_core.cost.amounts import amounts_by_cost
from morph_core.cost.costs import cost_of, on_device
from morph_core.search.gate_names import check_gate

from .beam import DIRECT, BeamConfig
from .cluster import KubeflowApiConfig, KubeflowConfig
from .data import DataConfig
from .devices import CalibrateConfig, ExportConfig
from .evaluation import ChooseConfig, EvaluateConfig
from .location import Location
from .section import Section
from .training import RetrainConfig, SearchConfig, TrainingConfig

PipelineKind = Literal["morph", "retrain"]
"""Which of the two pipelines of a configuration: the search, or the retraining of what it found."""


def _one_or_by_name(value: Any) -> str:
    return "by name" if isinstance(value, Mapping) else "one"


def _auto_or_counts(value: Any) -> str:
    return "auto" if isinstance(value, str) else _one_or_by_name(value)


def _uniform_or_counts(value: Any) -> str:
    return "uniform" if isinstance(value, str) else _one_or_by_name(value)


_KIND = Discriminator(_one_or_by_name)  # so that what is wrong is told of the kind that was given
_Share = Annotated[float, Field(gt=0, le=1)]
_Amount = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1, strict=True)]
Shares = Annotated[Annotated[_Share, Tag("one")] | Annotated[dict[str, _Share], Tag("by name")], _KIND]
Amounts = Annotated[Annotated[_Amount, Tag("one")] | Annotated[dict[str, _Amount], Tag("by name")], _KIND]
Multiples = Annotated[
    Annotated[_Count, Tag("one")]
    | Annotated[dict[str, _Count], Tag("by name")]
    | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(_auto_or_counts),
]
Floors = Annotated[
    Annotated[_Count, Tag("one")]
    | Annotated[dict[str, _Count], Tag("by name")]
    | Annotated[Literal["uniform"], Tag("uniform")],
    Discriminator(_uniform_or_counts),
]


def _plain(value: Any) -> Any:
    """A value as it stands in the file, where a section is a mapping."""
    return value.model_dump(mode="json", exclude_none=True) if isinstance(value, Section) else value


def _as_json(value: Any, place: str = "hparams") -> None:
    """Raises ValueError for a value that JSON has no word for, in which hyperparameters travel to build_model."""
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if not isinstance(key, str):
                raise ValueError(
                    f"{place} has the key {key!r}; keys are expected to be text, such as '{key}' in quotes"
                )
            _as_json(inside, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            _as_json(inside, f"{place}[{index}]")
    elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(
            f"{place} is {value!r} ({type(value).__name__}); numbers, text, true, false, null, and lists and mappings "
            "of these are expected, as JSON has them. A date is written in quotes"
        )


class RetrainPipelineConfig(Section):
    """What the retrain pipeline does differently; everything else it takes from the rest of the file."""

    structure: Location | None = Field(
        None,
        description="a structure.json to retrain, instead of that of the model pushed last",
        examples=["structure.json"],
    )


class PipelineConfig(Section):
    """Two pipelines: data -> (shrink, expand) x cycles -> retrain -> evaluate -> push, and the part from retrain on."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="name of the pipeline: lower-case letters, digits and '-', at most 63",
        examples=["flowers"],
    )
    data: DataConfig = Field(description="where the examples are")
    module_file: Location = Field(description="Python file with build_model and input_fn", examples=["module.py"])
    transform_module_file: Location | None = Field(
        None, description="Python file with preprocessing_fn, if not module_file", examples=["preprocessing.py"]
    )
    label: str = Field(min_length=1, description="name of the label in the raw examples", examples=["label"])
    hparams: dict[str, Any] = Field(default_factory=dict, description="passed to build_model unchanged")

    cost: str = Field("flops", description="what is counted", examples=["flops"])
    target: Shares | None = Field(
        None,
        description="fraction of the seed's cost that each search shrinks to, or fractions by cost",
        examples=["0.5, or {flops: 0.5, params: 0.6}"],
    )
    budget: Amounts | None = Field(
        None,
        description="cost that each search shrinks to, absolute, in the unit of 'cost', or amounts by cost",
        examples=["2.0e6, or {flops: 2.0e6, params: 1.0e4}"],
    )
    strength: float | None = Field(
        None,
        gt=0,
        description="strength of the regulariser: fixed, as in the paper, or with target or budget where it starts",
        examples=["1.0e-3"],
    )
    multiple_of: Multiples | None = Field(
        None,
        description="widths are multiples of so many channels, or numbers by layer; auto: of what a calibration says",
        examples=[8],
    )
    min_channels: Floors | None = Field(
        None,
        description="channels that a layer keeps unless its branch goes, or numbers by layer; uniform: as many as "
        "uniform widths within the budget have",
        examples=[4],
    )
    budgets: tuple[float, ...] | None = Field(
        None,
        description="instead of target: several fractions of the seed's cost, a branch of the pipeline for each",
        examples=[[0.25, 0.5, 0.75]],
    )
    choose: ChooseConfig | None = Field(None, description="with budgets: which of the networks is pushed")
    compare: bool = Field(
        False,
        description="with target: also train the seed and uniform widths of the same cost, to see what the search is "
        "worth",
        examples=["true"],
    )
    gate: str = Field("auto", description="how a search switches channels off", examples=["auto"])
    cycles: int = Field(1, ge=1, le=20, description="how often to shrink and expand", examples=[2])
    expand_to: float | list[float | None] | None = Field(
        None,
        description="fraction of the seed's cost to widen to after each search: a number for all cycles or a list with "
        "one for each (null: stays shrunk)",
        examples=[0.5],
    )
    finish: Literal["from_scratch", "in_place", "both"] = Field(
        "from_scratch",
        description="from_scratch: a Retrainer trains the last structure anew; in_place: the last search cuts the "
        "network and trains it to the end itself, for as long as 'retrain' says; both: the better model is pushed",
        examples=["in_place"],
    )
    search: SearchConfig = Field(description="length of the training inside each search")
    retrain: RetrainConfig = Field(description="length of the final training")
    evaluate: EvaluateConfig = Field(description="when the model is good enough to be pushed")
    calibrate: CalibrateConfig | None = Field(
        None, description="with cost: latency, the device that is measured for it", examples=["{runtime: xla}"]
    )
    export: ExportConfig | None = Field(
        None,
        description="files for devices that a model which passed is written as",
        examples=["{formats: [litert, litert-int8]}"],
    )
    retrain_pipeline: RetrainPipelineConfig = Field(
        RetrainPipelineConfig(structure=None), description="what the retrain pipeline does differently"
    )

    push_to: Location = Field("pushed", description="directory that receives the model", examples=["pushed"])
    pipeline_root: Location = Field("pipeline_root", description="directory for the artifacts of local runs")
    metadata: Location = Field("metadata.sqlite", description="sqlite file for the ML metadata of local runs")
    checkpoint_dir: Location | None = Field(
        None,
        description="directory for the checkpoints of trainings that are running, if not below pipeline_root",
        examples=["checkpoints"],
    )
    keep: _Count | None = Field(
        None,
        description="after each local run, remove what is older than so many runs and pushed models; by default "
        "everything stays",
        examples=[7],
    )
    beam: BeamConfig = Field(DIRECT, description="where the data steps run, see the template")
    beam_args: tuple[str, ...] = Field((), description="further arguments of the Apache Beam pipelines, as they are")
    kubeflow: KubeflowConfig | None = Field(None, description="needed to compile for Kubeflow only")
    kubeflow_api: KubeflowApiConfig | None = Field(None, description="how 'submit' and 'schedule' reach the cluster")

    @field_validator("hparams")
    @classmethod
    def _hparams_can_travel(cls, value: dict[str, Any]) -> dict[str, Any]:
        _as_json(value)
        return value

    @model_validator(mode="after")
    def _known_cost_and_gate(self) -> PipelineConfig:
        named = self._with_measured_device()
        try:
            cost_of(named["cost"])
        except MorphError as error:
            raise ValueError(f"cost: {error}") from error
        for name in ("target", "budget"):
            amounts = named[name]
            try:
                if amounts is not None:
                    amounts_by_cost(name, amounts, named["cost"])
            except MorphError as error:
                raise ValueError(f"{name}: {str(error).rstrip('.')}") from error
        try:
            check_gate(self.gate)
        except MorphError as error:
            raise ValueError(f"gate: {error}") from error
        return self

    def _with_measured_device(self) -> dict[str, Any]:
        """Cost, target and budget, as they can be checked before the device is measured: with another in its place."""
        words = {name: getattr(self, name) for name in ("cost", "target", "budget")}
        named = {name: on_device(value, "cpu") for name, value in words.items()}
        if self.calibrate is None and named != words:
            raise ValueError(
                "cost: latency without a device is that of the device that the pipeline measures, and there is no "
                "'calibrate'. For example: calibrate: {runtime: tf.function}, or a device: cost: latency:v100"
            )
        if self.calibrate is not None and named == words:
            raise ValueError(
                f"calibrate: nothing is counted by what would be measured, since cost is {self.cost}. For example: "
                "cost: latency"
            )
        return named

    @model_validator(mode="after")
    def _one_goal(self) -> PipelineConfig:
        given = [key for key in ("target", "budget", "budgets", "strength") if getattr(self, key) is not None]
        limits = [key for key in given if key != "strength"]
        if not given or len(limits) > 1:
            raise ValueError(
                "exactly one of 'target', 'budget', 'budgets' and (fixed) 'strength' is expected, got "
                + (" and ".join(given) or "none")
                + ". For example: target: 0.5"
            )
        if self.min_channels == "uniform" and not limits:
            raise ValueError(
                "min_channels: uniform widths are those within a budget, and 'strength' by itself has none. For "
                "example: target: 0.5"
            )
        return self

    @model_validator(mode="after")
    def _budgets_make_sense(self) -> PipelineConfig:
        if (self.budgets is None) != (self.choose is None):
            raise ValueError(
                "'budgets' and 'choose' belong together: several networks need a rule which one is pushed. For "
                "example: budgets: [0.25, 0.5, 0.75], choose: {min_accuracy: 0.9}"
            )
        if self.budgets is None or self.choose is None:
            return self
        good = all(0 < budget < 1 for budget in self.budgets) and len(set(self.budgets)) == len(self.budgets)
        if not good or not 1 <= len(self.budgets) <= 20:
            raise ValueError(
                f"budgets: 1 to 20 different fractions between 0 and 1 are expected, got {list(self.budgets)}. For "
                "example: budgets: [0.25, 0.5, 0.75]"
            )
        if self.expand_to is not None:
            raise ValueError(
                "expand_to: with 'budgets' each branch ends at its own budget, and cycles in between expand to 1.0; "
                "leave expand_to out"
            )
        if self.choose.max_cost is not None and self.choose.max_cost < min(self.budgets):
            raise ValueError(
                f"choose.max_cost: {self.choose.max_cost} is below the smallest budget ({min(self.budgets)}), "
                "so no network could be pushed. Raise it, or add a smaller budget"
            )
        return self

    @model_validator(mode="after")
    def _something_to_compare_with(self) -> PipelineConfig:
        if not self.compare:
            return self
        if self.budgets is not None:
            raise ValueError(
                "compare: with 'budgets' the seed and uniform widths are trained and compared anyway; leave compare out"
            )
        if not isinstance(self.target, float):
            raise ValueError(
                "compare: uniform widths are made for one fraction of the seed's cost, so a target that is one number "
                "is expected. For example: target: 0.5"
            )
        if (self.expansions[-1] or 0) > 1:
            raise ValueError(
                f"compare: expand_to widens the last structure to {self.expansions[-1]} of the seed's cost, and "
                "uniform widths are made for at most 1. Lower expand_to, or leave compare out"
            )
        if self.finish == "both":
            raise ValueError(
                "compare: the seed and uniform widths are trained for as long as the final model, and with finish: "
                "both there are two of different lengths. Say finish: in_place or from_scratch, or leave compare out"
            )
        return self

    @model_validator(mode="after")
    def _beam_keeps_steps_that_there_are(self) -> PipelineConfig:
        reader, other = "ImportExampleGen", "CsvExampleGen"
        if self.data.format == "csv":
            reader, other = other, reader
        for key, beam in (("beam", self.beam), ("kubeflow.beam", self.kubeflow and self.kubeflow.beam)):
            if beam is not None and other in beam.in_process:
                raise ValueError(
                    f"{key}.in_process: there is no {other}, since data.format is {self.data.format}; it is {reader} "
                    "that reads the files"
                )
        return self

    @model_validator(mode="after")
    def _expansions_make_sense(self) -> PipelineConfig:
        if isinstance(self.expand_to, list) and len(self.expand_to) != self.cycles:
            raise ValueError(
                f"expand_to: a list needs one value for each of the {self.cycles} cycles, got {len(self.expand_to)}. "
                "Give one number for all of them, or as many as there are cycles"
            )
        for cycle, fraction in enumerate(self.expansions, 1):
            if fraction is None:
                if cycle < self.cycles:
                    raise ValueError(
                        f"expand_to: cycle {cycle} of {self.cycles} would leave the next one nothing to shrink. Only "
                        "the last value of the list may be null"
                    )
                continue
            if not fraction > 0:
                raise ValueError(f"expand_to: a fraction above 0 of the seed's cost is expected, got {fraction}")
            # The last cycle may "widen" to the target itself: a search may end a little below it.
            target = max(self.target.values()) if isinstance(self.target, dict) else self.target
            too_small = target is not None and (fraction < target or (fraction == target and cycle < self.cycles))
            if too_small:
                raise ValueError(
                    f"expand_to: {fraction} is not above target ({target}), so cycle {cycle} of {self.cycles} has "
                    "nothing to widen. Raise expand_to or lower target"
                )
        return self

    @model_validator(mode="after")
    def _weights_to_start_from(self) -> PipelineConfig:
        widened = self.expansions[-1]
        if self.search.keep_weights and widened is not None:
            raise ValueError(
                f"search.keep_weights: expand_to widens the last structure to {widened} of the seed's cost, and nobody "
                "trained the channels that it adds. Let the last structure stay shrunk: leave expand_to out, or let "
                "null be the last value of its list"
            )
        if self.retrain.warm_start and self.budgets is not None:
            raise ValueError(
                "retrain.warm_start: with 'budgets' learned networks are compared with uniform widths and the seed, "
                "which have no weights to start from, so all of them start from fresh ones; leave warm_start out"
            )
        if self.retrain.warm_start and not self.search.keep_weights:
            raise ValueError(
                "retrain.warm_start: there are no weights to start from, because search.keep_weights is not true. For "
                "example: search: {epochs: 20, keep_weights: true}"
            )
        return self

    @model_validator(mode="after")
    def _one_run(self) -> PipelineConfig:
        if self.finish == "from_scratch":
            if self.search.distill is not None:
                raise ValueError(
                    "search.distill: the seed teaches the network that is cut and trained to the end in the same run, "
                    "and with finish: from_scratch there is none. Say finish: in_place (or both), or leave distill out"
                )
            return self
        if self.budgets is not None:
            raise ValueError(
                "finish: with 'budgets' learned networks are compared with uniform widths and the seed, which are "
                "trained from scratch, so all of them are; leave finish out"
            )
        if self.expansions[-1] is not None:
            raise ValueError(
                f"finish: expand_to widens the last structure to {self.expansions[-1]} of the seed's cost, and a "
                "network that is trained to the end in place has no weights for the channels that it adds. Leave "
                "expand_to out, or let null be the last value of its list"
            )
        if self.retrain.warm_start:
            raise ValueError(
                f"retrain.warm_start: with finish: {self.finish} the network goes on with its own weights in the "
                "search already; leave warm_start out"
            )
        for key in ("batch_size", "distribution", "mixed_precision"):
            here, there = getattr(self.search, key), getattr(self.retrain, key)
            if here != there:
                raise ValueError(
                    f"finish: in place 'search' and 'retrain' are two parts of one run, so their {key} is expected to "
                    f"be the same, got {_plain(here)} and {_plain(there)}"
                )
        if (self.search.epochs is None) != (self.retrain.epochs is None):
            raise ValueError(
                "finish: in place 'search' and 'retrain' are two parts of one run, so the lengths of both are expected "
                "in 'epochs' or those of both in 'steps'"
            )
        return self

    @property
    def whole_run(self) -> TrainingConfig:
        """The last search and the training that follows it in place, as one training."""
        length = self._length
        return self.search.model_copy(update={length: getattr(self.search, length) + getattr(self.retrain, length)})

    @property
    def final_training(self) -> TrainingConfig:
        """The training that the model comes out of."""
        return self.whole_run if self.finish == "in_place" else self.retrain

    @property
    def search_fraction(self) -> float:
        """The part of that training that the search takes."""
        return getattr(self.search, self._length) / getattr(self.whole_run, self._length)

    @property
    def _length(self) -> str:
        return "steps" if self.search.epochs is None else "epochs"

    @property
    def expansions(self) -> tuple[float | None, ...]:
        """What each cycle expands to, as a fraction of the seed's cost; None leaves the structure as the search did.

        Without `expand_to` the cycles in between go back to the seed's full cost and the last one stays shrunk, so the
        final model costs what the search was asked for.
        """
        if isinstance(self.expand_to, list):
            return tuple(self.expand_to)
        if self.expand_to is not None:
            return (self.expand_to,) * self.cycles
        return (1.0,) * (self.cycles - 1) + (None,)

    def at(self, budget: float) -> PipelineConfig:
        """The configuration of one branch: the same with this one of the budgets as its target."""
        return self.model_copy(update={"target": budget, "budgets": None, "choose": None})

    @property
    def beam_pipeline_args(self) -> tuple[str, ...]:
        """What every Beam pipeline is started with; of an argument given twice, Beam takes the later."""
        return self.beam.arguments + self.beam_args

    @property
    def retrain_pipeline_name(self) -> str:
        """What the retrain pipeline is called: to ML metadata and to Kubeflow it is another pipeline."""
        return f"{self.name}-retrain"

    @property
    def pipeline_names(self) -> tuple[str, str]:
        """The names of both pipelines, which push to the same place and beat the same baseline."""
        return self.name, self.retrain_pipeline_name

    @property
    def preprocessing_file(self) -> str:
        """The file with `preprocessing_fn`."""
        return self.transform_module_file or self.module_file
