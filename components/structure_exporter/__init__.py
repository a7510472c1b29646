"""The `MorphStructure` artifact, and `StructureExporter`, which writes and reads it.

In: a `morph_core.Structure`, maybe with a network whose weights are kept. Out: the artifact's directory with structure,
report and pictures, and its custom properties; read back, the structure again, checked to belong to the network.
"""

from .artifact import MorphStructure
from .exporter import StructureExporter

__all__ = ["MorphStructure", "StructureExporter"]
