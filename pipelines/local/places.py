"""The places that a local run writes to, looked at before it begins: hours later, what was found out is lost."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from morph_core import MorphError

from ..config import PipelineConfig, is_uri

_TABLE = "MLMDEnv"  # every store of ML Metadata has it


def check_places(config: PipelineConfig) -> None:
    """Looks whether a run can write where it has to, and makes nothing yet.

    Raises:
        MorphError: something else is where a directory should be, nothing can be written there, or the metadata store
            is no database, or that of something else.
    """
    for key, directory in directories(config).items():
        there = what_exists(directory)
        if not there.is_dir():
            raise MorphError(f"{key}: {there} is a file. Expected a directory there, or none yet; name another place.")
        if not os.access(there, os.W_OK | os.X_OK):
            why, remedy = "its permissions forbid it", "Change them"
            if os.statvfs(there).f_flag & os.ST_RDONLY:
                why, remedy = "its file system is mounted read-only", "Mount it for writing"
            raise MorphError(f"{key}: nothing can be written to {there}: {why}. {remedy}, or name another place.")
    _check_store(Path(config.metadata))


def make_places(config: PipelineConfig) -> None:
    """Makes the directories that a run writes to; that of pushed models Pusher makes.

    Raises:
        MorphError: one cannot be made.
    """
    for key, directory in directories(config).items():
        if key == "push_to":
            continue
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MorphError(
                f"{key}: {directory} cannot be made ({error.strerror}: {error.filename}). Name another place, or make "
                "room for it."
            ) from error


def what_exists(directory: Path) -> Path:
    """The directory, or the one above it that is there already."""
    return next(path for path in (directory, *directory.parents) if path.exists())


def directories(config: PipelineConfig) -> dict[str, Path]:
    """The directories on this machine that a run writes to, by the key of the configuration."""
    places = {"pipeline_root": config.pipeline_root, "metadata": str(Path(config.metadata).parent)}
    if not is_uri(config.push_to):
        places["push_to"] = config.push_to
    return {key: Path(directory).absolute() for key, directory in places.items()}


def _check_store(file: Path) -> None:
    """Raises MorphError unless ML Metadata can use the file: a store of its own, or none yet."""
    if not file.exists():
        return
    advice = "Name another file, or move this one away; without it every step runs anew."
    if not file.is_file():
        raise MorphError(f"metadata: {file} is not a file. Expected the sqlite file of ML Metadata. {advice}")
    if not os.access(file, os.R_OK | os.W_OK):
        raise MorphError(f"metadata: {file} cannot be opened: its permissions forbid reading or writing. {advice}")
    try:
        with closing(sqlite3.connect(file)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise MorphError(
            f"metadata: {file} cannot be read as the sqlite file of ML Metadata: {error}. {advice}"
        ) from error
    if tables and _TABLE not in tables:
        raise MorphError(
            f"metadata: {file} is a database of something else; it has the tables {', '.join(sorted(tables)[:5])}. "
            f"Expected a store of ML Metadata. {advice}"
        )
