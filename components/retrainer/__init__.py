"""Retrainer: trains a learned structure from scratch and exports it for serving."""

from .component import Retrainer
from .executor import Executor

__all__ = ["Executor", "Retrainer"]
