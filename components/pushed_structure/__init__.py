"""PushedStructure: finds the structure of the model that was pushed last, where models are pushed to."""

from .component import PushedStructure
from .executor import Executor

__all__ = ["Executor", "PushedStructure"]
