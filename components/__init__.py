"""TFX components that measure a device, search for a structure, export it, find it again, retrain it, compare what came
of it, and write it for devices.

Each component has a folder with its interface, its executor and its artifact type. Two folders are none: `artifacts`
and, above it, `training` hold what several components share, and import no component. `structure_exporter`, whose
artifact all others exchange, imports no other component either.
"""

try:
    from .artifacts.calibration import DeviceCalibration
    from .calibrator import DeviceCalibrator
    from .exporter import ExportedModel, Exporter
    from .frontier import Frontier, MorphFrontier
    from .imported import ImportedModel, ImportedStructure
    from .morph_trainer import MorphTrainer
    from .pushed_structure import PushedStructure
    from .retrainer import Retrainer
    from .structure_exporter import MorphStructure, StructureExporter
    from .training.trained_model import load_network
    from .uniform_widths import UniformWidths
except ModuleNotFoundError as error:
    if (error.name or "").startswith("morph_"):
        raise
    raise ModuleNotFoundError(
        f"morph_tfx.components needs {error.name}, which is not installed. "
        "Install what is missing with: pip install 'morph-tfx[tfx]'",
        name=error.name,
    ) from error

__all__ = [
    "DeviceCalibration",
    "DeviceCalibrator",
    "ExportedModel",
    "Exporter",
    "Frontier",
    "ImportedModel",
    "ImportedStructure",
    "MorphFrontier",
    "MorphStructure",
    "MorphTrainer",
    "PushedStructure",
    "Retrainer",
    "StructureExporter",
    "UniformWidths",
    "load_network",
]
