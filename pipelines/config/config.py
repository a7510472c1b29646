"""The configuration of a pipeline: one YAML file, read and checked before anything slow happens.

`load_config(path)` turns the file into a frozen `PipelineConfig`. A key that does not exist, a value out of range and a
combination that cannot work are refused together, each by its name, with what was expected and how to fix it. Relative
paths mean "relative to the configuration file", so a run does not depend on the directory it is started from; a path
with a scheme (`gs://`, `s3://`) is left as it is. The annotated example is `templates/config.yaml`.

This module does not import TFX, so a mistake is reported within seconds.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from morph_core import MorphError, cost_of
from morph_core.search.gates import check_gate
from morph_core.structure.budget import amounts_by_cost

from .beam import DIRECT, BeamConfig
from .section import Section as _Section
from .spans import braced, placeholders
from .steps import COMPONENTS, TRAINING, Accelerator, StepSettings, settings_of

PipelineKind = Literal["morph", "retrain"]
"""Which of the two pipelines of a configuration: the search, or the retraining of what it found."""


def is_uri(path: str) -> bool:
    """Whether `path` names something on a remote file system (`gs://...`), which is never resolved locally."""
    return "://" in path


def _resolve(value: Any, info: ValidationInfo) -> Any:
    base = (info.context or {}).get("base")
    if not isinstance(value, (str, os.PathLike)) or base is None or is_uri(str(value)):
        return value
    # normpath, not resolve(): a link the user made stays the path the user sees.
    return os.path.normpath(os.path.join(base, os.path.expanduser(value)))


Location = Annotated[str, BeforeValidator(_resolve), Field(min_length=1)]
"""A path, made absolute from the directory of the configuration file, or a URI, left alone."""


class DataConfig(_Section):
    """Where the examples are and how they are split into `train` and `eval`.

    File patterns may hold the placeholders of TFX's spans: of all the data that matches, the newest span is read.
    """

    format: Literal["tfrecord", "csv"] = Field(description="the files are 'tfrecord' (of tf.train.Example) or 'csv'")
    path: Location = Field(description="the directory that holds the files", examples=["data"])
    splits: dict[str, str] | None = Field(
        None,
        description="file patterns below 'path' for the splits 'train' and 'eval', both needed",
        examples=["{train: train/*, eval: eval/*}"],
    )
    eval_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="without 'splits': the fraction of all examples that becomes 'eval'",
        examples=[0.2],
    )
    pattern: str | None = Field(
        None,
        min_length=1,
        description="with 'eval_fraction': file pattern of all examples below 'path', by default every file there",
        examples=['"day-{YYYY}-{MM}-{DD}/*"'],
    )

    @model_validator(mode="after")
    def _one_way_to_split(self) -> DataConfig:
        if self.splits is not None and set(self.splits) != {"train", "eval"}:
            raise ValueError(
                f"'splits' names {', '.join(map(repr, sorted(self.splits))) or 'nothing'}; exactly 'train' and 'eval' "
                "are expected. For example: splits: {train: train/*, eval: eval/*}"
            )
        if (self.splits is None) == (self.eval_fraction is None):
            raise ValueError(
                "exactly one of 'splits' (file patterns) and 'eval_fraction' (split by hash) is expected, got "
                + ("neither" if self.splits is None else "both")
            )
        if self.splits is not None and self.pattern is not None:
            raise ValueError("'pattern' goes with 'eval_fraction'; with 'splits' each split has a pattern of its own")
        return self

    @model_validator(mode="after")
    def _spans_make_sense(self) -> DataConfig:
        found = {name: placeholders(name, pattern) for name, pattern in self.patterns.items()}
        if len(set(map(frozenset, found.values()))) > 1:
            listed = "; ".join(f"{name}: {', '.join(map(braced, names)) or 'none'}" for name, names in found.items())
            raise ValueError(
                f"the splits have different placeholders ({listed}), so they would come from different spans. Give "
                "both the same, such as {train: train-{SPAN}/*, eval: eval-{SPAN}/*}"
            )
        return self

    @property
    def patterns(self) -> dict[str, str]:
        """File patterns below `path`, by split; one called `all` where the examples are split by hash."""
        return self.splits if self.splits is not None else {"all": self.pattern or "*"}

    @property
    def has_spans(self) -> bool:
        """Whether the newest of several spans is read."""
        return any("{" in pattern for pattern in self.patterns.values())


class DistributionConfig(_Section):
    """Over what one training run is spread."""

    strategy: Literal["mirrored", "multi_worker_mirrored", "tpu"] = Field(
        description="the GPUs of one machine, several machines (TF_CONFIG), or the machine's TPU", examples=["mirrored"]
    )
    devices: tuple[str, ...] | None = Field(
        None, min_length=1, description="which devices, with mirrored; all GPUs otherwise", examples=["[GPU:0, GPU:1]"]
    )

    @model_validator(mode="after")
    def _devices_of_one_machine(self) -> DistributionConfig:
        if self.devices is not None and self.strategy != "mirrored":
            raise ValueError(f"'devices' goes with strategy mirrored only; {self.strategy} finds its own")
        return self


class TrainingConfig(_Section):
    """How long one training run takes, whole epochs or a number of steps, and on what it runs."""

    epochs: int | None = Field(None, ge=1, description="passes over the training split", examples=[20])
    steps: int | None = Field(None, ge=1, description="training steps (batches)", examples=[5000])
    batch_size: int = Field(32, ge=1, description="examples per step, over all devices", examples=[128])
    distribution: DistributionConfig | None = Field(None, description="devices or machines that share each step")
    mixed_precision: bool = Field(False, description="compute in bfloat16", examples=["true"])

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if (self.epochs is None) == (self.steps is None):
            got = "neither" if self.epochs is None else "both"
            raise ValueError(f"exactly one of 'epochs' and 'steps' is expected, got {got}. For example: epochs: 20")
        return self


class SearchConfig(TrainingConfig):
    """The training inside each search."""

    keep_weights: bool = Field(
        False, description="write the last search's weights beside its structure", examples=["true"]
    )


class RetrainConfig(TrainingConfig):
    """The training of the found structure."""

    warm_start: bool = Field(
        False, description="start from the weights that the search kept, not from fresh ones", examples=["true"]
    )


class EvaluateConfig(_Section):
    """When a retrained model is good enough to be pushed."""

    metric: str = Field(
        "SparseCategoricalAccuracy",
        pattern=r"^[A-Z]\w+$",
        description="class name of a Keras or TFMA metric",
        examples=["SparseCategoricalAccuracy"],
    )
    lower_bound: float | None = Field(None, description="push only if the metric is at least this", examples=[0.8])
    upper_bound: float | None = Field(
        None, description="for a metric where less is better: push only if it is at most this", examples=[0.1]
    )
    max_drop: float = Field(
        0.0,
        ge=0,
        description="how much worse than the latest blessed model the metric may be, absolute",
        examples=[0.01],
    )

    @model_validator(mode="after")
    def _one_bound(self) -> EvaluateConfig:
        if (self.lower_bound is None) == (self.upper_bound is None):
            got = "neither" if self.lower_bound is None else "both"
            raise ValueError(
                f"exactly one of 'lower_bound' (more is better) and 'upper_bound' (less is better) is expected, got "
                f"{got}. For example: lower_bound: 0.8"
            )
        return self

    @property
    def higher_is_better(self) -> bool:
        return self.lower_bound is not None


class RetrainPipelineConfig(_Section):
    """What the retrain pipeline does differently; everything else it takes from the rest of the file."""

    structure: Location | None = Field(
        None,
        description="a structure.json to retrain, instead of that of the model pushed last",
        examples=["structure.json"],
    )


class KubeflowConfig(_Section):
    """What the compiled job needs to know about the cluster; nothing here matters to a local run."""

    image: str = Field(
        min_length=1,
        description="container image with morph-tfx[tfx,kubeflow] installed",
        examples=["registry.example.com/morph-tfx:1"],
    )
    pipeline_root: str | None = Field(
        None,
        min_length=1,
        description="object store location for the artifacts",
        examples=["minio://mlpipeline/v2/artifacts/my-pipeline"],
    )
    data_path: str | None = Field(
        None,
        min_length=1,
        description="where the pods find the data, if not at data.path",
        examples=["gs://bucket/data"],
    )
    push_to: str | None = Field(
        None,
        min_length=1,
        description="where the pods push the model, if not to push_to",
        examples=["gs://bucket/serving"],
    )
    checkpoint_dir: str | None = Field(
        None,
        min_length=1,
        description="directory on a volume, or gs://, where a training step that is restarted finds its checkpoints",
        examples=["/mnt/checkpoints"],
    )
    module_dir: str = Field(
        "/opt/morph-tfx/modules",
        pattern=r"^(/|[a-z0-9]+://)",
        description="directory inside the image that holds the module files",
        examples=["/opt/morph-tfx/modules"],
    )
    beam: BeamConfig | None = Field(None, description="where the pods' data steps run, if not as 'beam' says")
    baseline_model: str | None = Field(
        None,
        min_length=1,
        description="model to compare with; open-source Kubeflow cannot look up the latest blessed one",
        examples=["gs://bucket/serving/1700000000"],
    )
    accelerator: Accelerator | None = Field(None, description="accelerators of each MorphTrainer and Retrainer step")
    cpu: float | None = Field(None, gt=0, description="CPU limit of those steps, in cores", examples=[4])
    memory: float | None = Field(
        None, ge=0.001, description="memory limit of those steps, in GB (10^9 bytes)", examples=[16]
    )
    steps: dict[str, StepSettings] = Field(
        default_factory=dict,
        description="what steps need, by '*' (every step), component (MorphTrainer) or step (MorphTrainer-2)",
        examples=["{MorphTrainer: {profile: gpu, memory: 16Gi}}"],
    )
    profiles: dict[str, StepSettings] = Field(
        default_factory=dict,
        description="settings under names of your own, beside the profiles 'gpu' and 'tpu'",
        examples=["{big: {memory: 64Gi}}"],
    )

    @model_validator(mode="after")
    def _steps_can_work(self) -> KubeflowConfig:
        for name, profile in self.profiles.items():
            if profile.profile is not None:
                raise ValueError(f"profiles.{name}: a profile cannot take another one ({profile.profile!r})")
        try:
            for name in dict.fromkeys((*COMPONENTS, *self.steps)):
                # MorphTrainer-2 is a step of MorphTrainer; which steps there are is known when the pipeline is built.
                self.settings_of(name, re.sub(r"-\d+$", "", name))
        except MorphError as error:
            raise ValueError(str(error).removeprefix("kubeflow.").removesuffix(".")) from error
        return self

    def settings_of(self, step: str, component: str) -> StepSettings:
        """What a step needs; `accelerator`, `cpu` and `memory` are entries for the components that train."""
        short: dict[str, Any] = {}
        if self.accelerator is not None:
            short["accelerator"] = self.accelerator
        if self.cpu is not None:
            short["cpu"] = self.cpu
        if self.memory is not None:
            short["memory"] = f"{round(self.memory * 1000)}M"
        steps = dict(self.steps)
        if component in TRAINING and short:
            # Below what is said of the component, above what is said of every step.
            given = steps.get(component)
            steps[component] = StepSettings.model_validate({**short, **(given.given if given else {})})
        return settings_of(step, component, steps, self.profiles)


class ChooseConfig(_Section):
    """Which of several learned networks is pushed."""

    min_accuracy: float | None = Field(
        None,
        description="push the smallest whose metric is at least this (with evaluate.upper_bound: at most)",
        examples=[0.9],
    )
    max_cost: float | None = Field(
        None, gt=0, le=1, description="push the best that costs at most this fraction of the seed", examples=[0.5]
    )

    @model_validator(mode="after")
    def _one_rule(self) -> ChooseConfig:
        if (self.min_accuracy is None) == (self.max_cost is None):
            got = "neither" if self.min_accuracy is None else "both"
            raise ValueError(
                f"exactly one of 'min_accuracy' and 'max_cost' is expected, got {got}. For example: "
                "choose: {min_accuracy: 0.9}"
            )
        return self


class KubeflowApiConfig(_Section):
    """How 'submit' and 'schedule' reach the Kubeflow Pipelines API; secrets are in files or the environment."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/@]+(/.*)?$",
        description="address of the API, without /apis",
        examples=["https://kubeflow.example.com/pipeline"],
    )
    namespace: str | None = Field(
        None, min_length=1, description="your namespace, where Kubeflow has several users", examples=["team-a"]
    )
    experiment: str | None = Field(
        None, min_length=1, description="the experiment of the runs; by default named after the pipeline"
    )
    service_account: str | None = Field(
        None, min_length=1, description="Kubernetes service account that the steps run as", examples=["pipeline-runner"]
    )
    token_file: Location | None = Field(None, description="file with a bearer token", examples=["~/.kfp/token"])
    cookie_file: Location | None = Field(None, description="file with session cookies", examples=["~/.kfp/cookies"])
    ca_file: Location | None = Field(
        None, description="certificates (PEM) that the server's is checked with", examples=["ca.pem"]
    )
    timeout: float = Field(60.0, gt=0, le=3600, description="seconds to wait for an answer", examples=[60])
    attempts: int = Field(6, ge=1, le=20, description="how often a request is made, at most", examples=[6])


