"""What each step of a Kubeflow job needs from the cluster, as the configuration says it, and how its entries combine.

`kubeflow.steps` maps names to settings. A name is `"*"` (every step), a component (`MorphTrainer`: all its cycles) or
one step (`MorphTrainer-2`); for a step they are laid over each other in that order. The `profile` of the last of them
that names one lies right below that entry. A later layer replaces a single value; `env` and `node_selector` are joined
name by name, lists are added up, and null takes away what earlier layers gave. What cannot work is refused for each
entry and, once more, for what a step's entries are together.

Secrets are named, never given: no field here holds one, variables that look like one are refused, and messages do not
repeat what was written there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from morph_core import MorphError

from .section import Section

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
    "PushedStructure",
    *TRAINING,
    "UniformWidths",
    "Evaluator",
    "Frontier",
    "Pusher",
)
"""Components whose steps one pipeline or the other has: one configuration serves several pipelines."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"M": 10**6, "Mi": 2**20, "G": 10**9, "Gi": 2**30, "T": 10**12, "Ti": 2**40}
# A path is no secret: GOOGLE_APPLICATION_CREDENTIALS=/var/secrets/key.json names the file that a mounted secret makes.
_LOOKS_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
# Where the launcher puts artifacts, as the open-source one does for each kind of store.
_TAKEN_BY_KUBEFLOW = ("/minio", "/gcs", "/s3", "/kfp-launcher", "/oci")


def _text_of_number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _some_cores(cpu: str) -> str:
    if not cores_of(cpu) > 0:
        raise ValueError(f"more than no CPU is expected, got {cpu}")
    return cpu


def _unit_missing(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"a number with its unit is expected, got {value:g} without one")
    return value


