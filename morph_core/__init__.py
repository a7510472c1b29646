"""Learn how wide every layer of a Keras 3 network should be, under a budget: MorphNet as a library.

A `StructureSearch` trains a network and finds a `Structure`, the widths of its layers. `rebuild` makes a network from
it, `expand` widens it first, `verify` shows that nothing else has changed. A `ChannelGraph` tells beforehand what a
search can decide, and what a network costs.

`COSTS`, `GATES` and `DEVICES` are the tables in which names are looked up, as in `cost="flops"`, `gate="fisher"`
and `cost="latency:v100"`: name -> `Cost`, class of the gate, `Device`.
"""

from . import report
from ._version import __version__
from .cost.calibration import Calibration
from .cost.costs import COSTS, Cost, cost_of, latency
from .cost.devices import DEVICES, Device
from .device.calibrate import calibrate
from .device.export import Export, export
from .device.measure import Measured, measure
from .errors import MorphError
from .network import flows
from .network.channels import Group
from .network.graph import ChannelGraph
from .network.rules import Rule, register_rule
from .search.gates import GATES
from .search.search import StructureSearch
from .structure.batch_statistics import recalibrate
from .structure.chain import chain
from .structure.describe import describe
from .structure.expand import expand, uniform
from .structure.rebuild import compile_arguments, masked, rebuild, verify
from .structure.structure import Structure
from .structure.widen import widen

__all__ = [
    "COSTS",
    "DEVICES",
    "GATES",
    "Calibration",
    "ChannelGraph",
    "Cost",
    "Device",
    "Export",
    "Group",
    "Measured",
    "MorphError",
    "Rule",
    "Structure",
    "StructureSearch",
    "__version__",
    "calibrate",
    "chain",
    "compile_arguments",
    "cost_of",
    "describe",
    "expand",
    "export",
    "flows",
    "latency",
    "masked",
    "measure",
    "rebuild",
    "recalibrate",
    "register_rule",
    "report",
    "uniform",
    "verify",
    "widen",
]
