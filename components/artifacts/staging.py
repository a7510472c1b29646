"""Whole directories or none: what a component writes appears complete, and nothing stays behind when it fails.

An artifact's directory is filled in a sibling of it and then renamed into place. On a local file system the rename is
one atomic step; on an object store it is a copy per file, and a crash in the middle of it leaves a directory that ML
Metadata does not list, because the execution has not succeeded.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator

from tfx.dsl.io import fileio


@contextlib.contextmanager
def complete_or_absent(directory: str) -> Iterator[str]:
    """Gives an empty directory to fill, which takes the place of `directory` when the block ends without an exception.

    Args:
        directory: the artifact's URI. What lies there already (an earlier attempt) is replaced.

    Yields:
        The path of the directory to fill, on the same file system.
    """
    directory = directory.rstrip("/")
    unfinished = f"{directory}.unfinished-{uuid.uuid4().hex[:8]}"
    fileio.makedirs(unfinished)
    try:
        yield unfinished
        if fileio.exists(directory):
            fileio.rmtree(directory)
        fileio.rename(unfinished, directory)
    finally:
        if fileio.exists(unfinished):
            fileio.rmtree(unfinished)


@contextlib.contextmanager
def emptied_on_failure(directory: str) -> Iterator[str]:
    """Lets a block write straight into `directory` (logs that people watch), and empties it on an exception.

    Args:
        directory: the artifact's URI; made when it does not exist.

    Yields:
        `directory`.
    """
    fileio.makedirs(directory)
    try:
        yield directory
    except BaseException:
        for name in fileio.listdir(directory):
            path = os.path.join(directory, str(name))
            fileio.rmtree(path) if fileio.isdir(path) else fileio.remove(path)
        raise
