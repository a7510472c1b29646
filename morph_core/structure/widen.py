"""A wider network that answers as the narrow one does: new channels are copies of those that are there, or fresh.

Copies are those of Net2Net's wider operator (Chen, Goodfellow, Shlens, 2015, arXiv 1511.05641, section 3.1). With
`source(j)` the channel of which the new channel j is a copy, and U the weights of the wider network:

    what makes channels:  U[..., j] = W[..., source(j)]
    what reads them:      U[j, ...] = share(j, ...) * W[source(j), ...], the shares of a channel's copies adding to 1

The paper shares out evenly, and adds noise lest copies stay the same for ever, which changes the answers a little.
Here the shares themselves are random, for each entry of a weight by itself: the copies get different gradients from
the first step on, and the answers stay the same.

Fresh channels are made by the weights that a new layer starts with, and read with weights of 0, so they say nothing at
first: the answers stay the same, exactly. In the first step their readers learn, from the second step on they do, too.

Which axes of which weights make and read channels is what the table of rules says already (`Rule.weights`,
`Rule.gates`): a reader is where a closed gate is felt. So this holds for whatever can be pruned. The exception are
layers with statistics over channels, such as LayerNormalization, in which a channel counts as often as it is there:
these stay the same only when every channel has as many copies. At the end both networks are run, and must agree.
"""

from __future__ import annotations

import dataclasses
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


