"""Retrainer: trains a learned structure from scratch and exports it for serving.

In: examples, the user's module file and a `MorphStructure`. Out: a `Model` that answers serialized examples (`serving`)
and carries its structure and schema, and TensorBoard's logs.
"""

from .component import Retrainer
from .executor import Executor

__all__ = ["Executor", "Retrainer"]
