"""Places that a configuration names: paths, which start at the configuration file, and remote addresses."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo


def is_uri(path: str) -> bool:
    """Whether `path` names something on a remote file system (`gs://...`), which is never resolved locally."""
    return "://" in path


LAUNCHER_ONLY = "minio://"
"""What TFX cannot open: only Kubeflow's launcher can, and it copies artifacts, not raw data nor what is pushed."""


def without_password(text: str) -> str:
    """The text without the user and password of addresses in it, as it may be shown."""
    return re.sub(r"//[^/@\s]*@", "//...@", text)


def only_the_launcher_reads(path: str) -> bool:
    """Whether `path` names something that TFX cannot open."""
    return path.startswith(LAUNCHER_ONLY)


def _resolve(value: Any, info: ValidationInfo) -> Any:
    base = (info.context or {}).get("base")
    if not isinstance(value, (str, os.PathLike)) or base is None or is_uri(str(value)):
        return value
    # normpath, not resolve(): a link the user made stays the path the user sees.
    return os.path.normpath(os.path.join(base, os.path.expanduser(value)))


Location = Annotated[str, BeforeValidator(_resolve), Field(min_length=1)]
"""A path, made absolute from the directory of the configuration file, or a URI, left alone."""
