"""What is wrong with a configuration, in one line a key: what was expected there, and how to fix it.

The checks are pydantic's and the sections' own. Pydantic speaks of types and of places in its schema; people know the
keys of the file, and for those each field has a description and an example.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from .location import without_password
from .pipeline import PipelineConfig

Path = tuple[str | int, ...]
"""The keys, and places in lists, that lead to a value of the file."""

_MAY_BE_SECRET = {"env", "secrets"}
_LONGEST = 200  # characters of a value that are repeated in a message


def explained(error: ValidationError, lines: Mapping[Path, int]) -> list[str]:
    """The problems in a configuration, each in one line that begins with its line in the file and its key.

    Args:
        error: of the check.
        lines: the line of each key and of each element of a list in the file, by the way that leads there.
    """
    told = {}
    for problem in reversed(error.errors(include_url=False)):
        text = without_password(_explain(problem))
        # One line a key: of a value that may be of several kinds, pydantic reports each kind that it is not.
        told[text.split(":")[0]] = f"{_line(problem['loc'], text, lines)}{text}"
    return list(told.values())[::-1]


def _line(location: Path, text: str, lines: Mapping[Path, int]) -> str:
    """Where a problem is, as far as the file has what is wrong: "line 7: "; "" where it is about the whole file."""
    # Pydantic's locations have parts that the file has not; and what is told of several keys begins with one of them.
    way: Path = ()
    for part in location or text.partition(":")[0].split("."):
        way = (*way, part) if (*way, part) in lines else way
    return f"line {lines[way]}: " if way else ""


def _kinds(annotation: Any) -> list[Any]:
    """What an annotation is made of, itself included: `dict[str, X] | None` is made of dict, str, X and None, too."""
    inner = [kind for argument in get_args(annotation) for kind in _kinds(argument)]
    return [annotation, *([get_origin(annotation)] if inner else []), *inner]


def _section_at(keys: list[str]) -> type[BaseModel] | None:
    """The section that the keys lead to, or None where they leave the schema."""
    section: type[BaseModel] = PipelineConfig
    keys = list(keys)
    while keys:
        field = section.model_fields.get(keys.pop(0))
        if field is None:
            return None
        kinds = _kinds(field.annotation)
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not nested:
            return None
        if dict in kinds and keys:
            keys.pop(0)  # a name that the user chose
        section = nested[0]
    return section


def _explain(problem: Any) -> str:
    """One line for one of pydantic's errors: the key, what was expected, how to fix it."""
    keys = [part for part in problem["loc"] if isinstance(part, str)]
    # Union members appear in pydantic's locations ("expand_to", "float"); the user knows keys only.
    while keys and _section_at(keys[:-1]) is None:
        keys.pop()
    name = ".".join(keys)
    message = problem["msg"]
    if problem["type"] == "value_error":
        message = message.removeprefix("Value error, ").rstrip(".")
        return f"{name}: {message}." if name else f"{message}."
    parent = _section_at(keys[:-1]) or PipelineConfig
    if problem["type"] == "extra_forbidden":
        known = list(parent.model_fields)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"{name}: unknown key; {hint}The keys here are {', '.join(known)}."
    field = parent.model_fields[keys[-1]] if keys and keys[-1] in parent.model_fields else None
    about = f" ({field.description})." if field is not None and field.description else "."
    example = f" For example: {keys[-1]}: {field.examples[0]}" if field is not None and field.examples else ""
    if problem["type"] == "missing":
        return f"{name}: missing, and required{about}{example}"
    expected = re.sub(
        r"^(Input should be|String should|Input should have|List should|Value should)", "expected", message
    )
    expected = expected.replace("expected match pattern", "expected text that matches")
    # What stands where a secret could stand is not repeated in a message.
    got = repr(problem["input"])
    got = "" if _MAY_BE_SECRET & set(keys) else f", got {got[:_LONGEST]}{'...' if len(got) > _LONGEST else ''}"
    return f"{name}: {expected}{got}{about}{example}"
