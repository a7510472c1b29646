"""Builds the user's network, measures its operations on this machine and writes the calibration. Nothing is trained."""

import json
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
from morph_core.cost.machine import this_machine
from morph_core.device.calibrate import Progress, described, unsteady
from morph_core.device.record import record_of
from morph_core.device.runtimes import device_name, versions
from morph_core.search.checkpoint import Storage

from ..artifacts.calibration import CALIBRATION_FILE
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..training import checkpoints, user_module
from ..training.custom_config import custom_config_of

# How often a line is printed while it measures, and what there is is kept.
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
        # What was measured on another machine, or with other packages, is not gone on with.
        facts = [morph.ChannelGraph.from_model(seed).fingerprint, this_machine(), device_name(), versions()]
        storage = checkpoints.place(self._context, input_dict, exec_properties, json.dumps(facts))
        names = ("runtime", "dtype", "batch_size", "points", "networks", "repeats")
        options = {name: exec_properties[name] for name in names}
        with complete_or_absent(artifact.uri) as directory, tempfile.TemporaryDirectory(prefix="morph-") as local:
            # The device is called after the file.
            file = pathlib.Path(local) / f"{exec_properties['device']}.json"
            kept = _Kept(storage, record_of(file))
            kept.take_up()
            try:
                with warnings.catch_warnings():
                    # Said below, in the same words.
                    warnings.filterwarnings("ignore", message="Calibration .* repeats itself")
                    calibration = morph.calibrate(seed, file, notice=_Account(kept), **options)
            finally:
                kept.keep()
            io_utils.copy_file(str(file), os.path.join(directory, CALIBRATION_FILE))
        checkpoints.clear(storage)
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


class _Kept:
    """What is measured so far, where the next execution finds it when this one is killed.

    Args:
        storage: that survives this execution, or None.
        record: the file that `morph.calibrate` keeps while it measures.
    """

    def __init__(self, storage: Storage | None, record: pathlib.Path) -> None:
        self._storage, self._record = storage, record

    def take_up(self) -> None:
        """Continues what was left there."""
        if self._storage is not None and self._record.name in self._storage.names():
            with self._storage.reading(self._record.name) as file:
                self._record.write_bytes(file.read())
            print("[calibrate] Going on with what was measured before this execution was killed.", flush=True)

    def keep(self) -> None:
        """Puts there what is measured by now."""
        if self._storage is not None and self._record.exists():
            with self._storage.writing(self._record.name) as file:
                file.write(self._record.read_bytes())


class _Account:
    """Prints how far a calibration is, every now and then, and keeps what there is."""

    def __init__(self, kept: _Kept) -> None:
        self._kept = kept
        self._printed_at = -_PAUSE_S

    def __call__(self, now: Progress) -> None:
        if time.monotonic() - self._printed_at >= _PAUSE_S:
            self._printed_at = time.monotonic()
            self._kept.keep()
            print(f"[calibrate] {now.done} of {now.total} ready, next: {now.what}", flush=True)
