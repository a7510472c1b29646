"""From a structure to a network: replay the seed's calls with new widths, or with closed gates, which is the same.

`rebuild` makes an ordinary Keras model whose layers are as wide as the structure says. `masked` runs the seed itself
with the gates of the missing channels closed. That the two agree for every network and every structure is the law this
library rests on; `verify` measures it.

A gate sits where channels are read and mixed, at the input of convolutions and dense layers: there nothing can undo it
(a BatchNormalization after a closed gate would add its offset back), and a closed gate is the same as a missing
channel.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import as_numpy, weight_of
from ..errors import MorphError
from ..network.gating import gated_call
from ..network.graph import ChannelGraph
from ..network.placement import Placement
from ..network.resize import Resize, made_anew
from ..network.topology import Topology
from ..network.trace import Call, Ref, input_structure, pack_outputs, standardize_inputs, takes_training
from .structure import Structure


@dataclasses.dataclass(frozen=True)
class Part:
    """A variable of a rebuilt network, and what it is a part of.

    Attributes:
        whole: the seed's variable.
        variable: the rebuilt network's.
        cut: takes an array of the whole's shape and gives the part of it that belongs to the channels still alive.
        is_weight: False for the state of a random generator.
    """

    whole: Any
    variable: Any
    cut: Callable[[np.ndarray], np.ndarray]
    is_weight: bool = True

    def inherit(self) -> None:
        """Give the rebuilt network the seed's values."""
        self.variable.assign(self.cut(as_numpy(self.whole)))


def rebuild(model: keras.Model, structure: Structure, weights: str = "fresh") -> keras.Model:
    """A new Keras model of the structure's widths, uncompiled.

    Layers keep their configuration, and their names; those that were never named get stable ones (`conv2d-3`), and
    those of nested models are laid out flat.

    Args:
        model: the seed that the structure belongs to.
        structure: the widths.
        weights: "fresh" initialises anew (statistics set by `adapt` are kept); "inherit" copies the channels that are
            alive.

    Raises:
        MorphError: the structure belongs to another network; or it was expanded, so that there is nothing to inherit.
    """
    if weights not in ("fresh", "inherit"):
        raise MorphError(f"rebuild: weights is {weights!r}; expected 'fresh' or 'inherit'.")
    student, parts = _rebuilt(model, structure, inherits=weights == "inherit")
    for part in parts:
        if part.is_weight:
            part.inherit()
    return student


def inherit(model: keras.Model, structure: Structure) -> tuple[keras.Model, list[Part]]:
    """A network as by `rebuild(..., weights="inherit")` whose random numbers go on, too, and what its variables are.

    Returns:
        The network, uncompiled, and what each of its variables is a part of, those that `adapt` has set left out.

    Raises:
        MorphError: as for `rebuild`.
    """
    student, parts = _rebuilt(model, structure, inherits=True)
    for part in parts:
        part.inherit()
    return student, parts


def _rebuilt(model: keras.Model, structure: Structure, inherits: bool) -> tuple[keras.Model, list[Part]]:
    """The rebuilt network, and what it may inherit: nothing unless asked for, beside what `adapt` has set."""
    graph = ChannelGraph.from_model(model)
    widths = structure.widths_in(graph)
    if inherits:
        _check_inheritable(structure)
    topology = graph.survivors(widths > 0)
    made: dict[int, Any] = {}

    def call_new(index: int, call: Call, args: tuple, kwargs: dict) -> Any:
        layer, args = resized(graph, index, widths, args)
        return made.setdefault(id(call.layer), layer)(*args, **kwargs)

    symbolic = [_copy_of_input(tensor) for tensor in keras.tree.flatten(input_structure(model))]
    outputs = replay(graph, topology, symbolic, call_new)
    structured = keras.tree.pack_sequence_as(input_structure(model), symbolic)
    student = keras.Model(structured, pack_outputs(model, outputs), name=model.name)
    return student, _parts(graph, topology, made, structure if inherits else None)


