"""How fast devices are: a table for the latency cost, and a reader of files for devices that are not in it.

A device is three numbers: what it computes, what it moves, and what every operation takes besides. Peaks are those of
datasheets, for one chip and for dense arithmetic ("half of sparse": the datasheet's figure counts zeros that are
skipped). A card has a further row for each number format that only its matrix units know ("matrix"). No network reaches
a peak, so these rows tell which of two structures is faster, and by about how much; for milliseconds that hold,
calibrate.

A calibration file is JSON. Most come from `morph_core.calibrate`, which measures (see `calibration`). One that was
written by hand has the fields of `Device`, for instance:

    {"schema_version": 1, "name": "phone", "precision": "float32", "gflops": 12.5, "gigabytes_per_second": 9.1,
     "overhead_us": 21.0, "source": "measured on 40 layers, median error 6 %"}
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Callable
from typing import Any

from ..errors import MorphError
from ..files import read_json
from .calibration import CALIBRATION_VERSION, Calibration, calibration_of

DEVICE_VERSION = 1
BYTES_OF = {"float32": 4, "tfloat32": 4, "bfloat16": 2, "float16": 2}


@dataclasses.dataclass(frozen=True)
class Device:
    """What the latency cost needs to know of a device.

    Attributes:
        name: in lower case, as in `cost="latency:v100"`.
        gflops: 10^9 floating-point operations a second, a multiply-add being 2.
        precision: the number format this holds in: "float32", "tfloat32", "bfloat16" or "float16". It also says how
            many bytes an element has.
        gigabytes_per_second: 10^9 bytes a second, to and from the device's memory.
        overhead_us: microseconds that every operation takes besides.
        source: where the figures are from.
    """

    name: str
    gflops: float
    precision: str
    gigabytes_per_second: float
    overhead_us: float
    source: str

    @property
    def bytes_per_element(self) -> int:
        return BYTES_OF[self.precision]


# No datasheet gives the time that starting an operation takes. 5 microseconds is the usual order of a kernel launch on
# a GPU and of an operation's dispatch on a CPU; on a TPU the network is one compiled program.
_LAUNCH_US, _COMPILED_US = 5.0, 0.0

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("k80", 4370, "float32", 240, _LAUNCH_US, "NVIDIA Tesla K80 datasheet, one of the board's two GPUs"),
        Device("p4", 5500, "float32", 192, _LAUNCH_US, "NVIDIA Tesla P4 datasheet"),
        Device("p100", 9300, "float32", 732, _LAUNCH_US, "NVIDIA Tesla P100 datasheet, PCIe, 16 GB"),
        Device("v100", 15_700, "float32", 900, _LAUNCH_US, "NVIDIA Tesla V100 datasheet, SXM2"),
        Device("v100-float16", 125_000, "float16", 900, _LAUNCH_US, "NVIDIA Tesla V100 datasheet, SXM2, matrix"),
        Device("t4", 8100, "float32", 300, _LAUNCH_US, "NVIDIA T4 datasheet"),
        Device("t4-float16", 65_000, "float16", 300, _LAUNCH_US, "NVIDIA T4 datasheet, matrix"),
        Device("a100", 19_500, "float32", 2039, _LAUNCH_US, "NVIDIA A100 datasheet, SXM, 80 GB"),
        Device("a100-tfloat32", 156_000, "tfloat32", 2039, _LAUNCH_US, "NVIDIA A100 datasheet, SXM, 80 GB, matrix"),
        Device("a100-bfloat16", 312_000, "bfloat16", 2039, _LAUNCH_US, "NVIDIA A100 datasheet, SXM, 80 GB, matrix"),
        Device("l4", 30_300, "float32", 300, _LAUNCH_US, "NVIDIA L4 datasheet"),
        Device("l4-bfloat16", 121_000, "bfloat16", 300, _LAUNCH_US, "NVIDIA L4 datasheet, half of sparse"),
        Device("h100", 67_000, "float32", 3350, _LAUNCH_US, "NVIDIA H100 datasheet, SXM"),
        Device("h100-tfloat32", 494_500, "tfloat32", 3350, _LAUNCH_US, "NVIDIA H100 datasheet, SXM, half of sparse"),
        Device("h100-bfloat16", 989_500, "bfloat16", 3350, _LAUNCH_US, "NVIDIA H100 datasheet, SXM, half of sparse"),
        Device("h200", 67_000, "float32", 4800, _LAUNCH_US, "NVIDIA H200 datasheet, SXM"),
        Device("h200-tfloat32", 494_500, "tfloat32", 4800, _LAUNCH_US, "NVIDIA H200 datasheet, SXM, half of sparse"),
        Device("h200-bfloat16", 989_500, "bfloat16", 4800, _LAUNCH_US, "NVIDIA H200 datasheet, SXM, half of sparse"),
        Device("tpu-v2", 46_000, "bfloat16", 700, _COMPILED_US, "Jouppi et al., CACM 63(7), 2020: one chip, two cores"),
        Device("tpu-v3", 123_000, "bfloat16", 900, _COMPILED_US, "Google Cloud, TPU v3 documentation: one chip"),
        Device("tpu-v4", 275_000, "bfloat16", 1200, _COMPILED_US, "Google Cloud, TPU v4 documentation: one chip"),
        Device("tpu-v5e", 197_000, "bfloat16", 819, _COMPILED_US, "Google Cloud, TPU v5e documentation: one chip"),
        Device(
            "cpu", 384, "float32", 51.2, _LAUNCH_US,
            "computed, no product: 4 cores x 3 GHz x 2 AVX2 multiply-adds of 8 numbers; 2 channels of DDR4-3200",
        ),
    )
}  # fmt: skip


def find_device(name: str) -> Device | Calibration:
    """A device of the table by its name, in any case, or of a calibration file by its path (ending in ".json").

    Raises:
        MorphError: there is no such device, or the file is no calibration.

    Example:
        >>> find_device("V100").gflops
        15700
    """
    if name.lower().endswith(".json"):
        return read_calibration(name)
    known = DEVICES.get(name.lower())
    if known is None:
        close = difflib.get_close_matches(name.lower(), DEVICES, n=1)
        raise MorphError(
            f"Unknown device {name!r}.{f' Did you mean {close[0]!r}?' if close else ''} Expected one of "
            f"{', '.join(DEVICES)}, or the path of a calibration file (.json)."
        )
    return known


def read_calibration(path: str | os.PathLike[str]) -> Device | Calibration:
    """What a calibration file holds: what `morph_core.calibrate` measured, or the figures of a device.

    Raises:
        MorphError: the file cannot be read, or is no calibration.
    """

    def refuse(what: str) -> MorphError:
        return MorphError(
            f"Calibration file {path}: {what[:300]}. Expected JSON with schema_version {CALIBRATION_VERSION}, as "
            f"morph-tfx calibrate writes it, or with schema_version {DEVICE_VERSION}, name, gflops, precision, "
            "gigabytes_per_second, overhead_us and source."
        )

    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise refuse(f"it cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise refuse(f"its fields are wrong ({type(data).__name__})")
    version = data.get("schema_version")
    if version == CALIBRATION_VERSION and not isinstance(version, bool):
        return calibration_of(data, refuse)
    return _device_of(data, refuse)


def _device_of(data: dict[str, Any], refuse: Callable[[str], MorphError]) -> Device:
    fields = ["schema_version", *(field.name for field in dataclasses.fields(Device))]
    if sorted(data) != sorted(fields):
        raise refuse(f"its fields are wrong ({', '.join(map(str, data))[:200] or 'none'})")
    version = data["schema_version"]
    if version != DEVICE_VERSION or isinstance(version, bool):
        raise refuse(f"schema_version is {version!r}")
    if not isinstance(data["name"], str) or not data["name"].strip() or not isinstance(data["source"], str):
        raise refuse("name and source must be text")
    if not isinstance(data["precision"], str) or data["precision"] not in BYTES_OF:
        raise refuse(f"precision is {data['precision']!r}, not one of {', '.join(BYTES_OF)}")
    for field in ("gflops", "gigabytes_per_second", "overhead_us"):
        if not _is_amount(data[field]) or (data[field] == 0 and field != "overhead_us"):
            raise refuse(f"{field} is {data[field]!r}, not a positive number")
    return Device(**{name: value for name, value in data.items() if name != "schema_version"})


def _is_amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
