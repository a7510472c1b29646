"""Learn how wide every layer of a Keras 3 network should be, under a budget: MorphNet as a library."""

from . import flows, report
from ._version import __version__
from .batch_statistics import recalibrate
from .costs import COSTS, Cost, cost_of, latency
from .devices import DEVICES, Device
from .errors import MorphError
from .expand import expand, uniform
from .gates import GATES
from .graph import ChannelGraph, Group
from .rebuild import compile_arguments, masked, rebuild, verify
from .rules import Rule, register_rule
from .search import StructureSearch
from .structure import Structure, chain, describe

__all__ = [
    "COSTS",
    "DEVICES",
    "GATES",
    "ChannelGraph",
    "Cost",
    "Device",
    "Group",
    "MorphError",
    "Rule",
    "Structure",
    "StructureSearch",
    "__version__",
    "chain",
    "compile_arguments",
    "cost_of",
    "describe",
    "expand",
    "flows",
    "latency",
    "masked",
    "rebuild",
    "recalibrate",
    "register_rule",
    "report",
    "uniform",
    "verify",
]
