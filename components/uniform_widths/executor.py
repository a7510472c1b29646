"""Builds the user's network, narrows all of it by one factor and writes the structure. Nothing is trained."""

import json
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

import morph_core as morph
from morph_core.cost.costs import on_device

from ..artifacts.calibration import measured_device
from ..structure_exporter import StructureExporter
from ..training import user_module
from ..training.custom_config import custom_config_of


class Executor(base_executor.BaseExecutor):
    """Executor of `UniformWidths`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the structure.

        Args:
            input_dict: maybe `calibration`.
            output_dict: `structure`.
            exec_properties: those of `UniformWidthsSpec`.

        Raises:
            MorphError: the module cannot be used, or the target is below what the narrowest widths cost.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        config = custom_config_of(exec_properties)
        seed = user_module.load(exec_properties).seed(config.get("hparams") or {})
        cost, target = exec_properties["cost"], exec_properties["target"]
        device = measured_device(input_dict.get("calibration"))
        counts = {name: exec_properties.get(name) for name in ("multiple_of", "min_channels")}
        structure = morph.uniform(
            morph.ChannelGraph.from_model(seed),
            morph.cost_of(cost if device is None else on_device(cost, device)),
            target=target,
            **{name: json.loads(text) for name, text in counts.items() if text},
        )
        title = "The seed" if target == 1 else f"Uniform widths, {100 * target:g} %"
        StructureExporter(artifact_utils.get_single_instance(output_dict["structure"])).write(structure, title=title)
