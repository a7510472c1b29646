"""Files: JSON from outside is read within limits, and what is written is there as a whole or not at all.

A file that is larger or more deeply nested than any that is written here is damage or an attack, and so is a number
that no computer counts with. It ends in a reason, before memory or Python's stack do. A user's module is known by what
its files hold, wherever they lie.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any, NoReturn

from .errors import MorphError

MOST_BYTES = 1 << 26
"""Of a file; a structure of a network with a hundred thousand channels has one."""

MOST_DEPTH = 64
"""How deep objects and lists may be nested; a structure's are five deep."""

_MOST_DIGITS = 300  # 10 to that power is still a float


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Args:
        path: of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, or no JSON within the limits; the message is the reason.
    """
    return json_of(read_text(path))


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, of at most `MOST_BYTES`.

    Args:
        path: of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, or no text; the message is the reason.
    """
    with pathlib.Path(path).open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"the file is larger than {MOST_BYTES:,} bytes")
    return content.decode("utf-8")


def json_of(text: str) -> Any:
    """What JSON text means: objects, lists, text, truth values, nulls and numbers that are finite.

    Args:
        text: in JSON.

    Raises:
        ValueError: it is no JSON within the limits; the message is the reason.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES:,} characters")
    try:
        data = json.loads(text, parse_constant=_no_number, parse_int=_whole, parse_float=_finite)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    level = [data]
    for _ in range(MOST_DEPTH + 1):
        inside = [value for value in level if isinstance(value, dict | list)]
        level = [part for value in inside for part in (value.values() if isinstance(value, dict) else value)]
        if not inside:
            return data
    raise ValueError(_too_deep())


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file, whole or not at all, for everybody to read.

    Args:
        path: of the file.
        content: of it.

    Raises:
        MorphError: the place cannot be written.
    """
    try:
        replace_whole(path, content)
    except OSError as error:
        raise MorphError(
            f"{path} cannot be written ({error.strerror or error}). Give a file in a directory that exists, has "
            "room, and that you may write to."
        ) from error


def replace_whole(path: pathlib.Path, content: bytes) -> None:
    """As `write_whole`, for callers with a message of their own.

    Args:
        path: of the file.
        content: of it.

    Raises:
        OSError: the place cannot be written.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def sources_beside(module_file: pathlib.Path) -> list[pathlib.Path]:
    """The Python files in the directory of a user's module, which may import its neighbours; sorted by name.

    Args:
        module_file: one of them.
    """
    return sorted(module_file.parent.glob("*.py"))


def digest_of(files: Iterable[pathlib.Path]) -> str:
    """A hash of how files are called and what they hold, in hexadecimal; the same wherever they lie.

    Args:
        files: in an order that is the same every time.
    """
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _too_deep() -> str:
    return f"its objects and lists are nested more than {MOST_DEPTH} deep"


def _no_number(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a number")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"{digits[:10]}... has {len(digits)} digits, more than any number here")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is not a finite number")
    return number
