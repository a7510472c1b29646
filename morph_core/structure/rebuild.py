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
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import as_numpy, weight_of
from ..errors import MorphError
from ..network.agreement import largest_difference, random_inputs
from ..network.gating import gated_call
from ..network.graph import ChannelGraph
from ..network.placement import Placement
from ..network.resize import Resize, configuration_of, made_anew
from ..network.standins import KeepInputs
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


def rebuild(model: keras.Model, structure: Structure | str | os.PathLike[str], weights: str = "fresh") -> keras.Model:
    """A new Keras model of the structure's widths, uncompiled.

    Layers keep their configuration, and their names; those that were never named get stable ones (`conv2d-3`), and
    those of nested models are laid out flat.

    Args:
        model: the seed that the structure belongs to.
        structure: the widths, or the path of a structure file.
        weights: "fresh" initialises anew; statistics set by `adapt` are kept, and so are the alive channels of layers
            that are frozen (`trainable = False`), since nothing would ever train them. "inherit" copies the channels
            that are alive everywhere.

    Raises:
        MorphError: the structure belongs to another network; it was expanded, so that there is nothing to inherit; or a
            layer cannot be made anew.
    """
    structure = loaded(structure)
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
    """The rebuilt network, and what it takes over: all that is left, or only what nobody would train."""
    graph = ChannelGraph.from_model(model)
    widths = structure.widths_in(graph)
    if inherits:
        _check_inheritable(structure)
    topology = graph.survivors(widths > 0)
    student, made = rebuilt_at(model, graph, widths, topology, alive_units(graph, structure))
    return student, _parts(graph, topology, made, structure, inherits)


def rebuilt_at(
    model: keras.Model, graph: ChannelGraph, widths: np.ndarray, topology: Topology, alive: np.ndarray | None = None
) -> tuple[keras.Model, dict[int, Any]]:
    """A network like `model`, of some widths, with new weights; and its layers, by the id of those of the seed.

    Args:
        model: the seed.
        graph: of the seed.
        widths: int array (groups,), channels of each group.
        topology: what is left of the seed.
        alive: which channels are, where it matters: bool array (units,).

    Raises:
        MorphError: a layer cannot be made anew, or not be called at its new widths.
    """
    made: dict[int, Any] = {}

    def call_new(index: int, call: Call, args: tuple, kwargs: dict) -> Any:
        layer, args = resized(graph, index, widths, args, alive=alive)
        if id(call.layer) not in made:
            made[id(call.layer)] = layer
            _share_layers_inside(call.layer, layer, new_layer_like)
        try:
            return made[id(call.layer)](*args, **kwargs)
        except Exception as error:
            shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten((args, kwargs)) if hasattr(leaf, "shape")]
            raise MorphError(
                f"Layer '{call.name}' ({call.kind}) cannot be called on inputs of shapes {shapes} when the network is "
                f"rebuilt at other widths ({_in_short(error)}). Add a row that says what it does with channels "
                "(morph_core.register_rule), or let it take sizes from its inputs."
            ) from error

    def new_layer_like(layer: Any) -> Any:
        """What stands for a layer of the seed that is also called by itself; None for any other."""
        if id(layer) not in made and id(layer) in first_call:
            index = first_call[id(layer)]
            made[id(layer)], _ = resized(graph, index, widths, graph.trace.calls[index].args, alive=alive)
        return made.get(id(layer))

    first_call = {id(call.layer): index for index, call in reversed(list(enumerate(graph.trace.calls)))}
    symbolic = [_copy_of_input(tensor) for tensor in keras.tree.flatten(input_structure(model))]
    outputs = replay(graph, topology, _with_unused(graph, topology, symbolic), call_new)
    structured = keras.tree.pack_sequence_as(input_structure(model), symbolic)
    student = keras.Model(structured, pack_outputs(model, outputs), name=model.name)
    _check_ties(graph, made)
    return student, made


def masked(model: keras.Model, structure: Structure | str | os.PathLike[str], inputs: Any) -> Any:
    """The seed's outputs for `inputs` with the gates of all missing channels closed, in inference mode.

    Raises:
        MorphError: the structure belongs to another network, or was expanded.
    """
    structure = loaded(structure)
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


def verify(
    model: keras.Model, structure: Structure | str | os.PathLike[str], inputs: Any = None, seed: int = 0
) -> float:
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
        inputs = random_inputs(model, np.random.default_rng(seed))
    structure = loaded(structure)
    student = rebuild(model, structure, weights="inherit")
    return largest_difference(masked(model, structure, inputs), student(inputs, training=False))