def _one_or_by_name(value: Any) -> str:
    return "by name" if isinstance(value, Mapping) else "one"


_KIND = Discriminator(_one_or_by_name)  # so that what is wrong is told of the kind that was given
_Share = Annotated[float, Field(gt=0, le=1)]
_Amount = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1, strict=True)]
Shares = Annotated[Annotated[_Share, Tag("one")] | Annotated[dict[str, _Share], Tag("by name")], _KIND]
Amounts = Annotated[Annotated[_Amount, Tag("one")] | Annotated[dict[str, _Amount], Tag("by name")], _KIND]
Counts = Annotated[Annotated[_Count, Tag("one")] | Annotated[dict[str, _Count], Tag("by name")], _KIND]


class PipelineConfig(_Section):
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
    multiple_of: Counts | None = Field(
        None, description="widths are multiples of so many channels, or numbers by layer", examples=[8]
    )
    min_channels: Counts | None = Field(
        None, description="channels that a layer keeps unless its branch goes, or numbers by layer", examples=[4]
    )
    budgets: tuple[float, ...] | None = Field(
        None,
        description="instead of target: several fractions of the seed's cost, a branch of the pipeline for each",
        examples=[[0.25, 0.5, 0.75]],
    )
    choose: ChooseConfig | None = Field(None, description="with budgets: which of the networks is pushed")
    gate: str = Field("auto", description="how a search switches channels off", examples=["auto"])
    cycles: int = Field(1, ge=1, le=20, description="how often to shrink and expand", examples=[2])
    expand_to: float | list[float | None] | None = Field(
        None,
        description="fraction of the seed's cost to widen to after each search: a number for all cycles or a list with "
        "one for each (null: stays shrunk)",
        examples=[0.5],
    )
    search: SearchConfig = Field(description="length of the training inside each search")
    retrain: RetrainConfig = Field(description="length of the final training")
    evaluate: EvaluateConfig = Field(description="when the model is good enough to be pushed")
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
    beam: BeamConfig = Field(DIRECT, description="where the data steps run, see the template")
    beam_args: tuple[str, ...] = Field((), description="further arguments of the Apache Beam pipelines, as they are")
    kubeflow: KubeflowConfig | None = Field(None, description="needed to compile for Kubeflow only")
    kubeflow_api: KubeflowApiConfig | None = Field(None, description="how 'submit' and 'schedule' reach the cluster")

    @model_validator(mode="after")
    def _known_cost_and_gate(self) -> PipelineConfig:
        try:
            cost_of(self.cost)
        except MorphError as error:
            raise ValueError(f"cost: {error}") from error
        for name in ("target", "budget"):
            amounts = getattr(self, name)
            try:
                if amounts is not None:
                    amounts_by_cost(name, amounts, self.cost)
            except MorphError as error:
                raise ValueError(f"{name}: {str(error).rstrip('.')}") from error
        try:
            check_gate(self.gate)
        except MorphError as error:
            raise ValueError(f"gate: {error}") from error
        return self

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


