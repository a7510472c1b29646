"""From the text of a configuration to a `PipelineConfig`, or to one message with all that is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from morph_core import MorphError

from .mistakes import explained
from .pipeline import PipelineConfig

MOST_BYTES = 1 << 18
"""Of a configuration; the annotated example with all its comments has 12,000."""

MOST_VALUES = 10_000
"""Values and keys in a configuration, with those that aliases stand for written out."""

MOST_DEPTH = 32
"""How deep lists and mappings may be nested."""


def load_config(path: str | os.PathLike[str]) -> PipelineConfig:
    """Reads and checks a configuration file.

    Args:
        path: the YAML file. Relative paths inside it are resolved against its directory.

    Raises:
        MorphError: the file cannot be read, is not YAML or too large, or has problems; every problem is listed by its
            line and its key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode("utf-8-sig")
    except (OSError, ValueError) as error:  # a path or a content that is no text is a ValueError
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
    if len(text) > MOST_BYTES:
        raise MorphError(
            f"{source}: the file is larger than {MOST_BYTES:,} bytes. Expected the configuration, not the data; values "
            "that fill a file belong into one of their own, which the module file reads."
        )
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        values = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise MorphError(
            f"{source}{where}: {'' if isinstance(error, _Refused) else 'not valid YAML: '}{what}."
        ) from error
    finally:
        loader.dispose()
    if not isinstance(values, Mapping):
        raise MorphError(
            f"{source}: expected a mapping of keys (name: ..., data: ..., ...), got {type(values).__name__}. "
            "'morph-tfx init DIR' writes an annotated example."
        )
    try:
        return PipelineConfig.model_validate(values, context={"base": str(base)})
    except ValidationError as error:
        problems = explained(error, dict(_lines(node)))
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise MorphError(f"{source}: {count}\n" + "\n".join(f"  {problem}" for problem in problems)) from error


def _lines(node: yaml.Node | None, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """The line of each key and of each element of a list, by the way that leads there."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inside = (*path, key.value) if isinstance(key, yaml.ScalarNode) else path
            yield inside, key.start_mark.line + 1
            yield from _lines(value, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index))


class _Refused(yaml.constructor.ConstructorError):
    """What is valid YAML, and no configuration."""

    def __init__(self, what: str, mark: Any) -> None:
        super().__init__(None, None, what, mark)


class _Loader(yaml.SafeLoader):
    """YAML as usual, of plain data, within limits; and a key that is given twice is an error.

    A few hundred bytes of anchors and aliases can stand for millions of values, which are counted as they would be
    written out.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # of finished nodes, by identity: they live as long as the loader

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise _Refused(f"the alias *{event.anchor} stands inside of what it stands for", event.start_mark)
            return node
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _Refused(f"values are nested more than {MOST_DEPTH} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in inside for part in pair] if isinstance(node, yaml.MappingNode) else inside
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in parts)
        if size > MOST_VALUES:
            what = f"there are more than {MOST_VALUES:,} values, with those that aliases stand for written out"
            raise _Refused(what, event.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # What YAML takes for a date or a number, or what its tag says it is, need not be one.
            raise _Refused(
                f"{str(node.value)[:40]!r} cannot be read as {node.tag}: {error}", node.start_mark
            ) from error
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _Refused("a whole number is larger than a computer counts (64 bits)", node.start_mark)
        if isinstance(value, str) and _NO_TEXT.search(value):
            raise _Refused(f"{value[:40]!r} holds a character that is no text", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<, which takes over keys that may be given here again
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise _Refused(f"the key {key!r} is given twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


# A zero byte, and halves of characters that UTF-8 has no bytes for: YAML's escapes can write what nothing can use.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")

# YAML 1.1 reads 1e-3 (no dot) as text. Nobody who writes it means text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
