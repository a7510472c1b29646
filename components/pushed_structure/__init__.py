"""PushedStructure: finds the structure of the model that was pushed last, where models are pushed to.

In: the directory that models are pushed to. Out: structure, schema and a copy of the newest model that carries them;
and, where it is told of the data, whether a retraining would have anything new to learn.
"""

from .component import PushedStructure
from .executor import Executor

__all__ = ["Executor", "PushedStructure"]
