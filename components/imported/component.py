"""The components ImportedModel and ImportedStructure: a path goes in, an artifact comes out.

An importer makes an artifact of an address without looking at it. Kubeflow's takes the address of an object store
alone: a path on a volume has no scheme, and the importer refuses it. These components read the path in a step of their
own, which mounts the volume. What lies at a path can change while the path stays the same: give the step no cache.
"""

from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from ..structure_exporter import MorphStructure
from .executor import ModelExecutor, StructureExecutor


class ImportedModelSpec(ComponentSpec):
    """Output and parameter of `ImportedModel`."""

    PARAMETERS: ClassVar = {"path": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {}
    OUTPUTS: ClassVar = {"result": ChannelParameter(type=standard_artifacts.Model)}


class ImportedModel(base_component.BaseComponent):
    """Copies the model at a path into an artifact.

    ```python
    baseline = ImportedModel(path="/mnt/flowers/serving/1700000000")
    evaluator = tfx.components.Evaluator(baseline_model=baseline.outputs["result"], ...)
    ```

    Outputs:

    - `result`: the `Model`, with the custom property `imported_from` (string): where it lay.
    """

    SPEC_CLASS = ImportedModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ModelExecutor)

    def __init__(self, path: str | RuntimeParameter):
        """Constructs the component.

        Args:
            path: directory of a SavedModel, as Pusher leaves one, or of a `Model` artifact.
        """
        super().__init__(spec=ImportedModelSpec(path=path, result=types.Channel(type=standard_artifacts.Model)))


class ImportedStructureSpec(ComponentSpec):
    """Output and parameter of `ImportedStructure`."""

    PARAMETERS: ClassVar = {"path": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {}
    OUTPUTS: ClassVar = {"result": ChannelParameter(type=MorphStructure)}


class ImportedStructure(base_component.BaseComponent):
    """Reads the structure at a path into an artifact.

    ```python
    structure = ImportedStructure(path="/mnt/flowers/best/structure.json")
    trainer = Retrainer(structure=structure.outputs["result"], ...)
    ```

    Outputs:

    - `result`: the `MorphStructure`, with the custom property `imported_from` (string) beside its own.
    """

    SPEC_CLASS = ImportedStructureSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(StructureExecutor)

    def __init__(self, path: str | RuntimeParameter):
        """Constructs the component.

        Args:
            path: a structure.json, or the directory that holds one.
        """
        super().__init__(spec=ImportedStructureSpec(path=path, result=types.Channel(type=MorphStructure)))
