"""Which machine this is, as a calibration file names it: its processor, its cores, its cards."""

from __future__ import annotations

import functools
import os
import pathlib
import platform


@functools.cache
def this_machine() -> str:
    """For instance "Intel(R) Xeon(R) CPU @ 2.20GHz, 2 cores", and after that the graphics cards."""
    cards = [
        name for name in map(_card, sorted(pathlib.Path("/proc/driver/nvidia/gpus").glob("*/information"))) if name
    ]
    return ", ".join([_processor(), f"{cores()} cores", *cards])


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    facts = _facts(pathlib.Path("/proc/cpuinfo"))
    return facts.get("model name") or platform.processor() or platform.machine()


def _card(path: pathlib.Path) -> str:
    return _facts(path).get("Model", "")


def _facts(path: pathlib.Path) -> dict[str, str]:
    """The lines "name : value" of a file of the kernel's; none where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