def masked(model: keras.Model, structure: Structure, inputs: Any) -> Any:
    """The seed's outputs for `inputs` with the gates of all missing channels closed, in inference mode.

    Raises:
        MorphError: the structure belongs to another network, or was expanded.
    """
    graph = ChannelGraph.from_model(model)
    _check_inheritable(structure)
    topology = graph.survivors(structure.widths_in(graph) > 0)
    gated = Placement(graph, at_scales=False).gated(alive_units(graph, structure).astype("float32"))

    def call_gated(index: int, call: Call, args: tuple, kwargs: dict) -> Any:
        if takes_training(call.layer):
            kwargs = {**kwargs, "training": False}
        return gated_call(graph, index, gated[index], args, kwargs)

    tensors = [ops.convert_to_tensor(tensor) for tensor in standardize_inputs(model, inputs)]
    return pack_outputs(model, replay(graph, topology, tensors, call_gated, keep_places=True))


def verify(model: keras.Model, structure: Structure, inputs: Any = None, seed: int = 0) -> float:
    """How far the rebuilt network is from the masked seed: largest difference over largest output.

    Args:
        model: the seed; its weights are used as they are.
        structure: of that seed, not expanded.
        inputs: a batch for the model; random numbers by default.
        seed: of those random numbers.

    Returns:
        0 for perfect agreement; float32 networks reach about 1e-6. Infinity when an output is not a finite number.
    """
    if inputs is None:
        rng = np.random.default_rng(seed)
        inputs = keras.tree.map_structure(lambda tensor: _random_like(tensor, rng), input_structure(model))
    student = rebuild(model, structure, weights="inherit")
    worst = 0.0
    pairs = zip(
        keras.tree.flatten(masked(model, structure, inputs)),
        keras.tree.flatten(student(inputs, training=False)),
        strict=True,
    )
    for expected, received in pairs:
        expected, received = as_numpy(expected), as_numpy(received)
        scale = max(float(np.abs(expected).max(initial=0.0)), 1e-12)
        difference = float(np.abs(expected - received).max(initial=0.0)) / scale
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def _random_like(tensor: Any, rng: np.random.Generator) -> np.ndarray:
    """Two examples for a model's input: numbers from -1 to 1; of integers 0 and 1, which every vocabulary has."""
    shape = (tensor.shape[0] or 2, *(size or 8 for size in tensor.shape[1:]))
    if keras.backend.is_float_dtype(tensor.dtype):
        return rng.uniform(-1, 1, shape).astype(tensor.dtype)
    return rng.integers(0, 2, shape).astype(tensor.dtype)


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """What a model was compiled with, for another's `compile`; an optimizer that was used already is copied.

    Raises:
        MorphError: the model is not compiled.
    """
    recorded = getattr(model, "_compile_config", None)
    if not model.compiled or recorded is None:
        raise MorphError(
            f"Model '{model.name}' is not compiled. Call model.compile(optimizer, loss, metrics) before it is returned."
        )
    arguments = dict(recorded.config)
    optimizer = arguments["optimizer"]
    if isinstance(optimizer, keras.optimizers.Optimizer) and optimizer.built:
        arguments["optimizer"] = unused(optimizer)
    return arguments


