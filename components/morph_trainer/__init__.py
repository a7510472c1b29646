"""MorphTrainer: searches for a structure of the user's network under a budget.

In: examples, the user's module file, the goal (`goal`), and for a later cycle the structure of the one before. Out: a
`MorphStructure`, and TensorBoard's logs of the search.
"""

from .component import MorphTrainer
from .executor import Executor

__all__ = ["Executor", "MorphTrainer"]