def loaded(structure: Any) -> Structure:
    """A structure, also of the path of its file."""
    if isinstance(structure, (str, os.PathLike)):
        return Structure.load(structure)
    if not isinstance(structure, Structure):
        raise MorphError(
            f"Expected a Structure, or the path of a structure file; received {type(structure).__name__}. "
            "A search gives one: search.structure()."
        )
    return structure


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
    """Which channels a structure keeps: bool array (units,); all of groups whose width was expanded."""
    alive = np.ones(len(graph.group_of), dtype=bool)
    for index, group in enumerate(graph.groups):
        if group.prunable and structure.groups[group.name]["alive"] is not None:
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
            if not call.inputs:  # A weight or a constant by itself: called on any tensor, of which it reads nothing.
                args = (tensors[trace.inputs[0]],)
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


def _with_unused(graph: ChannelGraph, topology: Topology, inputs: list[Any]) -> list[Any]:
    """A network's inputs, on one of which those hang that nothing reads any more."""
    is_read = [bool(topology.tensors[number]) for number in graph.trace.inputs]
    if all(is_read):
        return inputs
    place = is_read.index(True)
    unused = [tensor for tensor, read in zip(inputs, is_read, strict=True) if not read]
    return [*inputs[:place], KeepInputs(name="keep_inputs")(inputs[place], *unused), *inputs[place + 1 :]]


def _share_layers_inside(old: Any, new: Any, new_layer_like: Callable[[Any], Any]) -> None:
    """Let a new layer hold other layers of the new network where the seed's holds layers that the seed calls, too."""
    # PyTorch keeps layers that are set as attributes apart from other attributes.
    for attribute, held in list((vars(old) | vars(old).get("_modules", {})).items()):
        if not isinstance(held, keras.Layer) or isinstance(old, keras.layers.Wrapper):
            continue
        shared, own = new_layer_like(held), getattr(new, attribute, None)
        if shared is not None and own is not shared and isinstance(own, keras.Layer):
            # Keras lists a layer's layers in the order of their weights.
            place = [id(layer) for layer in new._layers].index(id(own))
            new._tracker.untrack(own)
            setattr(new, attribute, shared)
            if id(new._layers[-1]) == id(shared):
                new._layers.insert(place, new._layers.pop())


def _copy_of_input(tensor: Any) -> Any:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=tensor.name)


def resized(
    graph: ChannelGraph,
    index: int,
    widths: np.ndarray,
    args: tuple,
    change_config: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    alive: np.ndarray | None = None,
) -> tuple[Any, tuple]:
    """The layer of call `index` made anew, as wide as it should be, and the arguments for it.

    Args:
        widths: int array (groups,).
        args: of the call.
        change_config: what else to change in the layer's configuration.
        alive: which channels are left: bool array (units,). Where that is not told, or more are wanted than the seed
            has, they are taken evenly from among the seed's.

    Raises:
        MorphError: the layer cannot be made from its configuration.
    """
    call, rule = graph.trace.calls[index], graph.rules[index]
    is_layer = isinstance(call.layer, keras.Layer)
    # An operation whose tensors stay as they are need not be one that can be made anew.
    if not is_layer and (rule.resize is None or not graph.axes[index]):
        return call.layer, args
    try:
        config: dict[str, Any] = change_config(_as_new(configuration_of(call.layer)))
        if is_layer:
            config["name"] = call.name
        for argument, axis in rule.widths.items():
            if axis in graph.axes[index]:
                _set_in(config, argument.split("."), graph.axis_width(index, axis, widths))
        if rule.resize is not None:
            change = Resize(
                call,
                config,
                list(args),
                graph.trace.shapes,
                lambda tensor, axis: graph.places(tensor, axis, widths),
                lambda tensor, axis: graph.kept(tensor, axis, widths, alive),
            )
            rule.resize(change)
            args = tuple(change.args)
        return made_anew(call.layer, config), args
    except Exception as error:
        raise MorphError(
            f"Layer '{call.name}' ({call.kind}) cannot be made anew from its configuration ({_in_short(error)}). "
            "Give the class a get_config() that returns every argument of its constructor."
        ) from error


def _set_in(config: dict[str, Any], path: list[str], width: Any) -> None:
    """Set a width in a configuration, perhaps in that of a layer inside, or at a place of a shape."""
    *way, name = path
    if name.isdigit():
        shape = list(functools.reduce(operator.getitem, way, config))
        shape[int(name)] = width
        _set_in(config, way, shape)
    else:
        functools.reduce(operator.getitem, way, config)[name] = width


def _in_short(error: Exception) -> str:
    """What an error says first: Keras wraps those of a layer, and goes on for a page."""
    plain = re.sub(r"\x1b\[\d*m", "", str(error))
    said = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", plain.strip())]
    while len(said) > 1 and (said[0].endswith(":") or said[0].startswith("Exception encountered when calling")):
        del said[0]
    return said[0].rstrip(".") or type(error).__name__