class _Loader(yaml.SafeLoader):
    """YAML as usual, but a key given twice is an error rather than a silent overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                message = f"the key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 reads 1e-3 (no dot) as text. Nobody who writes it means text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_config(path: str | os.PathLike[str]) -> PipelineConfig:
    """Reads and checks a configuration file.

    Args:
        path: the YAML file. Relative paths inside it are resolved against its directory.

    Raises:
        MorphError: the file cannot be read, is not YAML, or has problems; every problem is listed by its key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MorphError(
            f"The configuration {path} cannot be read: {reason}. Expected a YAML file; 'morph-tfx init DIR' writes one "
            "to start from."
        ) from error
    return parse_config(text, source=str(path), base=path.absolute().parent)


def parse_config(text: str, source: str, base: str | os.PathLike[str]) -> PipelineConfig:
    """Checks the text of a configuration; `source` names it in messages, `base` is where relative paths start."""
    try:
        # A subclass of SafeLoader: constructs plain data only.
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise MorphError(f"{source}{where}: not valid YAML: {getattr(error, 'problem', None) or error}.") from error
    if not isinstance(values, Mapping):
        raise MorphError(
            f"{source}: expected a mapping of keys (name: ..., data: ..., ...), got {type(values).__name__}. "
            "'morph-tfx init DIR' writes an annotated example."
        )
    try:
        return PipelineConfig.model_validate(values, context={"base": str(base)})
    except ValidationError as error:
        # One line a key: of a value that may be of several kinds, pydantic reports each kind that it is not.
        explained = [_explain(problem) for problem in error.errors()]
        problems = list({line.split(":")[0]: line for line in reversed(explained)}.values())[::-1]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise MorphError(f"{source}: {count}\n" + "\n".join(f"  {problem}" for problem in problems)) from error


