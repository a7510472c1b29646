"""The PushedStructure component: the directory that models are pushed to goes in, what is needed to retrain comes out.

A pipeline runner with ML metadata can find the latest pushed structure by its lineage. Kubeflow Pipelines can execute
no Resolver, so there a step of its own looks at the pushed models themselves: Retrainer's exports carry their structure
and schema. The answer changes when a model is pushed, although the step's parameters stay the same: give it no cache.
"""

from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from ..structure_exporter import MorphStructure
from .executor import Executor


class PushedStructureSpec(ComponentSpec):
    """Outputs and parameters of `PushedStructure`."""

    PARAMETERS: ClassVar = {"push_to": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {}
    OUTPUTS: ClassVar = {
        "structure": ChannelParameter(type=MorphStructure),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "model": ChannelParameter(type=standard_artifacts.Model),
    }


class PushedStructure(base_component.BaseComponent):
    """Finds the latest pushed model and takes out of it what a retraining needs.

    ```python
    pushed = PushedStructure(push_to="gs://bucket/serving")
    trainer = Retrainer(structure=pushed.outputs["structure"], ...)
    evaluator = tfx.components.Evaluator(baseline_model=pushed.outputs["model"], ...)
    ```

    Outputs:

    - `structure`: the `MorphStructure` that the model was built with;
    - `schema`: the `Schema` of the raw examples that it was trained on;
    - `model`: a copy of the model itself, for Evaluator to compare a new one with.
    """

    SPEC_CLASS = PushedStructureSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, push_to: str | RuntimeParameter):
        """Constructs the component.

        Args:
            push_to: the base directory that Pusher pushes to, with one numbered directory for each pushed model.
        """
        spec = PushedStructureSpec(
            push_to=push_to,
            structure=types.Channel(type=MorphStructure),
            schema=types.Channel(type=standard_artifacts.Schema),
            model=types.Channel(type=standard_artifacts.Model),
        )
        super().__init__(spec=spec)
