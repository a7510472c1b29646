"""Executors that a test in the same process looks into."""

from collections.abc import Callable
from typing import Any, ClassVar

from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.base_executor import BaseExecutor


class Probe(BaseExecutor):
    """Keeps what it was called with, and does what a test tells it to."""

    seen: ClassVar[dict[str, Any]] = {}
    action: ClassVar[Callable[[dict[str, Any]], None]] = lambda outputs: None

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        Probe.seen.update(inputs=input_dict, outputs=output_dict, properties=exec_properties, context=self._context)
        Probe.action(output_dict)


class BeamProbe(Probe, BaseBeamExecutor):
    """The same as an executor that uses Beam."""
