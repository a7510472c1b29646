"""Cron expressions as people write them, turned into those that Kubeflow Pipelines reads.

People write five fields: minute, hour, day of the month, month, day of the week. Kubeflow Pipelines puts seconds first
and takes five fields for "second, minute, hour, day, month": `0 3 * * *`, three in the morning to everybody else, would
there be the third minute of every hour. It knows Sunday as 0 only, not as 7, and none of L, W and #. So each expression
is checked field by field before it leaves this machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from morph_core import MorphError

TIME_ZONE = (
    "Times are UTC, unless the cluster's deployment ml-pipeline-scheduledworkflow sets CRON_SCHEDULE_TIMEZONE "
    "to another zone."
)
"""What a user has to know about the hours in an expression."""

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days, in a leap year


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_SECOND = _Field("second", 0, 59)
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Field("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_ITEM = re.compile(r"(?P<start>\*|\?|\w+)(-(?P<end>\w+))?(/(?P<step>\d{1,4}))?\Z", re.ASCII)


def kubeflow_cron(expression: str) -> str:
    """The six fields (seconds first) that Kubeflow Pipelines takes for a cron expression.

    >>> kubeflow_cron("0 3 * * *")
    '0 0 3 * * *'
    >>> kubeflow_cron("30 6 * * mon-fri")
    '0 30 6 * * mon-fri'
    >>> kubeflow_cron("0 0 * * 5-7")
    '0 0 0 * * 5,6,0'

    Args:
        expression: five fields, one of the nicknames @hourly, @daily, @weekly, @monthly and @yearly, or six fields in
            Kubeflow's own order, seconds first.

    Raises:
        MorphError: another number of fields, a value out of its range, or a date that never comes.
    """
    fields = _NICKNAMES.get(expression.strip().lower(), expression).split()
    if len(fields) not in (5, 6) or fields[0].startswith("@"):
        raise MorphError(
            "--cron: expected five fields (minute, hour, day of the month, month, day of the week), got "
            f"{expression!r}. For example '0 3 * * *', each day at 03:00."
        )
    second = fields[0] if len(fields) == 6 else "0"
    _values(second, _SECOND, expression)
    fields = fields[-5:]
    values = [_values(text, field, expression) for text, field in zip(fields, _FIELDS, strict=True)]
    _, _, days, months, _ = values
    any_weekday = fields[4][0] in "*?"  # otherwise a weekday alone is enough: cron joins the two kinds of day with "or"
    if any_weekday and not any(day <= _LONGEST_MONTHS[month - 1] for day in days for month in months):
        raise MorphError(f"--cron: {expression!r} never comes: no such month has a day {min(days)}.")
    return " ".join([second, *fields[:4], _weekdays(fields[4], expression)])


def people_cron(six: str) -> str:
    """The five fields that people write for Kubeflow's six; all six where the seconds matter.

    >>> people_cron("0 0 3 * * *")
    '0 3 * * *'
    """
    fields = six.split()
    return " ".join(fields[1:]) if len(fields) == 6 and fields[0] == "0" else six


def _weekdays(text: str, expression: str) -> str:
    """The field with 7 replaced by 0, its items that hold 7 spelled out."""
    spelled = []
    for item in text.split(","):
        values = _item(item, _FIELDS[4], expression)
        plain = 7 not in values or item[0] in "*?"
        spelled += [item] if plain else [str(value % 7) for value in values]
    return ",".join(dict.fromkeys(spelled))


def _values(text: str, field: _Field, expression: str) -> list[int]:
    return sorted({value for item in text.split(",") for value in _item(item, field, expression)})


def _item(item: str, field: _Field, expression: str) -> range:
    """The values that one item of a list stands for."""
    match = _ITEM.match(item)
    if match is None:
        raise _refused(item, field, expression)
    step = int(match["step"] or 1)
    if match["start"] in "*?":
        start, end = field.low, field.high
        if match["end"] is not None:
            raise _refused(item, field, expression)
    else:
        start = _number(match["start"], item, field, expression)
        # As in Kubeflow: 5/15 is "from 5 to the end, in steps of 15".
        end = field.high if match["step"] else start
        if match["end"] is not None:
            end = _number(match["end"], item, field, expression)
    if step < 1 or start > end:
        raise _refused(item, field, expression)
    return range(start, end + 1, step)


def _number(text: str, item: str, field: _Field, expression: str) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    if not re.fullmatch("[0-9]{1,4}", text) or not field.low <= int(text) <= field.high:
        raise _refused(item, field, expression)
    return int(text)


def _refused(item: str, field: _Field, expression: str) -> MorphError:
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return MorphError(
        f"--cron: {item!r} in {expression!r} is no {field.name}: expected *, {field.low} to {field.high}{names}, a "
        "range such as 1-5, a step such as */15, or several of them with commas."
    )