def unused(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """An optimizer of the same settings that was never used.

    Raises:
        MorphError: its class cannot be made from its configuration.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return keras.optimizers.LossScaleOptimizer(
            unused(optimizer.inner_optimizer),
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
            name=optimizer.name,
        )
    try:
        config = optimizer.get_config()
        rate = optimizer._learning_rate
        if not isinstance(rate, keras.Variable):
            # A schedule, or a function: it has no state, and classes that nobody registered could not be made anew.
            config["learning_rate"] = rate
        return type(optimizer).from_config(config)
    except Exception as error:
        raise MorphError(
            f"Optimizer '{optimizer.name}' ({type(optimizer).__name__}) cannot be made anew from its configuration "
            f"({error}). Give the class a get_config() that returns every argument of its constructor."
        ) from error


def alive_units(graph: ChannelGraph, structure: Structure) -> np.ndarray:
    """Which channels a structure keeps: bool array (units,)."""
    alive = np.ones(len(graph.group_of), dtype=bool)
    for index, group in enumerate(graph.groups):
        if group.prunable:
            kept = np.zeros(group.size, dtype=bool)
            kept[structure.groups[group.name]["alive"]] = True
            units = np.flatnonzero(graph.group_of == index)
            alive[units] = kept[graph.position_of[units]]
    return alive


def replay(
    graph: ChannelGraph,
    topology: Topology,
    inputs: Sequence[Any],
    call_layer: Callable[[int, Call, tuple, dict], Any],
    keep_places: bool = False,
) -> list[Any]:
    """Run the calls that are left, in order.

    Args:
        topology: what is left; see `topology`.
        inputs: the model's inputs, flat.
        call_layer: (index of the call, the call, args, kwargs) -> outputs.
        keep_places: layers are as wide as in the seed, so zeros stand for a dead tensor where tensors are concatenated.

    Returns:
        The model's outputs, flat.
    """
    trace = graph.trace
    tensors: dict[int, Any] = dict(zip(trace.inputs, inputs, strict=True))
    for index, call in enumerate(trace.calls):
        if not topology.calls[index]:
            continue
        left = [number for number in call.inputs if number in tensors]
        if keep_places and graph.rules[index].joins == "append":
            for number in set(call.inputs) - set(left):
                tensors[number] = _zeros(trace.shapes[number], tensors[left[0]])
            left = list(call.inputs)
        if len(left) == len(call.inputs):
            args, kwargs = keras.tree.map_structure(lambda leaf: _fill(leaf, tensors), (call.args, call.kwargs))
            result = call_layer(index, call, args, kwargs)
        elif len(left) == 1:
            result = tensors[left[0]]
        else:
            result = call_layer(index, call, ([tensors[number] for number in left],), {})
        for number, tensor in zip(call.outputs, keras.tree.flatten(result), strict=True):
            if topology.tensors[number]:
                tensors[number] = tensor
    return [tensors[number] for number in trace.outputs]


def _zeros(shape: tuple[int | None, ...], sibling: Any) -> Any:
    """Zeros of a tensor's shape, with the unknown sizes of its sibling."""
    sizes = [known if known is not None else actual for known, actual in zip(shape, ops.shape(sibling), strict=True)]
    return ops.zeros(sizes, dtype=sibling.dtype)


def _fill(leaf: Any, tensors: dict[int, Any]) -> Any:
    return tensors[leaf.index] if isinstance(leaf, Ref) else leaf


def _copy_of_input(tensor: Any) -> Any:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=tensor.name)


