"""CSV files read row by row, as TFX's CsvExampleGen will read them: a header names columns, each has one type.

A column is of whole numbers, of numbers, or else of text. CsvExampleGen finds out for each split by itself, so one cell
of text makes text of a whole column; that is told, with the line.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

from morph_core import MorphError

from .contents import NUMBERS, TEXT, WHOLE, Contents, is_no_number, without_feature, without_label

_BYTE_ORDER_MARK = "\ufeff"
_KINDS = ("", WHOLE, NUMBERS, TEXT)  # each holds what those before it hold


def csv_contents(files: Sequence[Path], label: str, required: Collection[str] = ()) -> Contents:
    """Reads all rows of a split.

    Args:
        files: of the split, at least one.
        label: name of the column with the label.
        required: names of columns that must not be empty in any row.

    Raises:
        MorphError: a file is no CSV file or has another header than the first, a row has another number of cells than
            its header, or a label is empty or NaN, or a required cell empty; file and line are named.
    """
    found = Contents()
    kinds: list[int] = []
    empty, nan = without_label("the label is empty", label), without_label("the label is NaN", label)
    lacking = {name: without_feature(name) for name in required}
    for file in files:
        try:
            with open(file, newline="", encoding="utf-8") as lines:
                reader = csv.reader(lines)
                header = next(reader, [])
                if not found.features:
                    _check_header(file, header)
                    found.features, kinds = header, [0] * len(header)
                elif header != found.features:
                    raise MorphError(
                        f"data: {file}, line 1: the header is {', '.join(header) or 'empty'}, but that of "
                        f"{files[0]} is {', '.join(found.features)}. Expected the same columns in the "
                        "same order in all files of a split."
                    )
                labels_at = header.index(label) if label in header else None
                required_at = {place: lacking[name] for place, name in enumerate(header) if name in lacking}
                for row in reader:
                    if not row:  # a blank line, which CsvExampleGen passes over
                        continue
                    if len(row) != len(header):
                        raise MorphError(
                            f"data: {file}, line {reader.line_num}: the row has {len(row)} cells, but the header "
                            f"{len(header)} columns. Expected a cell for each column; one with a comma inside stands "
                            "in double quotes."
                        )
                    found.examples += 1
                    for place, cell in enumerate(row):
                        if not cell or kinds[place] == len(_KINDS) - 1:
                            continue
                        kind = _kind(cell)
                        if kind > kinds[place]:
                            if kinds[place] and _KINDS[kind] == TEXT:
                                found.remarks.append(
                                    f"{file}, line {reader.line_num}: {cell[:40]!r} is no number, so the whole column "
                                    f"{header[place]!r} is read as text."
                                )
                            kinds[place] = kind
                    for place, rows in required_at.items():
                        if not row[place]:
                            rows.add(f"{file}, line {reader.line_num}")
                    if labels_at is not None:
                        cell = row[labels_at]
                        if not cell.strip():
                            empty.add(f"{file}, line {reader.line_num}")
                        elif is_no_number(cell):
                            nan.add(f"{file}, line {reader.line_num}")
                        else:
                            found.remember(cell)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise MorphError(
                f"data.path: {file} is no CSV file that can be read: {error}. Expected text in UTF-8; set data.format, "
                "or move it away."
            ) from error
    for unusable in (empty, nan, *lacking.values()):
        unusable.refuse()
    found.kinds = {name: _KINDS[kind] for name, kind in zip(found.features, kinds, strict=True) if kind}
    return found


def _check_header(file: Path, header: list[str]) -> None:
    if not header:
        raise MorphError(f"data: {file} is empty. Expected a header, a line with the names of the columns.")
    if header[0].startswith(_BYTE_ORDER_MARK):
        raise MorphError(
            f"data: {file}, line 1: the file begins with a byte order mark, which would become a part of the first "
            f"column's name ({header[0].removeprefix(_BYTE_ORDER_MARK)!r}). Save it as UTF-8 without one."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise MorphError(
            f"data: {file}, line 1: {len(twice)} column names are there more than once: {', '.join(twice)}. Expected "
            "each name once."
        )


def _kind(cell: str) -> int:
    """The place in `_KINDS` of what one cell holds; as CsvExampleGen tells it."""
    try:
        if -(2**63) <= int(cell) < 2**63:
            return _KINDS.index(WHOLE)
    except ValueError:
        pass  # no whole number; maybe another
    try:
        float(cell)
    except ValueError:
        return _KINDS.index(TEXT)
    return _KINDS.index(NUMBERS)
