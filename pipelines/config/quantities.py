"""Amounts of CPU, memory and time as Kubernetes and Kubeflow write them: numbers with their units."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"M": 10**6, "Mi": 2**20, "G": 10**9, "Gi": 2**30, "T": 10**12, "Ti": 2**40}


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
