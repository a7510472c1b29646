"""DeviceCalibrator: the user's network goes in, what its operations take on this node comes out.

In: the user's module file, and how the network will run. Out: a `DeviceCalibration`, by which MorphTrainer and
UniformWidths count `cost="latency"`.
"""

from .component import DeviceCalibrator
from .executor import Executor

__all__ = ["DeviceCalibrator", "Executor"]
