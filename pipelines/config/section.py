"""What every section of a configuration has in common: it cannot be changed, and refuses keys that it does not know."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of the configuration file, checked field by field."""

    # A traceback shows pydantic's own error, too; what stands in the file may be a secret in a wrong place.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def expect_one(section: Section, meanings: Mapping[str, str], example: str = "") -> None:
    """Refuses a section that gives none or both of two fields that exclude each other.

    Args:
        section: to look at.
        meanings: both fields, each with a few words on what it means; the words may be empty.
        example: of one that is right, as it would stand in the file.

    Raises:
        ValueError: as pydantic's validators do.
    """
    given = [name for name in meanings if getattr(section, name) is not None]
    if len(given) == 1:
        return
    wanted = " and ".join(f"{name!r} ({meaning})" if meaning else repr(name) for name, meaning in meanings.items())
    message = f"exactly one of {wanted} is expected, got {'both' if given else 'neither'}"
    raise ValueError(f"{message}. For example: {example}" if example else message)
