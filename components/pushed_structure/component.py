"""The PushedStructure component: the directory that models are pushed to goes in, what is needed to retrain comes out.

A pipeline runner with ML metadata can find the latest pushed structure by its lineage. Kubeflow Pipelines can execute
no Resolver, so there a step of its own looks at the pushed models themselves: Retrainer's exports carry their structure
and schema. The answer changes when a model is pushed, although the step's parameters stay the same: give it no cache.

Told where the data lie and how the training is set, it also says whether there is anything to train: a pushed model
carries what it was trained on.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from google.protobuf.message import Message
from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from morph_core import MorphError

from ..structure_exporter import MorphStructure
from .executor import Executor

_PROTOS: Any = example_gen_pb2  # its messages are made at run time, where no type checker sees them


class PushedStructureSpec(ComponentSpec):
    """Outputs and parameters of `PushedStructure`."""

    PARAMETERS: ClassVar = {
        "push_to": ExecutionParameter(type=str),
        "input_base": ExecutionParameter(type=str, optional=True),
        "input_config": ExecutionParameter(type=_PROTOS.Input, optional=True),
        "module_file": ExecutionParameter(type=str, optional=True),
        "custom_config": ExecutionParameter(type=str, optional=True),
        "settings": ExecutionParameter(type=str, optional=True),
    }
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

    With `input_base` it also looks at the data, and sets further custom properties of `structure`: `has_news` (1, or 0
    where a training would repeat the one that the model came from), `news` (why, in words) and `trained_on`, which
    Retrainer writes into the model that it makes. Steps that only a new span is worth stand under a condition:

    ```python
    with tfx.dsl.Cond(pushed.outputs["structure"].future()[0].custom_property("has_news") == 1):
        ...
    ```
    """

    SPEC_CLASS = PushedStructureSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        push_to: str | RuntimeParameter,
        input_base: str | RuntimeParameter | None = None,
        input_config: Message | None = None,
        module_file: str | RuntimeParameter | None = None,
        custom_config: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ):
        """Constructs the component.

        Args:
            push_to: the base directory that Pusher pushes to, with one numbered directory for each pushed model.
            input_base: the data, as ExampleGen is told of them; where this step can see them, too.
            input_config: an `Input` of file patterns below it, with the placeholders of spans, as ExampleGen takes it.
            module_file: that Retrainer is given; the Python files beside it count as well.
            custom_config: that Retrainer is given.
            settings: whatever else a change of which is worth a training, as JSON has it.

        Raises:
            MorphError: some of input_base, input_config and module_file are given, and not all.
        """
        needed = {"input_base": input_base, "input_config": input_config, "module_file": module_file}
        missing = [name for name, value in needed.items() if value is None]
        if missing and len(missing) < len(needed):
            raise MorphError(
                f"PushedStructure lacks {' and '.join(missing)}. Whether there is anything to train is told by "
                f"{', '.join(needed)} together; leave all of them out to find the structure alone."
            )
        spec = PushedStructureSpec(
            push_to=push_to,
            input_base=input_base,
            input_config=input_config,
            module_file=module_file,
            custom_config=_json(custom_config),
            settings=_json(settings),
            structure=types.Channel(type=MorphStructure),
            schema=types.Channel(type=standard_artifacts.Schema),
            model=types.Channel(type=standard_artifacts.Model),
        )
        super().__init__(spec=spec)


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)
