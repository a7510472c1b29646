"""UniformWidths: the structure that multiplies all widths by one factor, to compare learned ones with.

In: the user's module file, a cost and a target. Out: a `MorphStructure`. Nothing is trained.
"""

from .component import UniformWidths
from .executor import Executor

__all__ = ["Executor", "UniformWidths"]
