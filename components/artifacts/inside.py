"""Files of an artifact, read within limits, and only where they lie in its directory.

An artifact may come from elsewhere: a model that somebody pushed, a structure that is imported. A link in it could lead
to any file of the machine that reads it, and an endless or huge file could take all memory.
"""

import os

from tfx.dsl.io import fileio

from morph_core import MorphError
from morph_core.files import MOST_BYTES


def read_inside(directory: str, name: str, most_bytes: int = MOST_BYTES) -> bytes | None:
    """The content of a file in an artifact's directory, or None when it is not there.

    Args:
        directory: the artifact's URI, or the directory of a SavedModel in it.
        name: of the file, relative to the directory.
        most_bytes: that the file may have.

    Raises:
        MorphError: the file leads out of the directory, or is too large.
    """
    path = os.path.join(directory, name)
    if not fileio.exists(path):
        return None
    if "://" not in directory:
        top = os.path.realpath(directory)
        if os.path.commonpath([top, os.path.realpath(path)]) != top:
            raise MorphError(
                f"{path} leads out of the artifact, to {os.path.realpath(path)}, and is not read. Put a copy of the "
                "file in its place."
            )
    return read_bounded(path, most_bytes)


def read_bounded(path: str, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a file, wherever it lies.

    Args:
        path: of the file, which is there.
        most_bytes: that it may have.

    Raises:
        MorphError: it is too large.
    """
    with fileio.open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise MorphError(
            f"{path} is larger than {most_bytes:,} bytes, more than it can need, and is not read. Restore the file, or "
            "run the component again that wrote it."
        )
    return content


def text_inside(directory: str, name: str) -> str | None:
    """The text of a file in an artifact's directory, or None when it is not there.

    Args:
        directory: as `read_inside` takes it.
        name: of the file, relative to the directory.

    Raises:
        MorphError: as `read_inside`, or the file is no text.
    """
    content = read_inside(directory, name)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MorphError(
            f"{os.path.join(directory, name)} is not a text file ({error}). Restore it, or run the component again "
            "that wrote it."
        ) from error
