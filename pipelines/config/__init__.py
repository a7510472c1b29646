"""The configuration of a pipeline: one YAML file, read and checked before anything slow happens.

In: the text of the file. Out: a frozen `PipelineConfig`, a section of it in each file of this room; or all that is
wrong with it in one message. Nothing here imports TFX, so a mistake is reported within seconds.

A key that does not exist, a value out of range and a combination that cannot work are refused together, each by its
name, with what was expected and how to fix it. Relative paths mean "relative to the configuration file", so a run does
not depend on the directory it is started from; a path with a scheme (`gs://`, `s3://`) is left as it is. The annotated
example is `templates/config.yaml`.
"""

from .cluster import KubeflowConfig
from .data import DataConfig
from .evaluation import EvaluateConfig
from .location import is_uri
from .pipeline import PipelineConfig, PipelineKind, RetrainPipelineConfig
from .reading import load_config, parse_config
from .training import TrainingConfig

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "KubeflowConfig",
    "PipelineConfig",
    "PipelineKind",
    "RetrainPipelineConfig",
    "TrainingConfig",
    "is_uri",
    "load_config",
    "parse_config",
]
