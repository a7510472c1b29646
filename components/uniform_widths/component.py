"""The UniformWidths component: the user's network goes in, a structure of uniformly smaller widths comes out.

It is what somebody without a search would do, and so what a search has to beat: every layer narrowed by the same
factor, the largest that the target allows. With a target of 1 the structure is the seed itself.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import json_utils

from morph_core import MorphError
from morph_core.structure.choices import Multiples, check_counts

from ..artifacts.calibration import DeviceCalibration, check_calibrated
from ..structure_exporter import MorphStructure
from ..training.custom_config import check_custom_config
from ..training.user_module import package_user_module
from .executor import Executor


class UniformWidthsSpec(ComponentSpec):
    """Inputs, outputs and parameters of `UniformWidths`."""

    PARAMETERS: ClassVar = {
        "module_file": ExecutionParameter(type=str, optional=True),
        "module_path": ExecutionParameter(type=str, optional=True),
        "custom_config": ExecutionParameter(type=str, optional=True),
        "cost": ExecutionParameter(type=str),
        "target": ExecutionParameter(type=float),
        "multiple_of": ExecutionParameter(type=str, optional=True),
        "min_channels": ExecutionParameter(type=str, optional=True),
    }
    INPUTS: ClassVar = {"calibration": ChannelParameter(type=DeviceCalibration, optional=True)}
    OUTPUTS: ClassVar = {"structure": ChannelParameter(type=MorphStructure)}


class UniformWidths(base_component.BaseComponent):
    """Narrows the user's network uniformly.

    ```python
    half = UniformWidths(module_file="my_model.py", cost="flops", target=0.5)
    trainer = Retrainer(structure=half.outputs["structure"], ...)
    ```

    Outputs:

    - `structure`: a `MorphStructure` that costs at most `target` of the seed.
    """

    SPEC_CLASS = UniformWidthsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        target: float,
        cost: str = "flops",
        module_file: str | None = None,
        module_path: str | None = None,
        custom_config: dict[str, Any] | None = None,
        multiple_of: Multiples | None = None,
        min_channels: int | Mapping[str, int] | None = None,
        calibration: types.BaseChannel | None = None,
    ):
        """Constructs the component.

        Args:
            target: fraction of the seed's cost, above 0 and at most 1.
            cost: what is counted.
            module_file: path of the user's Python file with `build_model`. Exactly one of module_file and module_path.
            module_path: an importable module with the same function.
            custom_config: `hparams` for `build_model`; other keys are those of the trainers and have no effect.
            multiple_of: keep widths on multiples of so many channels, or, as a dict, those of the layers it names;
                "auto" takes the number from a measured latency.
            min_channels: channels that each layer keeps; a number or numbers by layer.
            calibration: channel of `DeviceCalibration`, whose device `cost="latency"` is about.

        Raises:
            MorphError: neither or both of `module_file` and `module_path`, or a number out of range.
        """
        if bool(module_file) == bool(module_path):
            raise MorphError(
                "UniformWidths needs exactly one of module_file and module_path; received "
                f"module_file={module_file!r}, module_path={module_path!r}."
            )
        if not 0 < target <= 1:
            raise MorphError(f"UniformWidths: target is {target}; expected a fraction above 0 and at most 1.")
        check_custom_config(custom_config)
        check_calibrated("UniformWidths", calibration is not None, cost)
        counts = {"multiple_of": multiple_of, "min_channels": min_channels}
        given = {name: count for name, count in counts.items() if count is not None}
        for name, count in given.items():
            check_counts(name, count, "UniformWidths: ")
        spec = UniformWidthsSpec(
            module_file=module_file,
            module_path=module_path,
            custom_config=json_utils.dumps(custom_config),
            cost=cost,
            target=float(target),
            **{name: json.dumps(dict(count) if isinstance(count, Mapping) else count) for name, count in given.items()},
            calibration=calibration,
            structure=types.Channel(type=MorphStructure),
        )
        super().__init__(spec=spec)
        package_user_module(self)
