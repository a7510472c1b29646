"""Exporter: a model that may be pushed goes in, the files that devices run come out.

In: a `Model` of Retrainer or MorphTrainer, maybe its blessing, examples and the user's module file. Out: an
`ExportedModel` with LiteRT and ONNX files of the network alone, each compared with the model, and a summary.
"""

from .artifact import ExportedModel
from .component import Exporter
from .executor import Executor

__all__ = ["Executor", "ExportedModel", "Exporter"]
