"""Which layers of a network are opened before its channels are followed, so that what is inside them can be pruned.

A network of layers that all have rules is taken as Keras recorded it. A layer that runs other layers is opened at once
(see `opening`); one without layers inside, such as a layer that scales by a weight of its own, is probed first and
opened when the probe cannot tell what it does. What does not open stays one layer and is kept whole, with the reason.
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
    if not any(_is_composite(layer) for layer in layers):
        found = channels_of(name, recorded)
        refused = _refused(found)
        if not refused:
            return found
    else:
        found, refused = None, []
    opened: dict[int, Any] = {id(layer): layer for layer in refused}
    while True:
        try:
            network = open_network(model, lambda layer: _is_leaf(layer) and id(layer) not in opened)
        except Exception as error:  # noqa: BLE001 -- whatever the layers' own code raises, the network stays closed
            found = channels_of(name, recorded) if found is None else found
            reason = f"no layer could be opened: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
            return dataclasses.replace(found, notes=(*found.notes, reason))
        found = channels_of(name, network.trace)
        more = [layer for layer in _refused(found) if id(layer) not in opened]
        if not more:
            closed = tuple(f"layer '{path}' stays closed: {reason}" for path, reason in network.closed.items())
            return dataclasses.replace(found, notes=(*found.notes, *closed))
        opened.update((id(layer), layer) for layer in more)


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