_MAY_BE_SECRET = {"env", "secrets"}


def _kinds(annotation: Any) -> list[Any]:
    """What an annotation is made of, itself included: `dict[str, X] | None` is made of dict, str, X and None, too."""
    inner = [kind for argument in get_args(annotation) for kind in _kinds(argument)]
    return [annotation, *([get_origin(annotation)] if inner else []), *inner]


def _section_at(keys: list[str]) -> type[BaseModel] | None:
    """The section that the keys lead to, or None where they leave the schema."""
    section: type[BaseModel] = PipelineConfig
    keys = list(keys)
    while keys:
        field = section.model_fields.get(keys.pop(0))
        if field is None:
            return None
        kinds = _kinds(field.annotation)
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not nested:
            return None
        if dict in kinds and keys:
            keys.pop(0)  # a name that the user chose
        section = nested[0]
    return section


def _explain(problem: Any) -> str:
    """One line for one of pydantic's errors: the key, what was expected, how to fix it."""
    keys = [part for part in problem["loc"] if isinstance(part, str)]
    # Union members appear in pydantic's locations ("expand_to", "float"); the user knows keys only.
    while keys and _section_at(keys[:-1]) is None:
        keys.pop()
    name = ".".join(keys)
    message = problem["msg"]
    if problem["type"] == "value_error":
        message = message.removeprefix("Value error, ")
        return f"{name}: {message}." if name else f"{message}."
    parent = _section_at(keys[:-1]) or PipelineConfig
    if problem["type"] == "extra_forbidden":
        known = list(parent.model_fields)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"{name}: unknown key; {hint}The keys here are {', '.join(known)}."
    field = parent.model_fields[keys[-1]] if keys and keys[-1] in parent.model_fields else None
    about = f" ({field.description})." if field is not None and field.description else "."
    example = f" For example: {keys[-1]}: {field.examples[0]}" if field is not None and field.examples else ""
    if problem["type"] == "missing":
        return f"{name}: missing, and required{about}{example}"
    expected = re.sub(
        r"^(Input should be|String should|Input should have|List should|Value should)", "expected", message
    )
    expected = expected.replace("expected match pattern", "expected text that matches")
    # What stands where a secret could stand is not repeated in a message.
    got = "" if _MAY_BE_SECRET & set(keys) else f", got {problem['input']!r}"
    return f"{name}: {expected}{got}{about}{example}"
