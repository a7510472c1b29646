"""Which layers of a network are opened before its channels are followed, so that what is inside them can be pruned.

A network in which some layer runs others is opened down to layers that have a rule or belong to Keras (see `opening`).
Any other is taken as Keras recorded it, and layers without a rule, such as one that scales by a weight of its own, are
probed; those of which the probe cannot tell what they do are opened where more channels can be pruned then. What does
not open stays one layer and is kept whole, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from .agreement import disagreement
from .channels import Channels
from .flows import is_elementwise
from .grouping import channels_of
from .kernels import with_kernels
from .opening import open_network
from .probe import probe
from .resize import configuration_of, made_anew
from .rules import rule_for
from .trace import trace


def channels_of_model(model: keras.Model) -> Channels:
    """The channels of a model, composite layers opened where that is needed.

    Raises:
        MorphError: the model is subclassed, not built, or has a layer whose number of channels is unknown.
    """
    name = model.name if isinstance(model, keras.Model) else ""
    recorded = trace(model)
    if any(_is_composite(layer) for layer in {id(call.layer): call.layer for call in recorded.calls}.values()):
        found = _opened(model, name, _is_known)
        if isinstance(found, str):
            closed = channels_of(name, recorded)
            return dataclasses.replace(closed, notes=(*closed.notes, found))
        return found
    found = channels_of(name, recorded)
    refused = _refused(found)
    if refused:
        opens = {id(layer) for layer in refused}
        further = _opened(model, name, lambda layer: id(layer) not in opens)
        # What cannot be made anew as it is can be as what it runs.
        must_open = any(not _can_be_made_anew(layer) for layer in refused)
        if not isinstance(further, str) and (must_open or further.prunable_places > found.prunable_places):
            return further
    return found


def _opened(model: keras.Model, name: str, is_leaf: Callable[[Any], bool]) -> Channels | str:
    """The channels with all layers opened that are no leaves; or why none could be."""
    try:
        network = open_network(model, is_leaf)
    except Exception as error:  # noqa: BLE001 -- whatever the layers' own code raises, the network stays closed
        return f"no layer could be opened: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    opened = with_kernels(network.trace)
    if reason := disagreement(model, opened):
        return f"no layer is opened: {reason}"
    found = channels_of(name, opened)
    closed = tuple(f"layer '{path}' stays closed: {reason}" for path, reason in network.closed.items())
    return dataclasses.replace(found, notes=(*found.notes, *closed))


def _can_be_made_anew(layer: Any) -> bool:
    try:
        made_anew(layer, configuration_of(layer))
    except Exception:  # noqa: BLE001 -- whatever a stranger's constructor raises, the layer cannot be made by it
        return False
    return True


def _is_composite(layer: Any) -> bool:
    """Whether a layer without a rule runs other layers."""
    return isinstance(layer, keras.Layer) and not _is_known(layer) and bool(layer._layers)


def _is_known(layer: Any) -> bool:
    """Whether a layer is Keras' own or has a rule: those stay as they are, but for activations that are not known."""
    if isinstance(layer, keras.layers.Activation):
        return is_elementwise(layer.activation) and _is_found_by_name(layer.activation)
    return rule_for(layer).flow is not probe or type(layer).__module__.split(".")[0] == "keras"


def _is_found_by_name(function: Any) -> bool:
    """Whether Keras finds a function when it loads a model: its own, and those that were registered."""
    is_own = getattr(keras.activations, getattr(function, "__name__", ""), None) is function
    return is_own or keras.saving.get_registered_name(function) != getattr(function, "__name__", None)


def _refused(channels: Channels) -> list[Any]:
    """The layers without layers inside of which the probe could not tell what they do."""
    layers = [channels.trace.calls[index].layer for index in channels.refused]
    return [layer for layer in layers if isinstance(layer, keras.Layer) and not _is_known(layer) and not layer._layers]
