"""Which layers of a network are opened before its channels are followed, so that what is inside them can be pruned.

A network of layers that all have rules is taken as Keras recorded it. A layer that runs other layers is opened at once
(see `opening`); one without layers inside, such as a layer that scales by a weight of its own, is probed first and
opened when the probe cannot tell what it does and more channels can be pruned then. What does not open stays one layer
and is kept whole, with the reason.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from .channels import Channels
from .flows import is_elementwise
from .grouping import channels_of
from .opening import open_network
from .probe import probe
from .resize import made_anew
from .rules import rule_for
from .trace import trace


def channels_of_model(model: keras.Model) -> Channels:
    """The channels of a model, composite layers opened where that is needed.

    Raises:
        MorphError: the model is subclassed, not built, or has a layer whose number of channels is unknown.
    """
    name = model.name if isinstance(model, keras.Model) else ""
    recorded = trace(model)
    layers = {id(call.layer): call.layer for call in recorded.calls}.values()
    opens = any(_is_composite(layer) for layer in layers)
    found = _opened(model, name, frozenset()) if opens else channels_of(name, recorded)
    if isinstance(found, str):
        recorded_channels = channels_of(name, recorded)
        return dataclasses.replace(recorded_channels, notes=(*recorded_channels.notes, found))
    opened: frozenset[int] = frozenset()
    # A layer that opens may show another one inside that the probe cannot tell.
    while more := {id(layer) for layer in _refused(found)} - opened:
        opened |= more
        further = _opened(model, name, opened)
        if isinstance(further, str):
            break
        # What cannot be made anew as it is can be as what it runs.
        must_open = any(not _can_be_made_anew(layer) for layer in _refused(found))
        if not must_open and _prunable_channels(further) <= _prunable_channels(found):
            break
        found = further
    return found


def _opened(model: keras.Model, name: str, opened: frozenset[int]) -> Channels | str:
    """The channels with composite layers opened, and those of these ids; or why none could be."""
    try:
        network = open_network(model, lambda layer: _is_leaf(layer) and id(layer) not in opened)
    except Exception as error:  # noqa: BLE001 -- whatever the layers' own code raises, the network stays closed
        return f"no layer could be opened: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    found = channels_of(name, network.trace)
    closed = tuple(f"layer '{path}' stays closed: {reason}" for path, reason in network.closed.items())
    return dataclasses.replace(found, notes=(*found.notes, *closed))


def _can_be_made_anew(layer: Any) -> bool:
    try:
        made_anew(layer, layer.get_config())
    except Exception:  # noqa: BLE001 -- whatever a stranger's constructor raises, the layer cannot be made by it
        return False
    return True


def _prunable_channels(channels: Channels) -> int:
    return sum(group.size for group in channels.groups if group.prunable)


def _is_composite(layer: Any) -> bool:
    """Whether a layer without a rule runs other layers."""
    return isinstance(layer, keras.Layer) and not _is_known(layer) and bool(layer._layers)


def _is_leaf(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Activation):
        return is_elementwise(layer.activation)
    return _is_known(layer) or not layer._layers


def _is_known(layer: Any) -> bool:
    """Whether a layer is Keras' own or has a rule: those stay as they are."""
    return rule_for(layer).flow is not probe or type(layer).__module__.split(".")[0] == "keras"


def _refused(channels: Channels) -> list[Any]:
    """The layers without layers inside of which the probe could not tell what they do."""
    layers = [channels.trace.calls[index].layer for index in channels.refused]
    return [layer for layer in layers if isinstance(layer, keras.Layer) and not _is_known(layer) and not layer._layers]