Cores = Annotated[
    str, BeforeValidator(_text_of_number), Field(pattern=r"^(\d+(\.\d+)?|\d+m)$"), AfterValidator(_some_cores)
]
Memory = Annotated[str, BeforeValidator(_unit_missing), Field(pattern=r"^[1-9]\d*(M|Mi|G|Gi|T|Ti)$")]
Duration = Annotated[str, BeforeValidator(_unit_missing), Field(pattern=r"^[1-9]\d*[smhd]$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:]*[^/:]$")]
# As Kubernetes names what lives in a namespace.
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def seconds_of(duration: str) -> int:
    """`"90m"` as seconds: 5400."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def bytes_of(memory: str) -> int:
    """`"16Gi"` as bytes."""
    number, unit = re.fullmatch(r"(\d+)(\D+)", memory).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return int(number) * _BYTES[unit]


def cores_of(cpu: str) -> float:
    """`"500m"` as cores: 0.5."""
    return float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)


class Accelerator(Section):
    """The accelerators of one pod."""

    type: str = Field(
        "nvidia.com/gpu",
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="the Kubernetes resource, such as nvidia.com/gpu, amd.com/gpu or google.com/tpu",
        examples=["nvidia.com/gpu"],
    )
    count: Literal[1, 2, 4, 8, 16] = Field(1, description="how many of them one pod gets", examples=[1])

    @property
    def is_tpu(self) -> bool:
        return "tpu" in self.type


class Toleration(Section):
    """A taint of nodes that the step's pod puts up with."""

    key: str | None = Field(None, min_length=1, description="the taint's key; none tolerates every taint")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="whether the taint's value matters")
    value: str | None = Field(None, description="the taint's value, with operator Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="the taint's effect"
    )
    seconds: int | None = Field(None, ge=0, description="with NoExecute: for how long")

    @model_validator(mode="after")
    def _as_kubernetes_allows(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists takes no 'value'; leave it out, or expect one with operator Equal")
        if self.operator == "Equal" and (self.key is None or self.value is None):
            raise ValueError("operator Equal needs 'key' and 'value'; to accept any value: operator: Exists")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError(f"'seconds' counts with effect NoExecute only, got effect {self.effect}")
        return self


class Volume(Section):
    """A PersistentVolumeClaim, mounted."""

    pvc: ObjectName = Field(description="name of the PersistentVolumeClaim", examples=["datasets"])
    mount: MountPath = Field(description="absolute path in the container, no '/' at the end", examples=["/data"])


class Secret(Section):
    """A secret of the namespace, by name: its keys as environment variables, or all of it as files."""

    name: ObjectName = Field(description="name of the Secret in the job's namespace", examples=["s3-credentials"])
    env: dict[Variable, str] | None = Field(
        None, description="environment variable: key in the secret", examples=["{AWS_SECRET_ACCESS_KEY: secretkey}"]
    )
    mount: MountPath | None = Field(
        None, description="directory in which each key becomes a file", examples=["/var/secrets/gcs"]
    )

    @model_validator(mode="after")
    def _used(self) -> Secret:
        if (self.env is None) == (self.mount is None):
            got = "neither" if self.env is None else "both"
            raise ValueError(
                f"exactly one of 'env' (variable: key in the secret) and 'mount' (a directory) is expected, got {got}"
            )
        return self


class Retries(Section):
    """What happens after a step failed."""

    count: int = Field(ge=0, le=20, description="how often a failed step is started again", examples=[2])
    backoff: Duration = Field("30s", description="pause before the first retry, with its unit", examples=["30s"])
    factor: float = Field(2.0, ge=1, description="what each further pause is longer by", examples=[2])
    longest: Duration = Field("1h", description="bound of the pauses, with its unit, at most 1h", examples=["1h"])

    @model_validator(mode="after")
    def _bounded(self) -> Retries:
        if not seconds_of(self.backoff) <= seconds_of(self.longest) <= 3600:
            raise ValueError(
                f"backoff <= longest <= 1h is expected, as Kubeflow has it; got {self.backoff} and {self.longest}"
            )
        return self


def _count_alone(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


class StepSettings(Section):
    """What a step needs from the cluster; what is not said is left to the cluster."""

    profile: str | None = Field(None, description="settings under a name, see 'profiles'", examples=["gpu"])
    image: str | None = Field(None, min_length=1, description="container image, if not kubeflow.image")
    cpu: Cores | None = Field(None, description="most CPU, in cores or thousandths of one", examples=[4, "500m"])
    cpu_request: Cores | None = Field(None, description="CPU that is set aside, in cores", examples=[2])
    memory: Memory | None = Field(None, description="most memory, with its unit", examples=["16Gi"])
    memory_request: Memory | None = Field(None, description="memory that is set aside", examples=["8Gi"])
    accelerator: Accelerator | None = Field(None, description="accelerators of the pod")
    node_selector: dict[str, str] | None = Field(
        None, description="labels that the node must have", examples=["{disk: ssd}"]
    )
    tolerations: tuple[Toleration, ...] | None = Field(None, description="taints that the pod tolerates")
    volumes: tuple[Volume, ...] | None = Field(None, description="PersistentVolumeClaims to mount")
    shared_memory: Memory | None = Field(
        None, description="size of /dev/shm, which counts as memory of the pod", examples=["2Gi"]
    )
    secrets: tuple[Secret, ...] | None = Field(None, description="secrets of the namespace, by name")
    image_pull_secrets: tuple[ObjectName, ...] | None = Field(
        None, description="secrets with which the image is pulled, by name", examples=["[registry]"]
    )
    env: dict[Variable, str] | None = Field(
        None, description="environment variables, none of them secret", examples=["{TF_CPP_MIN_LOG_LEVEL: '2'}"]
    )
    retries: Annotated[Retries, BeforeValidator(_count_alone)] | None = Field(
        None, description="how often a failed step is started again, and after which pauses", examples=[2]
    )
    timeout: Duration | None = Field(
        None, description="after which a running step is stopped: a whole number and s, m, h or d", examples=["6h"]
    )
    cache: bool | None = Field(None, description="whether Kubeflow may reuse the outputs of an equal step")

    @property
    def given(self) -> dict[str, Any]:
        """What the entry says, null included; the rest is left to other entries."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}

    @model_validator(mode="after")
    def _can_work(self) -> StepSettings:
        for check in (_requests, _accelerator_and_nodes, _mounts, _variables):
            check(self)
        return self


def _requests(step: StepSettings) -> None:
    if step.cpu and step.cpu_request and cores_of(step.cpu_request) > cores_of(step.cpu):
        raise ValueError(f"cpu_request ({step.cpu_request}) is above cpu ({step.cpu}), the limit")
    if step.memory and step.memory_request and bytes_of(step.memory_request) > bytes_of(step.memory):
        raise ValueError(f"memory_request ({step.memory_request}) is above memory ({step.memory}), the limit")
    if step.memory and step.shared_memory and bytes_of(step.shared_memory) >= bytes_of(step.memory):
        raise ValueError(
            f"shared_memory ({step.shared_memory}) counts as memory of the pod and leaves nothing of its limit "
            f"({step.memory}). Raise memory or lower shared_memory"
        )


def _accelerator_and_nodes(step: StepSettings) -> None:
    if step.accelerator is None:
        return
    selected = {f"node_selector {key}: {value}" for key, value in (step.node_selector or {}).items()}
    tolerated = {f"toleration {toleration.key}" for toleration in step.tolerations or () if toleration.key}
    if step.accelerator.is_tpu:
        wrong = re.compile(r"nvidia|amd\.com|gke-accelerator|[/-]gpu\b")
        hint = "on GKE cloud.google.com/gke-tpu-accelerator and cloud.google.com/gke-tpu-topology select TPU nodes"
    else:
        wrong = re.compile(r"tpu")
        hint = "leave it out, or set accelerator.type: google.com/tpu"
    for place in sorted(selected | tolerated):
        if wrong.search(place):
            raise ValueError(f"accelerator.type is {step.accelerator.type}, but {place} is of other nodes; {hint}")


def _mounts(step: StepSettings) -> None:
    mounts = [("volumes", volume.mount) for volume in step.volumes or ()]
    mounts += [("secrets", secret.mount) for secret in step.secrets or () if secret.mount]
    seen = {"/dev/shm": "shared_memory"} if step.shared_memory else {}
    for kind, path in mounts:
        if path in seen:
            raise ValueError(f"{kind} and {seen[path]} both mount {path}; give each a path of its own")
        if any(path == taken or path.startswith(f"{taken}/") for taken in _TAKEN_BY_KUBEFLOW):
            raise ValueError(f"{kind} mounts {path}, where Kubeflow's launcher puts artifacts; choose another path")
        seen[path] = kind


def _variables(step: StepSettings) -> None:
    for name, value in (step.env or {}).items():
        if _LOOKS_SECRET.search(name) and not value.startswith("/"):
            raise ValueError(
                f"env.{name} looks like a secret, and its value would be readable in the job. Put it into a Secret of "
                f"the namespace and name that: secrets: [{{name: my-secret, env: {{{name}: key-in-the-secret}}}}]"
            )
    names = [("env", name) for name in step.env or ()]
    names += [(f"secret {secret.name}", name) for secret in step.secrets or () for name in secret.env or ()]
    given: dict[str, str] = {}
    for source, name in names:
        if name in given:
            raise ValueError(f"the variable {name} is given by {given[name]} and by {source}; one is expected")
        given[name] = source


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
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise MorphError(
            f"kubeflow.steps: unknown profile {name!r}; {hint}The profiles are {', '.join(sorted(known))}."
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
        component = re.sub(r"-\d+$", "", name)
        of_another_pipeline = component in COMPONENTS and component not in job.values()
        if name not in known and not of_another_pipeline:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            here = dict.fromkeys(name for pair in job.items() for name in pair)
            raise MorphError(
                f"kubeflow.steps.{name}: unknown step; {hint}The steps and components of this job are "
                f"{', '.join(here)}; '*' means every step."
            )
