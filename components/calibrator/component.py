"""The DeviceCalibrator component: the user's network goes in, a calibration of the node that it runs on comes out.

Latency is learned best from the device that will serve. On a cluster this component's step is put on such a node, with
its accelerator; the searches, wherever they run, count by what it measured.
"""

import re
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import json_utils

from morph_core import MorphError
from morph_core.device.request import check_counts, check_name, check_runtime

from ..artifacts.calibration import DeviceCalibration
from ..training.custom_config import check_custom_config
from ..training.user_module import package_user_module
from .executor import Executor

_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*")


class DeviceCalibratorSpec(ComponentSpec):
    """Outputs and parameters of `DeviceCalibrator`."""

    PARAMETERS: ClassVar = {
        "module_file": ExecutionParameter(type=str, optional=True),
        "module_path": ExecutionParameter(type=str, optional=True),
        "custom_config": ExecutionParameter(type=str, optional=True),
        "device": ExecutionParameter(type=str),
        "runtime": ExecutionParameter(type=str),
        "dtype": ExecutionParameter(type=str),
        "batch_size": ExecutionParameter(type=int),
        "points": ExecutionParameter(type=int),
        "networks": ExecutionParameter(type=int),
        "repeats": ExecutionParameter(type=int),
    }
    INPUTS: ClassVar = {}
    OUTPUTS: ClassVar = {"calibration": ChannelParameter(type=DeviceCalibration)}


class DeviceCalibrator(base_component.BaseComponent):
    """Measures what the operations of the user's network take where this component runs.

    ```python
    device = DeviceCalibrator(module_file="my_model.py", device="edge-node", runtime="xla")
    search = MorphTrainer(cost="latency", target=0.5, calibration=device.outputs["calibration"], ...)
    ```

    Outputs:

    - `calibration`: a `DeviceCalibration`.
    """

    SPEC_CLASS = DeviceCalibratorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        module_file: str | None = None,
        module_path: str | None = None,
        custom_config: dict[str, Any] | None = None,
        device: str = "device",
        runtime: str = "tf.function",
        dtype: str = "float32",
        batch_size: int = 1,
        points: int = 6,
        networks: int = 8,
        repeats: int = 30,
    ):
        """Constructs the component.

        Args:
            module_file: path of the user's Python file with `build_model`. Exactly one of module_file and module_path.
            module_path: an importable module with the same function.
            custom_config: `hparams` for `build_model`, and `checkpoint_dir` to go on from when the execution was
                killed; other keys are those of the trainers and have no effect.
            device: what to call it: the cost is then named `latency:DEVICE` in structures and reports.
            runtime: how the network will run: "tf.function", "xla" or "litert".
            dtype: in what: "float32", "bfloat16" or "float16".
            batch_size: with how many examples at once.
            points: widths at which each operation is measured, in each of its dimensions.
            networks: whole networks of random widths that are measured besides.
            repeats: of each measurement.

        Raises:
            MorphError: neither or both of `module_file` and `module_path`, or an argument out of range.
        """
        if bool(module_file) == bool(module_path):
            raise MorphError(
                "DeviceCalibrator needs exactly one of module_file and module_path; received "
                f"module_file={module_file!r}, module_path={module_path!r}."
            )
        if not isinstance(device, str) or not _NAME.fullmatch(device):
            raise MorphError(
                f"DeviceCalibrator: device is {device!r}; expected a name of letters, digits, '-', '_' and '.', such "
                "as 'edge-node'."
            )
        check_name(device)
        check_custom_config(custom_config)
        check_runtime(runtime, dtype)
        counts = {"batch_size": batch_size, "points": points, "networks": networks, "repeats": repeats}
        check_counts(**counts)
        spec = DeviceCalibratorSpec(
            module_file=module_file,
            module_path=module_path,
            custom_config=json_utils.dumps(custom_config),
            device=device,
            runtime=runtime,
            dtype=dtype,
            **counts,
            calibration=types.Channel(type=DeviceCalibration),
        )
        super().__init__(spec=spec)
        package_user_module(self)