def widen(
    model: keras.Model, structure: Structure | str | os.PathLike[str], seed: int = 0, channels: str = "copies"
) -> keras.Model:
    """A wider network with the weights of a narrow one, which answers as that does; uncompiled.

    Args:
        model: the narrow network, as `rebuild` makes it or any other. It stays as it is.
        structure: the widths, or the path of a structure file: of this network, or of the seed that it was rebuilt
            from. None may be below the network's own.
        seed: of the choice of channels to copy, and of the shares.
        channels: what the new ones are: "copies" of those that are there, or "fresh" ones, with initial weights, which
            nothing reads yet.

    Raises:
        MorphError: the structure has other groups than the network, or is narrower; a channel cannot be added without
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
    return widened(model, loaded(structure), seed, channels)[0]


def widened(
    model: keras.Model, structure: Structure, seed: int = 0, channels: str = "copies"
) -> tuple[keras.Model, list[Part]]:
    """The network that `widen` makes, and what each of its variables was made of.

    A part's `cut` takes what belongs to a variable of the narrow network, such as its momentum, to the wider one: every
    copy has all of it, since the gradients of what reads a copy are those of what read the channel; fresh channels have
    none.
    """
    if channels not in _CHANNELS:
        raise MorphError(f"widen: channels is {channels!r}; expected one of {', '.join(map(repr, _CHANNELS))}.")
    graph = ChannelGraph.from_model(model)
    widths = _widths(graph, structure)
    topology = graph.survivors(widths > 0)
    wide, made = rebuilt_at(model, graph, widths, topology)
    added = _CHANNELS[channels](graph, ChannelGraph.from_model(wide), np.random.default_rng(seed))
    parts: list[Part] = []
    for index, new in layers_to_fill(graph, topology, made):
        for part, value in added.weights(index, new):
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


@dataclasses.dataclass(frozen=True, eq=False)
class _Along:
    """The axes of one weight.

    Attributes:
        follows: for each of them, the axis of the layer that it follows; None for one of no channels.
        places: by axis of the layer, for each place of the wide network the one of the narrow network; see `_places`.
        new: by axis of the layer, which places are of new channels.
        reads: the axis along which channels are read, if there is one.
    """

    follows: tuple[str | None, ...]
    places: Mapping[str, np.ndarray]
    new: Mapping[str, np.ndarray]
    reads: str | None

    def gathered(self, value: np.ndarray) -> np.ndarray:
        """The weight, or what belongs to it, with the channels that new ones stand for in their places."""
        for number, axis in self._numbers(value.ndim):
            value = np.take(value, self.places[axis], axis=number)
        return value

    def of_new(self, ndim: int, reading: bool) -> np.ndarray:
        """Which entries are of new channels that are read, or are made: a bool array that broadcasts to the weight."""
        found = np.zeros((1,) * ndim, dtype=bool)
        for number, axis in self._numbers(ndim):
            if (axis == self.reads) == reading:
                shape = [1] * ndim
                shape[number] = -1
                found = found | self.new[axis].reshape(shape)
        return found

    def read(self, ndim: int) -> tuple[int, str] | None:
        """The axis along which channels are read: its number, and its name in the layer."""
        return next(((number, axis) for number, axis in self._numbers(ndim) if axis == self.reads), None)

    def _numbers(self, ndim: int) -> list[tuple[int, str]]:
        numbers = range(ndim - len(self.follows), ndim)
        return [
            (number, axis)
            for number, axis in zip(numbers, self.follows, strict=True)
            if axis is not None and axis in self.places
        ]


class _Added:
    """Which channel of the narrow network each channel of the wide one stands for, on every axis.

    Args:
        graph: of the narrow network.
        wide: of the wide one.
        rng: chooses channels and shares.
    """

    keeps_means = False
    """Whether a mean over channels stays what it is where each channel is there as often as the others."""

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
        # For each unit of the wide network, the unit of the narrow one that it stands for, or is a copy of.
        self._source = np.array(
            [
                unit_at[int(group), int(sources[group][position])]
                for group, position in zip(wide.group_of, wide.position_of, strict=True)
            ],
            dtype=np.int64,
        )
        sizes = np.array([group.size for group in graph.groups], dtype=np.int64)
        self._is_new = wide.position_of >= sizes[wide.group_of]

    def weights(self, index: int, new: Any) -> Iterator[tuple[Part, np.ndarray]]:
        """What the weights of a layer become: the parts of it, and their values."""
        graph, call, rule = self._graph, self._graph.trace.calls[index], self._graph.rules[index]
        other = self._call_of[id(new)]
        before, after = graph.axes[index], self._wide.axes[other]
        places = {axis: _places(before[axis], after[axis], self._source) for axis in before if axis in after}
        is_new = {axis: (after[axis] >= 0) & self._is_new[after[axis]] for axis in places}
        self._check_statistics(index, places)
        old: Any = call.layer
        follows = {id(weight_of(old, path)): (path, axes) for path, axes in rule.weights.items()}
        for weight, variable in zip(old.weights, new.weights, strict=True):
            path, follows_axes = follows.get(id(weight), ("", ()))
            along = _Along(follows_axes, places, is_new, rule.gates.get(path))
            shape = along.gathered(np.broadcast_to(np.zeros((), dtype=bool), tuple(weight.shape))).shape
            if shape != tuple(variable.shape):
                raise MorphError(
                    f"widen: weight '{weight.path}' of layer '{call.name}' ({call.kind}) becomes {shape}, but the "
                    f"wider layer needs {tuple(variable.shape)}: its rule does not say which axes follow the channels."
                )
            yield self._weight(weight, variable, along)

    def _weight(self, weight: Any, variable: Any, along: _Along) -> tuple[Part, np.ndarray]:
        """What one weight becomes: the part of it, and its value."""
        raise NotImplementedError

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
        keeps_means = self.keeps_means and type(layer).__name__ in _OF_MEANS
        if counts.min() == counts.max() and keeps_means:
            return
        units = self._graph.axes[index]["out"]
        group = self._graph.groups[int(self._graph.group_of[units[units >= 0]][0])]
        whole = "New channels change them"
        if keeps_means:
            whole = (
                f"They stay only where all have as many copies: {2 * group.size}, {3 * group.size}, ... channels, as "
                f"with multiple_of={{'{group.name}': {group.size}}} in morph.expand"
            )
        raise MorphError(
            f"widen: layer '{call.name}' ({call.kind}) takes statistics over the channels of group '{group.name}' "
            f"({group.size} channels). {whole}. Or leave the width of '{group.name}' as it is in the structure, or "
            "build the wider network with morph.rebuild and train it anew."
        )


class _Copies(_Added):
    """New channels are copies; the weights that read a channel are shared out among them."""

    keeps_means = True

    def _weight(self, weight: Any, variable: Any, along: _Along) -> tuple[Part, np.ndarray]:
        value = along.gathered(as_numpy(weight))
        if read := along.read(value.ndim):
            number, axis = read
            value = value * self._shares(value.shape, number, along.places[axis])
        return Part(weight, variable, along.gathered), value

    def _shares(self, shape: tuple[int, ...], number: int, places: np.ndarray) -> np.ndarray:
        """What each copy has of a weight: float array of that shape; along an axis those of one channel add to 1."""
        if len(np.unique(places)) == len(places):
            return np.ones((), dtype="float32")
        drawn = np.moveaxis(self._rng.uniform(*_SHARES, shape), number, 0)
        totals = np.zeros((int(places.max()) + 1, *drawn.shape[1:]))
        np.add.at(totals, places, drawn)
        return np.moveaxis(drawn / totals[places], 0, number).astype("float32")


class _Fresh(_Added):
    """New channels are made as a new layer makes them, and what reads them has weights of 0."""

    def _weight(self, weight: Any, variable: Any, along: _Along) -> tuple[Part, np.ndarray]:
        initial, ndim = as_numpy(variable), len(variable.shape)
        made, read = along.of_new(ndim, reading=False), along.of_new(ndim, reading=True)

        def without_new(value: np.ndarray) -> np.ndarray:
            return np.where(made | read, np.zeros((), value.dtype), along.gathered(value))

        return Part(weight, variable, without_new), np.where(made, initial, without_new(as_numpy(weight)))


_CHANNELS: dict[str, type[_Added]] = {"copies": _Copies, "fresh": _Fresh}


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
