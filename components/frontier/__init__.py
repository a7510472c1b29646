"""Frontier: several trained networks go in, a comparison and the one to push come out."""

from .artifact import MorphFrontier
from .component import Frontier
from .executor import Executor

__all__ = ["Executor", "Frontier", "MorphFrontier"]