def resized(
    graph: ChannelGraph,
    index: int,
    widths: np.ndarray,
    args: tuple,
    change_config: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> tuple[Any, tuple]:
    """The layer of call `index` made anew, as wide as it should be, and the arguments for it.

    Args:
        widths: int array (groups,).
        args: of the call.
        change_config: what else to change in the layer's configuration.

    Raises:
        MorphError: the layer cannot be made from its configuration.
    """
    call, rule = graph.trace.calls[index], graph.rules[index]
    is_layer = isinstance(call.layer, keras.Layer)
    if not is_layer and rule.resize is None:
        return call.layer, args
    try:
        config: dict[str, Any] = change_config(_as_new(call.layer.get_config()))
        if is_layer:
            config["name"] = call.name
        for argument, axis in rule.widths.items():
            if axis in graph.axes[index]:
                *path, name = argument.split(".")
                functools.reduce(operator.getitem, path, config)[name] = graph.axis_width(index, axis, widths)
        if rule.resize is not None:
            change = Resize(
                call, config, list(args), graph.trace.shapes, lambda tensor, axis: graph.places(tensor, axis, widths)
            )
            rule.resize(change)
            args = tuple(change.args)
        return made_anew(call.layer, config), args
    except Exception as error:
        raise MorphError(
            f"Layer '{call.name}' ({call.kind}) cannot be made anew from its configuration ({error}). "
            "Give the class a get_config() that returns every argument of its constructor."
        ) from error


def _as_new(config: Any) -> Any:
    """A configuration without the shapes that layers inside the layer were built with."""
    if isinstance(config, dict):
        return {key: _as_new(value) for key, value in config.items() if key != "build_config"}
    return [_as_new(value) for value in config] if isinstance(config, list) else config


def _check_inheritable(structure: Structure) -> None:
    for name, entry in structure.groups.items():
        if entry["alive"] is None:
            raise MorphError(
                f"The structure was expanded: group '{name}' has width {entry['width']}, which are no channels of the "
                f"seed (width {entry['seed_width']}). Use weights='fresh', or the structure from before morph.expand."
            )


def _parts(graph: ChannelGraph, topology: Topology, made: dict[int, Any], structure: Structure | None) -> list[Part]:
    """What the new layers may inherit; statistics of the data, which `adapt` has set, they are given in any case."""
    alive = None if structure is None else np.append(alive_units(graph, structure), True)
    parts: list[Part] = []
    done: set[int] = set()
    for index, call in enumerate(graph.trace.calls):
        seed_layer: Any = call.layer
        layer = made.get(id(seed_layer))
        if not isinstance(layer, keras.Layer) or not topology.calls[index] or id(layer) in done:
            continue
        done.add(id(layer))
        if hasattr(layer, "adapt"):
            store: dict[str, Any] = {}
            seed_layer.save_own_variables(store)
            layer.load_own_variables(store)
        elif alive is not None:
            parts += _parts_of_weights(graph, index, layer, alive)
            parts += _parts_of_random_states(seed_layer, layer)
    return parts


def _parts_of_weights(graph: ChannelGraph, index: int, layer: Any, alive: np.ndarray) -> Iterator[Part]:
    """The weights of a new layer; `alive` ends with True for channels of no group."""
    call, rule = graph.trace.calls[index], graph.rules[index]
    followed = {
        id(weight_of(call.layer, path)): follows
        for path, follows in rule.weights.items()
        if weight_of(call.layer, path) is not None
    }
    seed_layer: Any = call.layer
    for old, new in zip(seed_layer.weights, layer.weights, strict=True):
        cut = functools.partial(_kept, follows=followed.get(id(old), ()), axes=graph.axes[index], alive=alive)
        shape = cut(np.broadcast_to(np.zeros((), dtype=bool), tuple(old.shape))).shape
        if shape != tuple(new.shape):
            raise MorphError(
                f"Weight '{old.path}' of layer '{call.name}' ({call.kind}) has shape {shape}, but the "
                f"rebuilt layer needs {tuple(new.shape)}: its rule does not say which axes follow the channels."
            )
        yield Part(old, new, cut)


def _parts_of_random_states(seed_layer: Any, layer: Any) -> Iterator[Part]:
    """Where the random numbers of a layer are, which Keras does not count as weights."""
    states = [
        [variable for variable in it.variables if not any(variable is weight for weight in it.weights)]
        for it in (seed_layer, layer)
    ]
    # A nested model that is compiled has its metrics there, which no new layer has.
    if [tuple(state.shape) for state in states[0]] == [tuple(state.shape) for state in states[1]]:
        for old, new in zip(*states, strict=True):
            yield Part(old, new, np.asarray, is_weight=False)


def _kept(
    value: np.ndarray, follows: tuple[str | None, ...], axes: dict[str, np.ndarray], alive: np.ndarray
) -> np.ndarray:
    """The part of a weight that belongs to channels still alive; `alive` ends with True for channels of no group."""
    for offset, axis in enumerate(reversed(follows), start=1):
        if axis in axes:
            value = np.compress(alive[axes[axis]], value, axis=value.ndim - offset)
    return value
