"""The artifact type that says how long a network's operations take on a device, and the cost that is counted by it."""

import os
from collections.abc import Mapping
from typing import Any

from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from morph_core import MorphError

from .type_names import importable_by_its_name

CALIBRATION_FILE = "calibration.json"
LATENCY = "latency"
"""The cost of a component that has a calibration: its device is the one that was measured."""


@importable_by_its_name
class DeviceCalibration(Artifact):
    """What the operations of one network take on one device, at any widths.

    Directory layout, below the artifact's URI:

    ```
    calibration.json    as morph_core.calibrate writes it: for cost="latency:PATH/calibration.json", in a script as well
    ```

    Custom properties: `name` (string, of the device as it is called in costs: `latency:NAME`), `machine`, `device`,
    `runtime` and `dtype` (strings), `batch_size` and `threads` (int), `date` (string), `operations_repeat` and
    `networks_repeat` (float: by what share the same thing measured again was off, in the median).
    """

    TYPE_NAME = "morph_tfx.DeviceCalibration"


def names_latency(cost: Any, *amounts: Any) -> bool:
    """Whether a cost's name, or one of the names in amounts by cost, is "latency" by itself."""
    return any(words == LATENCY or (isinstance(words, Mapping) and LATENCY in words) for words in (cost, *amounts))


def measured_device(artifacts: list[Artifact] | None) -> str | None:
    """The path by which a cost names the device of a calibration, on this machine; None without one.

    Raises:
        MorphError: the file is not there.
    """
    if not artifacts:
        return None
    path = os.path.join(artifact_utils.get_single_instance(artifacts).uri, CALIBRATION_FILE)
    if not fileio.exists(path):
        raise MorphError(
            f"There is no calibration at {path}. A DeviceCalibration artifact holds a {CALIBRATION_FILE}, as "
            "DeviceCalibrator writes it; check the artifact's URI, or run DeviceCalibrator again."
        )
    return io_utils.ensure_local(path)


def check_calibrated(component: str, calibrated: bool, cost: Any, *amounts: Any) -> None:
    """Raise a MorphError where a component has a calibration that nothing is counted by, or lacks it.

    Args:
        component: its name.
        calibrated: whether it has one.
        cost: the name of its cost.
        amounts: that may name further costs.
    """
    named = names_latency(cost, *amounts)
    if calibrated and not named:
        raise MorphError(
            f"{component} has a calibration, but its cost is {cost!r}, which does not look at it. Ask for "
            f'cost="{LATENCY}", or leave the calibration out.'
        )
    if named and not calibrated:
        raise MorphError(
            f'{component}: cost="{LATENCY}" without a device needs calibration=calibrator.outputs["calibration"] of a '
            'DeviceCalibrator. Connect one, or name a device, such as cost="latency:v100" or '
            'cost="latency:FILE.json".'
        )
