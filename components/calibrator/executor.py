"""Builds the user's network, measures its operations on this machine and writes the calibration. Nothing is trained."""

import os
import pathlib
import tempfile
import time
import warnings
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

import morph_core as morph
from morph_core.device.calibrate import Progress, described, unsteady

from ..artifacts.calibration import CALIBRATION_FILE
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..training import user_module
from ..training.custom_config import custom_config_of

# How often a line is printed while it measures.
_PAUSE_S = 30.0


class Executor(base_executor.BaseExecutor):
    """Executor of `DeviceCalibrator`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Measures.

        Args:
            input_dict: empty.
            output_dict: `calibration`.
            exec_properties: those of `DeviceCalibratorSpec`.

        Raises:
            MorphError: the module cannot be used, the runtime is not there, or an operation cannot run in it.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict["calibration"])
        config = custom_config_of(exec_properties)
        seed = user_module.load(exec_properties).seed(config.get("hparams") or {})
        names = ("runtime", "dtype", "batch_size", "points", "networks", "repeats")
        options = {name: exec_properties[name] for name in names}
        with complete_or_absent(artifact.uri) as directory, tempfile.TemporaryDirectory(prefix="morph-") as local:
            # The device is called after the file.
            file = pathlib.Path(local) / f"{exec_properties['device']}.json"
            with warnings.catch_warnings():
                # Said below, in the same words.
                warnings.filterwarnings("ignore", message="Calibration .* repeats itself")
                calibration = morph.calibrate(seed, file, notice=_Account(), **options)
            io_utils.copy_file(str(file), os.path.join(directory, CALIBRATION_FILE))
        set_custom_properties(artifact, _properties(calibration))
        print(described(calibration), flush=True)
        if advice := unsteady(calibration):
            print(advice, flush=True)


def _properties(calibration: morph.Calibration) -> dict[str, str | int | float]:
    names = ("machine", "device", "runtime", "dtype", "batch_size", "threads", "date")
    return {
        "name": calibration.name,
        **{name: calibration.measured_on[name] for name in names},
        "operations_repeat": float(calibration.repeatability["entries"]),
        "networks_repeat": float(calibration.repeatability["networks"]),
    }


class _Account:
    """Prints how far a calibration is, every now and then."""

    def __init__(self) -> None:
        self._printed_at = -_PAUSE_S

    def __call__(self, now: Progress) -> None:
        if time.monotonic() - self._printed_at >= _PAUSE_S:
            self._printed_at = time.monotonic()
            print(f"[calibrate] {now.done} of {now.total} measured, next: {now.what}", flush=True)
