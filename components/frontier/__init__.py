"""Frontier: several trained networks go in, a comparison and the one to push come out.

In: for each network its model, its evaluation and its structure. Out: a `MorphFrontier` with the report, a copy of the
chosen model, and its blessing.
"""

from .artifact import MorphFrontier
from .component import Frontier
from .executor import Executor

__all__ = ["Executor", "Frontier", "MorphFrontier"]
