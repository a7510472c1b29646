"""What a job needs to know about the cluster that it runs on, and how that cluster is reached."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from morph_core import MorphError

from .beam import BeamConfig
from .location import Location
from .section import Section
from .step_settings import Accelerator, StepSettings
from .steps import COMPONENTS, TRAINING, component_of, settings_of


class KubeflowConfig(Section):
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
        description="model to compare with, a path on a volume of the steps or an address; open-source Kubeflow "
        "cannot look up the latest blessed one",
        examples=["gs://bucket/serving/1700000000"],
    )
    structure: str | None = Field(
        None,
        min_length=1,
        description="where the pods find the structure to retrain, if not at retrain_pipeline.structure",
        examples=["/mnt/best/structure.json"],
    )
    accelerator: Accelerator | None = Field(None, description="accelerators of each MorphTrainer and Retrainer step")
    cpu: float | None = Field(None, gt=0, le=1e5, description="CPU limit of those steps, in cores", examples=[4])
    memory: float | None = Field(
        None, ge=0.001, le=1e6, description="memory limit of those steps, in GB (10^9 bytes)", examples=[16]
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
                self.settings_of(name, component_of(name))
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


class KubeflowApiConfig(Section):
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
