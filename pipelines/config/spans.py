"""Spans in file patterns: data that grows by days or by numbers, of which a pipeline reads the newest piece.

The placeholders are those of TFX's ExampleGen, which also does the reading: {SPAN} a number, {YYYY}, {MM} and {DD} a
date, {VERSION} a number that tells corrections of one span apart. Here they are checked before anything slow happens.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from morph_core import MorphError

_DATE = ("YYYY", "MM", "DD")


def placeholders(name: str, pattern: str) -> list[str]:
    """The placeholders of a file pattern, in their order, without braces and widths: SPAN, VERSION, YYYY, MM, DD.

    Raises:
        ValueError: one is unknown, or TFX could not tell the newest span by them; `name` is the pattern's, to be named.
    """
    found = []
    for inside in re.findall(r"\{(.*?)\}", pattern):
        kind, colon, width = inside.partition(":")
        takes_width = kind in ("SPAN", "VERSION") and re.fullmatch(r"[1-9]\d*", width)
        if kind not in ("SPAN", "VERSION", *_DATE) or (colon and not takes_width):
            raise ValueError(
                f"the pattern of {name!r}, {pattern}, has an unknown placeholder {braced(inside)}. Expected {{SPAN}} "
                "or {YYYY}, {MM} and {DD}, beside it maybe {VERSION}; a width such as {SPAN:4} is for zeros in front"
            )
        found.append(kind)
    if pattern.count("{") != len(found) or pattern.count("}") != len(found):
        raise ValueError(f"the pattern of {name!r}, {pattern}, has a brace without its partner")
    dates = [kind for kind in found if kind in _DATE]
    if len(set(found)) < len(found):
        raise ValueError(f"the pattern of {name!r}, {pattern}, has a placeholder twice; TFX takes each once")
    if dates and ("SPAN" in found or len(dates) < len(_DATE)):
        raise ValueError(
            f"the pattern of {name!r}, {pattern}, tells no one date: expected all of {{YYYY}}, {{MM}} and {{DD}}, "
            "without {SPAN}"
        )
    if found == ["VERSION"]:
        raise ValueError(f"the pattern of {name!r}, {pattern}, has a {{VERSION}} of nothing: add {{SPAN}} or a date")
    return found


def braced(placeholder: str) -> str:
    """`"SPAN"` as it stands in a pattern."""
    return f"{{{placeholder}}}"


# The digits of each placeholder, in the order in which they say what is newer.
_DIGITS = {"SPAN": r"\d+", "YYYY": r"\d{4}", "MM": r"\d{2}", "DD": r"\d{2}", "VERSION": r"\d+"}


def newest_files(directory: Path, pattern: str) -> tuple[list[Path], tuple[int, ...]]:
    """The files of a pattern's newest span and version, and which that is; as TFX's ExampleGen will choose them.

    Args:
        directory: where the pattern starts.
        pattern: with or without placeholders.

    Returns:
        The files, and the numbers of the span in the order in which they say what is newer; none of either when
        nothing matches, no numbers when the pattern has no placeholder.

    Raises:
        MorphError: a file has something else than digits where a placeholder stands; TFX stops at such a file, too.
    """
    pieces = re.split(r"\{(\w+)(?::\d+)?\}", pattern)  # text, placeholder, text, ...
    texts, names = pieces[::2], pieces[1::2]
    files = [Path(path) for path in sorted(glob.glob(str(directory / "*".join(texts)))) if Path(path).is_file()]
    if not names:
        return files, ()
    expression = _as_regex(texts[0])
    for name, text in zip(names, texts[1:], strict=True):
        expression += f"(?P<{name}>{_DIGITS[name]}){_as_regex(text)}"
    spans: dict[tuple[int, ...], list[Path]] = {}
    for file in files:
        match = re.fullmatch(expression, file.relative_to(directory).as_posix())
        if match is None:
            raise MorphError(
                f"data: {file} is among the files that {pattern} may mean, but has no digits where "
                f"{' and '.join(map(braced, names))} stand. Move it away, or make the pattern narrower."
            )
        spans.setdefault(tuple(int(match[name]) for name in _DIGITS if name in names), []).append(file)
    newest = max(spans, default=())
    return spans.get(newest, []), newest


def _as_regex(text: str) -> str:
    """A piece of a glob pattern as a regular expression."""
    return re.escape(text).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
