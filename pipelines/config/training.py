"""How long the trainings take, over which devices they are spread, and which weights they keep or start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .section import Section, expect_one


class DistributionConfig(Section):
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


class TrainingConfig(Section):
    """How long one training run takes, whole epochs or a number of steps, and on what it runs."""

    epochs: int | None = Field(None, ge=1, description="passes over the training split", examples=[20])
    steps: int | None = Field(None, ge=1, description="training steps (batches)", examples=[5000])
    batch_size: int = Field(32, ge=1, description="examples per step, over all devices", examples=[128])
    distribution: DistributionConfig | None = Field(None, description="devices or machines that share each step")
    mixed_precision: bool = Field(False, description="compute in bfloat16", examples=["true"])

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        expect_one(self, {"epochs": "", "steps": ""}, example="epochs: 20")
        return self


class DistillConfig(Section):
    """How a network that is cut listens to the seed that it was cut from."""

    temperature: float = Field(
        3.0, gt=0, description="by which answers about classes are softened, above 0", examples=[3.0]
    )
    weight: float = Field(
        0.5, gt=0, le=1, description="of the teacher beside the labels, above 0 and at most 1", examples=[0.5]
    )


def _from_flag(value: Any) -> Any:
    """`true` for all settings as they are by default, `false` for none."""
    if value is True:
        return {}
    if value is None or value is False:
        return None
    if not isinstance(value, (Mapping, DistillConfig)):
        raise ValueError(
            f"true, false or settings are expected, got {value!r}. For example: "
            "distill: {temperature: 3.0, weight: 0.5}"
        )
    return value


class SearchConfig(TrainingConfig):
    """The training inside each search."""

    distill: Annotated[DistillConfig | None, BeforeValidator(_from_flag)] = Field(
        None,
        description="with finish: in_place or both, the network that is cut also learns to answer as the seed did, a "
        "weak teacher: compare",
        examples=["true, or {temperature: 3.0, weight: 0.5}"],
    )
    keep_weights: bool = Field(
        False, description="write the last search's weights beside its structure", examples=["true"]
    )


class RetrainConfig(TrainingConfig):
    """The training of the found structure."""

    warm_start: bool = Field(
        False, description="start from the weights that the search kept, not from fresh ones", examples=["true"]
    )
