"""What every section of a configuration has in common: it cannot be changed, and refuses keys that it does not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of the configuration file, checked field by field."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
