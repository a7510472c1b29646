"""The `MorphStructure` artifact, and `StructureExporter`, which writes and reads it."""

from .artifact import MorphStructure
from .exporter import StructureExporter

__all__ = ["MorphStructure", "StructureExporter"]
