"""Learn how wide every layer of a Keras 3 network should be, under a budget: MorphNet as a library."""

from ._version import __version__
from .costs import COSTS
from .errors import MorphError
from .graph import ChannelGraph, Group
__all__ = ["COSTS", "ChannelGraph", "Group", "MorphError", "__version__"]
