"""TFX components that search for a structure, export it and retrain it."""

from .morph_trainer import MorphTrainer
from .retrainer import Retrainer
from .structure_exporter import MorphStructure, StructureExporter

__all__ = ["MorphStructure", "MorphTrainer", "Retrainer", "StructureExporter"]
