"""MorphTrainer: searches for a structure of the user's network under a budget."""

from .component import MorphTrainer
from .executor import Executor

__all__ = ["Executor", "MorphTrainer"]
