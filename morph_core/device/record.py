"""What a calibration has measured so far, in a file beside the one that it is about to write.

A run that was killed goes on from it. The file is replaced as a whole every few seconds, so it is never half-written.
"""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

from ..errors import MorphError
from ..files import write_whole

_SAVE_EVERY_SECONDS = 2.0


class Record:
    """Milliseconds by a key, kept in a file.

    Args:
        path: of the calibration file; the record's lies beside it and ends in ".part".
        header: what was asked for, and where: another header belongs to another calibration.

    Raises:
        MorphError: the directory cannot be written, or the file there belongs to another calibration.
    """

    def __init__(self, path: pathlib.Path, header: dict[str, Any]) -> None:
        self.path = record_of(path)
        self._header, self._saved_at = json.loads(json.dumps(header)), time.monotonic()
        self.milliseconds: dict[str, float] = self._read() if self.path.exists() else {}
        self.save()

    def add(self, milliseconds: dict[str, float]) -> None:
        """Note what was measured; every few seconds, write all of it."""
        self.milliseconds.update(milliseconds)
        if time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        write_whole(self.path, json.dumps({"header": self._header, "milliseconds": self.milliseconds}).encode())
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Take the file away, when the calibration is written or can never be."""
        self.path.unlink()

    def _read(self) -> dict[str, float]:
        remove = (
            f"Remove it to measure anew, or give another file to write than {self.path.name.removesuffix('.part')}."
        )
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            header, found = data["header"], data["milliseconds"]
            measured = {str(key): float(value) for key, value in found.items()}
            different = [name for name in self._header if header.get(name) != self._header[name]]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise MorphError(f"{self.path} is no record of a calibration ({error}). {remove}") from error
        if different:
            name = different[0]
            raise MorphError(
                f"{self.path} was left by another calibration: its {name} is {str(header.get(name))[:80]!r}, that of "
                f"this one {str(self._header[name])[:80]!r}. {remove}"
            )
        return measured


def record_of(path: pathlib.Path) -> pathlib.Path:
    """Where the record of a calibration file lies until that is written."""
    return path.with_name(f"{path.name}.part")
