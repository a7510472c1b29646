"""What a component finds in its `custom_config`, which travels as JSON among its execution properties."""

from collections.abc import Mapping
from typing import Any

from tfx.utils import json_utils


def custom_config_of(exec_properties: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `custom_config`; none where there is no such property, or it is empty."""
    return json_utils.loads(exec_properties.get("custom_config") or "null") or {}
