"""A saved .keras file, looked into before Keras loads it: it comes from wherever somebody found it.

Keras loads one in safe mode, which runs no code of the file. What it does not look at is how much a small file stands
for, and whether its weights are in it: HDF5 can name other files of the machine, whose content would become weights.
"""

from __future__ import annotations

import io
import posixpath
import stat
import zipfile
from pathlib import Path
from typing import Any

import h5py

from morph_core import MorphError
from morph_core.files import MOST_BYTES, json_of

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_TIMES, _ROOM = 50, 1 << 26  # how much larger than the file its content may be, and bytes that are always fine
_MOST_ENTRIES = 10_000


def check_keras_file(path: Path) -> None:
    """Looks into a .keras file.

    Args:
        path: of the file.

    Raises:
        MorphError: it is no archive, stands for far more than its size, names places outside of it, or its weights
            are in other files.
    """

    def need(holds: bool, what: str) -> None:
        if not holds:
            raise MorphError(
                f"{path} is not loaded: {what}. Take the file that model.save('model.keras') wrote, unchanged."
            )

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            need(len(entries) <= _MOST_ENTRIES, f"it has {len(entries):,} entries")
            for entry in entries:
                name = entry.filename.replace("\\", "/")
                inside = not posixpath.isabs(name) and ".." not in name.split("/") and ":" not in name.split("/")[0]
                need(inside, f"its entry {entry.filename!r} leads out of it")
                need(not stat.S_ISLNK(entry.external_attr >> 16), f"its entry {entry.filename!r} is a link")
            size = sum(entry.file_size for entry in entries)
            need(size <= _TIMES * path.stat().st_size + _ROOM, f"unpacked it would have {size:,} bytes")
            names = {entry.filename: entry for entry in entries}
            need(_CONFIG in names and names[_CONFIG].file_size <= MOST_BYTES, f"it has no {_CONFIG} of a usual size")
            try:
                json_of(archive.read(_CONFIG).decode("utf-8"))
            except ValueError as error:
                need(False, f"its {_CONFIG} cannot be read ({error})")
            if _WEIGHTS in names:
                with archive.open(_WEIGHTS) as packed, h5py.File(io.BytesIO(packed.read())) as weights:
                    elsewhere = _elsewhere(weights)
                    need(not elsewhere, f"its weights {elsewhere!r} are in another file")
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise MorphError(
            f"{path} cannot be loaded ({error}). Give a model saved with model.save('model.keras')."
        ) from error


def _elsewhere(group: Any) -> str:
    """The first entry of an HDF5 file that lies in another file; "" when all are in this one."""
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            return f"{group.name}/{name}"
        if isinstance(link, h5py.SoftLink):  # to another place in this file, which is looked at by its own name
            continue
        found = group[name]
        if isinstance(found, h5py.Group):
            if inside := _elsewhere(found):
                return inside
        elif found.external or found.is_virtual:
            return found.name
    return ""
