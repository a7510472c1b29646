"""From the text of a configuration to a `PipelineConfig`, or to one message with all that is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from morph_core import MorphError

from .mistakes import explained
from .pipeline import PipelineConfig


def load_config(path: str | os.PathLike[str]) -> PipelineConfig:
    """Reads and checks a configuration file.

    Args:
        path: the YAML file. Relative paths inside it are resolved against its directory.

    Raises:
        MorphError: the file cannot be read, is not YAML, or has problems; every problem is listed by its key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MorphError(
            f"The configuration {path} cannot be read: {reason}. Expected a YAML file; 'morph-tfx init DIR' writes one "
            "to start from."
        ) from error
    return parse_config(text, source=str(path), base=path.absolute().parent)


def parse_config(text: str, source: str, base: str | os.PathLike[str]) -> PipelineConfig:
    """Checks the text of a configuration.

    Args:
        text: YAML.
        source: what messages call it.
        base: the directory at which relative paths start.

    Raises:
        MorphError: as `load_config`.
    """
    try:
        # A subclass of SafeLoader: constructs plain data only.
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise MorphError(f"{source}{where}: not valid YAML: {getattr(error, 'problem', None) or error}.") from error
    if not isinstance(values, Mapping):
        raise MorphError(
            f"{source}: expected a mapping of keys (name: ..., data: ..., ...), got {type(values).__name__}. "
            "'morph-tfx init DIR' writes an annotated example."
        )
    try:
        return PipelineConfig.model_validate(values, context={"base": str(base)})
    except ValidationError as error:
        problems = explained(error)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise MorphError(f"{source}: {count}\n" + "\n".join(f"  {problem}" for problem in problems)) from error


class _Loader(yaml.SafeLoader):
    """YAML as usual, but a key given twice is an error rather than a silent overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                message = f"the key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 reads 1e-3 (no dot) as text. Nobody who writes it means text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
