"""Devices: the one that is measured before the search, and the files that the model becomes for others."""

from __future__ import annotations

from pydantic import Field, model_validator

from morph_core import MorphError
from morph_core.device.request import FORMATS, check_counts, check_name, check_request, check_runtime

from .section import Section


class CalibrateConfig(Section):
    """What is measured, where the step DeviceCalibrator runs, for `cost: latency`."""

    device: str = Field(
        "device",
        pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$",
        description="what to call the device in reports: letters, digits, '-', '_' and '.'",
        examples=["edge-node"],
    )
    runtime: str = Field(
        "tf.function", description="how the network will run: tf.function, xla or litert", examples=["xla"]
    )
    dtype: str = Field("float32", description="in what: float32, bfloat16 or float16", examples=["bfloat16"])
    batch_size: int = Field(1, strict=True, description="examples at once", examples=[1])
    points: int = Field(6, strict=True, description="widths at which each operation is measured", examples=[6])
    networks: int = Field(8, strict=True, description="whole networks that are measured besides", examples=[8])
    repeats: int = Field(30, strict=True, description="repeats of each measurement", examples=[30])

    @model_validator(mode="after")
    def _can_be_measured(self) -> CalibrateConfig:
        try:
            check_name(self.device)
            check_runtime(self.runtime, self.dtype)
            check_counts(batch_size=self.batch_size, points=self.points, networks=self.networks, repeats=self.repeats)
        except MorphError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return self


class ExportConfig(Section):
    """Which files a model that passed is written as, besides the SavedModel that is pushed."""

    formats: tuple[str, ...] = Field(
        ("litert",), description=f"kinds of files: {', '.join(FORMATS)}", examples=["[litert, litert-int8]"]
    )
    batch_size: int = Field(1, strict=True, description="examples at once that the files are made for", examples=[1])
    tolerances: dict[str, float] = Field(
        default_factory=dict,
        description="by format, how far outputs may be off, as a share of the largest",
        examples=["{litert-int8: 0.2}"],
    )
    max_accuracy_loss: float | None = Field(
        None, description="how much less accurate than the model a file may be", examples=[0.01]
    )
    keep_slower: bool = Field(
        False, description="keep files that are slower than the model where they are compared", examples=["true"]
    )

    @model_validator(mode="after")
    def _can_be_written(self) -> ExportConfig:
        try:
            check_request(list(self.formats), self.tolerances, self.max_accuracy_loss, self.batch_size)
        except MorphError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return self
