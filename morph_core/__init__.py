"""Learn how wide every layer of a Keras 3 network should be, under a budget: MorphNet as a library.

A `StructureSearch` trains a network and finds a `Structure`, the widths of its layers. `rebuild` makes a network from
it, `expand` widens it first, `verify` shows that nothing else has changed. A `ChannelGraph` tells beforehand what a
search can decide, and what a network costs.

`COSTS`, `GATES` and `DEVICES` are the tables in which names are looked up, as in `cost="flops"`, `gate="fisher"`
and `cost="latency:v100"`: name -> `Cost`, class of the gate, `Device`.

Importing this imports Keras and its backend, which takes long, and registers our layers with Keras. A program that may
end before it needs them, such as a command line, sets MORPH_CORE_LATE while it imports this: all names but `MorphError`
then come when the first of them is used.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import MorphError

_late = bool(os.environ.get("MORPH_CORE_LATE"))

if TYPE_CHECKING or not _late:
    from . import report
    from .cost.calibration import Calibration
    from .cost.costs import COSTS, Cost, cost_of, latency
    from .cost.devices import DEVICES, Device
    from .device.calibrate import calibrate
    from .device.export import Export, export
    from .device.measure import Measured, measure
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


def __getattr__(name: str) -> Any:
    """Makes up for what was left out, once a name of it is used."""
    if name not in __all__ or not _late:  # while it is made up for, nothing is late any more
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.reload(sys.modules[__name__])
    return globals()[name]
