"""TFX components that search for a structure, export it, find it again and retrain it."""

from .morph_trainer import MorphTrainer
from .pushed_structure import PushedStructure
from .retrainer import Retrainer
from .structure_exporter import MorphStructure, StructureExporter

__all__ = ["MorphStructure", "MorphTrainer", "PushedStructure", "Retrainer", "StructureExporter"]
