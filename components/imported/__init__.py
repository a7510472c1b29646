"""ImportedModel and ImportedStructure: read what lies at a path, such as a mounted volume, inside a step.

In: a path. Out: an artifact with a copy of the model, or of the structure, that lies there.
"""

from .component import ImportedModel, ImportedStructure
from .executor import ModelExecutor, StructureExecutor

__all__ = ["ImportedModel", "ImportedStructure", "ModelExecutor", "StructureExecutor"]
