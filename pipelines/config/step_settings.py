"""What one step of a Kubeflow job can ask of the cluster, and what cannot work is refused.

Secrets are named, never given: no field here holds one, variables that look like one are refused, and messages do not
repeat what was written there.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .quantities import Cores, Duration, Memory, bytes_of, cores_of, seconds_of
from .section import Section, expect_one

# A path is no secret: GOOGLE_APPLICATION_CREDENTIALS=/var/secrets/key.json names the file that a mounted secret makes.
_LOOKS_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
# Where the launcher puts artifacts, as the open-source one does for each kind of store.
_TAKEN_BY_KUBEFLOW = ("/minio", "/gcs", "/s3", "/kfp-launcher", "/oci")


MountPath = Annotated[str, Field(pattern=r"^/[^:]*[^/:]$")]
# As Kubernetes names what lives in a namespace.
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


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
        expect_one(self, {"env": "variable: key in the secret", "mount": "a directory"})
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
