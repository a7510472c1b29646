"""TFX components that search for a structure, export it, find it again and retrain it."""

try:
    from .morph_trainer import MorphTrainer
    from .pushed_structure import PushedStructure
    from .retrainer import Retrainer
    from .structure_exporter import MorphStructure, StructureExporter
except ModuleNotFoundError as error:
    if (error.name or "").startswith("morph_"):
        raise
    raise ModuleNotFoundError(
        f"morph_tfx.components needs {error.name}, which is not installed. "
        "Install what is missing with: pip install 'morph-tfx[tfx]'",
        name=error.name,
    ) from error

__all__ = ["MorphStructure", "MorphTrainer", "PushedStructure", "Retrainer", "StructureExporter"]
