"""A wider network that answers as the narrow one does: new channels are copies, whose readers share a weight out.

Net2Net's wider operator (Chen, Goodfellow, Shlens, 2015, arXiv 1511.05641, section 3.1). With `source(j)` the channel
of which the new channel j is a copy, and U the weights of the wider network:

    what makes channels:  U[..., j] = W[..., source(j)]
    what reads them:      U[j, ...] = share(j, ...) * W[source(j), ...], the shares of a channel's copies adding to 1

The paper shares out evenly, and adds noise lest copies stay the same for ever, which changes the answers a little.
Here the shares themselves are random, for each entry of a weight by itself: the copies get different gradients from
the first step on, and the answers stay the same.

Which axes of which weights make and read channels is what the table of rules says already (`Rule.weights`,
`Rule.gates`): a reader is where a closed gate is felt. So this holds for whatever can be pruned. The exception are
layers with statistics over channels, such as LayerNormalization, in which a channel counts as often as it is there:
these stay the same only when every channel has as many copies. At the end both networks are run, and must agree.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy, weight_of
from ..errors import MorphError
from ..network.agreement import largest_difference, random_inputs
from ..network.graph import ChannelGraph
from .rebuild import Part, layers_to_fill, loaded, parts_of_random_states, rebuilt_at
from .structure import Structure

# Of the largest output: float32 networks agree to about 1e-6, half precision to about 1e-2.
_ROUNDING, _HALF_ROUNDING = 1e-4, 5e-2
# Shares are drawn from this range, before they are made to add to 1: no copy has nothing to say.
_SHARES = (0.5, 1.5)
# Layers whose statistics over channels are means, to which it is all the same how often all of them are there.
_OF_MEANS = ("LayerNormalization", "RMSNormalization", "GroupNormalization")


def widen(model: keras.Model, structure: Structure | str | os.PathLike[str], seed: int = 0) -> keras.Model:
    """A wider network with the weights of a narrow one, which answers as that does; uncompiled.

    Args:
        model: the narrow network, as `rebuild` makes it or any other. It stays as it is.
        structure: the widths, or the path of a structure file: of this network, or of the seed that it was rebuilt
            from. None may be below the network's own.
        seed: of the choice of channels to copy, and of the shares.

    Raises:
        MorphError: the structure has other groups than the network, or is narrower; a channel cannot be copied without
            changing what the network answers.

    Example:
        >>> import keras, numpy as np, morph_core as morph
        >>> inputs = keras.Input((8,))
        >>> hidden = keras.layers.Dense(6, activation="relu", name="hidden")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> graph = morph.ChannelGraph.from_model(model)
        >>> wide = morph.widen(model, morph.expand(morph.describe(graph, {}), graph, multiplier=1.5))
        >>> x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
        >>> difference = np.abs(model.predict(x, verbose=0) - wide.predict(x, verbose=0)).max()
        >>> wide.get_layer("hidden").units, bool(difference < 1e-5)
        (9, True)
    """
    return widened(model, loaded(structure), seed)[0]


def widened(model: keras.Model, structure: Structure, seed: int = 0) -> tuple[keras.Model, list[Part]]:
    """The network that `widen` makes, and what each of its variables was made of.

    A part's `cut` takes what belongs to a variable of the narrow network, such as its momentum, to the wider one: every
    copy has all of it, since the gradients of what reads a copy are those of what read the channel.
    """
    graph = ChannelGraph.from_model(model)
    widths = _widths(graph, structure)
    topology = graph.survivors(widths > 0)
    wide, made = rebuilt_at(model, graph, widths, topology)
    copies = _Copies(graph, ChannelGraph.from_model(wide), np.random.default_rng(seed))
    parts: list[Part] = []
    for index, new in layers_to_fill(graph, topology, made):
        for part, value in copies.weights(index, new):
            part.variable.assign(value)
            parts.append(part)
        for part in parts_of_random_states(graph.trace.calls[index].layer, new):
            part.inherit()
            parts.append(part)
    _check_answers(
        model, wide, [group.name for group, width in zip(graph.groups, widths, strict=True) if width > group.size]
    )
    return wide, parts


def _widths(graph: ChannelGraph, structure: Structure) -> np.ndarray:
    """The width of each group, by its name, as a network has them that was rebuilt: int array (groups,)."""
    widths = graph.seed_widths.copy()
    prunable = {group.name for group in graph.groups if group.prunable}
    others = [name for name, entry in structure.groups.items() if entry["width"] and name not in prunable]
    missing = sorted(prunable - set(structure.groups))
    if others or missing:
        what = f"has channels in group '{others[0]}'" if others else f"says nothing of group '{missing[0]}'"
        raise MorphError(
            f"widen: the structure {what}, which the network '{graph.name}' {'has not' if others else 'has'}. Give a "
            "structure of this network, or of the seed that it was rebuilt from: morph.expand(structure, graph, ...) "
            "of the structure that it was rebuilt to."
        )
    for index, group in enumerate(graph.groups):
        if group.prunable:
            widths[index] = structure.groups[group.name]["width"]
            if widths[index] < group.size:
                raise MorphError(
                    f"widen: group '{group.name}' has {group.size} channels in network '{graph.name}', and "
                    f"{widths[index]} in the structure. This only widens: use morph.rebuild(model, structure, "
                    "weights='inherit') to narrow a network."
                )
    return widths


class _Copies:
    """Which channel of the narrow network each channel of the wide one is a copy of, on every axis.

    Args:
        graph: of the narrow network.
        wide: of the wide one.
        rng: chooses channels and shares.
    """

    def __init__(self, graph: ChannelGraph, wide: ChannelGraph, rng: np.random.Generator) -> None:
        names = [[group.name for group in each.groups] for each in (graph, wide)]
        if names[0] != names[1]:
            raise MorphError(
                f"widen: at other widths network '{graph.name}' has other groups of channels "
                f"({', '.join(sorted(set(names[0]) ^ set(names[1]))[:4])}), so it cannot be told which channels belong "
                "to which. Widen fewer groups, or build the wider network and train it anew: morph.rebuild."
            )
        self._graph, self._wide, self._rng = graph, wide, rng
        self._call_of = {id(call.layer): index for index, call in reversed(list(enumerate(wide.trace.calls)))}
        unit_at = {
            (int(group), int(position)): unit
            for unit, (group, position) in enumerate(zip(graph.group_of, graph.position_of, strict=True))
        }
        sources = [
            _sources(group.size, after.size, rng) for group, after in zip(graph.groups, wide.groups, strict=True)
        ]
        # For each unit of the wide network, the unit of the narrow one that it is a copy of.
        self._source = np.array(
            [
                unit_at[int(group), int(sources[group][position])]
                for group, position in zip(wide.group_of, wide.position_of, strict=True)
            ],
            dtype=np.int64,
        )

    def weights(self, index: int, new: Any) -> Iterator[tuple[Part, np.ndarray]]:
        """What the weights of a layer become: the parts of it, and their values."""
        graph, call, rule = self._graph, self._graph.trace.calls[index], self._graph.rules[index]
        other = self._call_of[id(new)]
        before, after = graph.axes[index], self._wide.axes[other]
        places = {axis: _places(before[axis], after[axis], self._source) for axis in before if axis in after}
        self._check_statistics(index, places)
        old: Any = call.layer
        follows = {id(weight_of(old, path)): (path, axes) for path, axes in rule.weights.items()}
        for weight, variable in zip(old.weights, new.weights, strict=True):
            path, axes = follows.get(id(weight), ("", ()))
            gather = functools.partial(_gathered, follows=axes, places=places)
            value = gather(as_numpy(weight))
            if value.shape != tuple(variable.shape):
                raise MorphError(
                    f"widen: weight '{weight.path}' of layer '{call.name}' ({call.kind}) becomes {value.shape}, but "
                    f"the wider layer needs {tuple(variable.shape)}: its rule does not say which axes follow "
                    "the channels."
                )
            axis = rule.gates.get(path)
            if axis in places:
                value = value * self._shares(value.shape, value.ndim - len(axes) + axes.index(axis), places[axis])
            yield Part(weight, variable, gather), value

    def _shares(self, shape: tuple[int, ...], along: int, places: np.ndarray) -> np.ndarray:
        """What each copy has of a weight: float array of that shape; along an axis those of one channel add to 1."""
        if len(np.unique(places)) == len(places):
            return np.ones((), dtype="float32")
        drawn = np.moveaxis(self._rng.uniform(*_SHARES, shape), along, 0)
        totals = np.zeros((int(places.max()) + 1, *drawn.shape[1:]))
        np.add.at(totals, places, drawn)
        return np.moveaxis(drawn / totals[places], 0, along).astype("float32")

    def _check_statistics(self, index: int, places: Mapping[str, np.ndarray]) -> None:
        """Raise where the statistics of a layer over channels would not stay what they are."""
        call, rule = self._graph.trace.calls[index], self._graph.rules[index]
        if rule.masked is None or "out" not in places:
            return
        layer: Any = call.layer
        counts = np.bincount(places["out"])
        by_channel = isinstance(layer, keras.layers.GroupNormalization) and layer.groups in (-1, len(counts))
        if counts.max(initial=1) == 1 or by_channel:
            return
        if counts.min() == counts.max() and type(layer).__name__ in _OF_MEANS:
            return
        units = self._graph.axes[index]["out"]
        group = self._graph.groups[int(self._graph.group_of[units[units >= 0]][0])]
        whole = "Copies change them"
        if type(layer).__name__ in _OF_MEANS:
            whole = (
                f"They stay only where all have as many copies: {2 * group.size}, {3 * group.size}, ... channels, as "
                f"with multiple_of={{'{group.name}': {group.size}}} in morph.expand"
            )
        raise MorphError(
            f"widen: layer '{call.name}' ({call.kind}) takes statistics over the channels of group '{group.name}' "
            f"({group.size} channels). {whole}. Or leave the width of '{group.name}' as it is in the structure, or "
            "build the wider network with morph.rebuild and train it anew."
        )


def _sources(size: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """The channel that each of `width` channels is a copy of: all of them first, then as evenly as possible."""
    rounds = [np.arange(size)]
    while sum(map(len, rounds)) < width:
        rounds.append(rng.permutation(size))
    return np.concatenate(rounds)[:width]


def _places(before: np.ndarray, after: np.ndarray, source: np.ndarray) -> np.ndarray:
    """For each place on an axis of the wide network, the place on the narrow one's that it is a copy of.

    A channel may have several places, as after Flatten; the n-th place of a copy is one of the n-th of its source. So
    are channels of no group (-1).
    """
    order = np.argsort(before, kind="stable")
    ordered = before[order]
    wanted = np.where(after < 0, -1, source[after]) if len(source) else after
    by_copy = np.argsort(after, kind="stable")
    nth = np.empty(len(after), dtype=np.int64)
    nth[by_copy] = np.arange(len(after)) - np.searchsorted(after[by_copy], after[by_copy])
    return order[np.searchsorted(ordered, wanted) + nth]


def _gathered(value: np.ndarray, follows: tuple[str | None, ...], places: Mapping[str, np.ndarray]) -> np.ndarray:
    """A weight, or what belongs to it, with copies along the axes of channels."""
    for offset, axis in enumerate(reversed(follows), start=1):
        if axis is not None and axis in places:
            value = np.take(value, places[axis], axis=value.ndim - offset)
    return value


def _check_answers(model: keras.Model, wide: keras.Model, widened: list[str]) -> None:
    """Raise unless both networks answer alike on random numbers."""
    inputs = random_inputs(model, np.random.default_rng(0))
    exact = all(layer.compute_dtype == "float32" for layer in model.layers if isinstance(layer, keras.Layer))
    difference = largest_difference(model(inputs, training=False), wide(inputs, training=False))
    if difference > (_ROUNDING if exact else _HALF_ROUNDING):
        raise MorphError(
            f"widen: network '{model.name}' answers otherwise when it is widened (by {difference:.1e} of the "
            f"largest output) in {', '.join(repr(name) for name in widened[:8])}. A layer of your own may "
            "treat channels in a way that its rule or the probe does not know: correct its rule with "
            "morph_core.register_rule, or leave the widths of its groups as they are."
        )