def _as_new(config: Any) -> Any:
    """A configuration without the shapes that layers inside the layer were built with."""
    if isinstance(config, dict):
        return {key: _as_new(value) for key, value in config.items() if key != "build_config"}
    return [_as_new(value) for value in config] if isinstance(config, list) else config


def _check_not_expanded(graph: ChannelGraph, index: int, structure: Structure) -> None:
    """Raise when a frozen layer would need weights for channels that the seed does not have."""
    call = graph.trace.calls[index]
    units = np.concatenate([*graph.axes[index].values(), np.zeros(0, dtype=np.int64)])
    for number in np.unique(graph.group_of[units[units >= 0]]):
        group = graph.groups[number]
        if group.prunable and structure.groups[group.name]["alive"] is None:
            raise MorphError(
                f"Layer '{call.name}' ({call.kind}) is frozen (trainable=False), but the structure was expanded: there "
                f"are no weights for the new channels of group '{group.name}', and nothing would train them. Unfreeze "
                "the layer, or rebuild the structure from before morph.expand."
            )


def _check_inheritable(structure: Structure) -> None:
    for name, entry in structure.groups.items():
        if entry["alive"] is None:
            raise MorphError(
                f"The structure was expanded: group '{name}' has width {entry['width']}, which are no channels of the "
                f"seed (width {entry['seed_width']}). Use weights='fresh', or the structure from before morph.expand."
            )


def _parts(
    graph: ChannelGraph, topology: Topology, made: dict[int, Any], structure: Structure, inherits: bool
) -> list[Part]:
    """What the new layers take over: all that is left, or what belongs to frozen layers and statistics alone."""
    alive = np.append(alive_units(graph, structure), True)
    parts: list[Part] = []
    for index, layer in layers_to_fill(graph, topology, made):
        seed_layer: Any = graph.trace.calls[index].layer
        is_frozen = not seed_layer.trainable and bool(seed_layer.weights)
        if is_frozen:
            _check_not_expanded(graph, index, structure)
        if inherits or is_frozen:
            parts += _parts_of_weights(graph, index, layer, alive)
        if inherits:
            parts += parts_of_random_states(seed_layer, layer)
    return parts


def layers_to_fill(graph: ChannelGraph, topology: Topology, made: Mapping[int, Any]) -> Iterator[tuple[int, Any]]:
    """New layers, each once, with the index of a call, that is left, of the one that it stands for.

    What a layer has learned of the data by `adapt` is copied here, and it is left out: no channel has a part of it.

    Args:
        graph: of the seed.
        topology: what is left of it.
        made: the new layers, by the id of the seed's.
    """
    done: set[int] = set()
    for index, call in enumerate(graph.trace.calls):
        old: Any = call.layer
        layer = made.get(id(old))
        if not isinstance(layer, keras.Layer) or not topology.calls[index] or id(layer) in done:
            continue
        done.add(id(layer))
        if hasattr(layer, "adapt"):
            store: dict[str, Any] = {}
            old.save_own_variables(store)
            layer.load_own_variables(store)
            continue
        yield index, layer


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


def parts_of_random_states(seed_layer: Any, layer: Any) -> Iterator[Part]:
    """Where the random numbers of a layer are, which Keras does not count as weights."""
    states = [
        [variable for variable in it.variables if not any(variable is weight for weight in it.weights)]
        for it in (seed_layer, layer)
    ]
    # A nested model that is compiled has its metrics there, which no new layer has.
    if [tuple(state.shape) for state in states[0]] == [tuple(state.shape) for state in states[1]]:
        for old, new in zip(*states, strict=True):
            yield Part(old, new, np.asarray, is_weight=False)


def _check_ties(graph: ChannelGraph, made: dict[int, Any]) -> None:
    """Raise when a weight that several layers of the seed hold has become several."""
    copies: dict[int, Any] = {}
    for index in graph.weights_in_common:
        call = graph.trace.calls[index]
        if id(call.layer) not in made:
            continue
        common = {id(weight) for weight in graph.weights_in_common[index]}
        for old, new in zip(getattr(call.layer, "weights", ()), made[id(call.layer)].weights, strict=False):
            if id(old) in common and copies.setdefault(id(old), new) is not new:
                raise MorphError(
                    f"Layer '{call.name}' ({call.kind}) holds '{old.path}' of another layer, but when it is made anew "
                    "from its configuration it gets one of its own. Let the layer have the other layer itself as an "
                    "attribute, or pass it the weight as a tensor when it is called."
                )


def _kept(
    value: np.ndarray, follows: tuple[str | None, ...], axes: dict[str, np.ndarray], alive: np.ndarray
) -> np.ndarray:
    """The part of a weight that belongs to channels still alive; `alive` ends with True for channels of no group."""
    for offset, axis in enumerate(reversed(follows), start=1):
        if axis in axes:
            value = np.compress(alive[axes[axis]], value, axis=value.ndim - offset)
    return value
