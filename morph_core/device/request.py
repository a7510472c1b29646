"""What can be asked of a device: runtimes, formats and counts, checked before Keras is loaded."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..cost.devices import DEVICES
from ..errors import MorphError

DTYPES: dict[str, tuple[str, ...]] = {
    "tf.function": ("float32", "bfloat16", "float16"),
    "xla": ("float32", "bfloat16", "float16"),
    "litert": ("float32",),
}
"""Name of a runtime -> the dtypes that it runs in."""


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: as in `format="litert-int8"`.
        suffix: how the file's name ends.
        tolerance: how far an output may be off, as a share of the largest output.
        says: what it is, for people.
    """

    name: str
    suffix: str
    tolerance: float
    says: str


FORMATS: dict[str, Format] = {
    kind.name: kind
    for kind in (
        Format("litert", ".tflite", 1e-3, "LiteRT, float32"),
        Format("litert-float16", ".tflite", 1e-2, "LiteRT, weights in float16"),
        Format("litert-dynamic", ".tflite", 0.1, "LiteRT, weights in int8, activations as they come"),
        Format("litert-int8", ".tflite", 0.2, "LiteRT, weights and activations in int8, float32 in and out"),
        Format("onnx", ".onnx", 1e-3, "ONNX, float32"),
    )
}


def check_runtime(name: str, dtype: str) -> None:
    """Raise a MorphError where there is no such runtime, wherever it will run, or not in this dtype."""
    if name not in DTYPES:
        raise MorphError(f"Unknown runtime {name!r}. Expected one of {', '.join(DTYPES)}.")
    if dtype not in DTYPES[name]:
        raise MorphError(f"Runtime '{name}' cannot run in {dtype!r}. Expected one of {', '.join(DTYPES[name])}.")


def check_name(device: str) -> None:
    """Raise a MorphError for a device that is called like one of the table: their costs could not be told apart."""
    if device.lower() in DEVICES:
        raise MorphError(
            f"calibrate: {device!r} is the name of a device whose datasheet is known, so latency:{device} would mean "
            f"two things. Give it another name, such as 'my-{device}'."
        )


def check_counts(**counts: int) -> None:
    """Raise a MorphError for a `batch_size`, `points`, `networks` or `repeats` that is no number in its bounds."""
    # The upper ones are far above what is of use, and below what would be planned for hours before the first run.
    bounds = {"batch_size": (1, 100_000), "points": (2, 100), "networks": (0, 1_000), "repeats": (3, 10_000)}
    for name, count in counts.items():
        least, most = bounds[name]
        if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= most:
            shown = count if not isinstance(count, int) or abs(count) < 10**30 else "a number of more than 30 digits"
            raise MorphError(f"calibrate: {name} is {shown!r}; expected a whole number from {least} to {most:,}.")


def check_request(
    formats: Sequence[str],
    tolerances: Mapping[str, float] | None = None,
    max_accuracy_loss: float | None = None,
    batch_size: int = 1,
) -> None:
    """Raise a MorphError where files in several formats are asked for in a way that `export` would refuse."""
    if isinstance(formats, str) or not formats or len(set(formats)) != len(formats):
        raise MorphError(
            f"formats is {formats!r}; expected a list of different ones of {', '.join(FORMATS)}, such as ['litert']."
        )
    for name in formats:
        format_named(name)
    for name, tolerance in (tolerances or {}).items():
        if name not in formats:
            raise MorphError(f"tolerances names {name!r}, which is none of the formats ({', '.join(formats)}).")
        if not _is_number(tolerance) or not tolerance > 0:
            raise MorphError(
                f"tolerances[{name!r}] is {tolerance!r}; expected a number above 0, a share of the largest output."
            )
    if max_accuracy_loss is not None and (not _is_number(max_accuracy_loss) or not 0 <= max_accuracy_loss < 1):
        raise MorphError(f"max_accuracy_loss is {max_accuracy_loss!r}; expected a share from 0 to 1, such as 0.01.")
    check_batch_size(batch_size)


def check_tolerance(tolerance: Any) -> None:
    """Raise a MorphError unless this is None, or a share that a difference can be within."""
    if tolerance is not None and (not _is_number(tolerance) or not tolerance > 0):
        raise MorphError(
            f"export: tolerance is {tolerance!r}; expected a number above 0, a share of the largest output, such as "
            "0.01."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_batch_size(batch_size: Any) -> None:
    """Raise a MorphError unless this is a number of examples."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise MorphError(f"export: batch_size is {batch_size!r}; expected a whole number from 1.")


def format_named(name: str) -> Format:
    """A format by its name.

    Raises:
        MorphError: there is none of that name.
    """
    kind = FORMATS.get(name)
    if kind is None:
        close = difflib.get_close_matches(str(name), FORMATS, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise MorphError(f"Unknown format {name!r}. {hint}Expected one of {', '.join(FORMATS)}.")
    return kind
