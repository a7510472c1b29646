"""UniformWidths: the structure that multiplies all widths by one factor, to compare learned ones with."""

from .component import UniformWidths
from .executor import Executor

__all__ = ["Executor", "UniformWidths"]
