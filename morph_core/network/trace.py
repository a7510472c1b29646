"""A Keras network as a flat list of layer calls: the only file that reads Keras' private record of a graph.

Keras keeps, for every functional model, the nodes that were made when layers were called on symbolic tensors. `trace`
walks them in topological order, steps into nested models, and gives every tensor a number, so that the rest of the
library sees plain data: which layer was called, on which tensors, giving which tensors. Calling nothing, it leaves the
model untouched.

Layers that were never given a name are called `conv2d`, `conv2d_1`, ... by a counter that runs through the whole
process, so the same `build_model()` gives other names the second time. `trace` therefore numbers such layers by their
order in the network (`conv2d-1`, `conv2d-2`): a name that another process, and a rebuilt network, will find again.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import keras

from ..errors import MorphError


@dataclasses.dataclass(frozen=True)
class Ref:
    """Stands for tensor number `index` inside the arguments of a call."""

    index: int


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation.

    Attributes:
        name: the layer's name in this network, stable between processes; two calls of one layer share it.
        layer: the Keras layer or operation itself.
        args, kwargs: what it was called with; tensors are `Ref`s.
        inputs, outputs: the numbers of the tensors read and made, in order.
    """

    name: str
    layer: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def kind(self) -> str:
        return type(self.layer).__name__


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A network as data.

    Attributes:
        calls: in topological order, nested models unrolled.
        shapes: of every tensor, by its number; the batch dimension and unknown sizes are None.
        inputs, outputs: numbers of the model's own input and output tensors, flattened.
        dtypes: of every tensor, by its number; () where they were not recorded.
        rows: for every tensor, how many places along the open axis of the batch belong to one example: 1 for an
            ordinary one, 9 for one of windows that are laid along the batch; () where all are ordinary.
    """

    calls: tuple[Call, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dtypes: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()


def trace(model: keras.Model) -> Trace:
    """The layer calls of a functional or Sequential model.

    Raises:
        MorphError: `model` is subclassed or not built, so that Keras kept no record of its graph.
    """
    walk = _Walk()
    root = function_of(model)
    inputs = tuple(walk.number(tensor) for tensor in root.inputs)
    for index, tensor in zip(inputs, root.inputs, strict=True):
        walk.known[id(tensor)] = index
    walk.visit(root, walk.known, prefix="", training=None)
    outputs = tuple(walk.known[id(tensor)] for tensor in root.outputs)
    names = _stable_names(walk.records)
    calls = tuple(
        Call(names[id(layer)], layer, args, kwargs, tuple(ref.index for ref in _refs((args, kwargs))), made)
        for layer, _, args, kwargs, made in walk.records
    )
    return Trace(calls, tuple(walk.shapes), inputs, outputs, tuple(walk.dtypes))


def standardize_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """A model's inputs (a tensor, list or dict) as the flat list that `Trace.inputs` numbers."""
    return function_of(model)._standardize_inputs(inputs)


def pack_outputs(model: keras.Model, outputs: list[Any]) -> Any:
    """A flat list of outputs in the structure that the model returns."""
    return keras.tree.pack_sequence_as(function_of(model)._outputs_struct, outputs)


def input_structure(model: keras.Model) -> Any:
    """The symbolic inputs in the structure that the model was made with."""
    return function_of(model)._inputs_struct


def function_of(model: Any) -> Any:
    """The functional graph behind a model, also behind a Sequential."""
    if isinstance(model, keras.Sequential):
        if model._functional is None:
            raise MorphError(
                f"Sequential model '{model.name}' is not built, so its layers have no shapes yet. "
                "Start it with keras.Input(shape) or call model.build(input_shape) first."
            )
        return model._functional
    if isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth"):
        return model
    what = f"'{model.name}' ({type(model).__name__})" if isinstance(model, keras.Model) else repr(type(model).__name__)
    raise MorphError(
        f"Model {what} is not a functional Keras model: a subclassed model's layers are wired by Python code, which "
        "does not say what it is called on. Call it on symbolic inputs: inputs = keras.Input(shape); "
        "keras.Model(inputs, model(inputs)). Then its layers are opened; it shares its weights with the model."
    )


class _Walk:
    """Collects the calls of a graph and of the models nested in it."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int | None, ...]] = []
        self.dtypes: list[str] = []
        self.tensors: list[Any] = []
        self.known: dict[int, int] = {}
        self.records: list[tuple[Any, str, tuple, dict, tuple[int, ...]]] = []

    def number(self, tensor: Any) -> int:
        self.shapes.append(tuple(tensor.shape))
        self.dtypes.append(str(tensor.dtype))
        self.tensors.append(tensor)
        return len(self.shapes) - 1

    def visit(
        self, function: Any, known: dict[int, int], prefix: str, training: bool | None, resized: bool = False
    ) -> None:
        """Collect a graph's calls; `resized`: its tensors have other sizes than those that it was made with."""

        def refer(leaf: Any) -> Any:
            return Ref(known[id(leaf)]) if isinstance(leaf, keras.KerasTensor) else leaf

        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if node.is_input or not node.operation:
                    continue
                args, kwargs = node.arguments.convert(refer)
                operation = node.operation
                if isinstance(operation, keras.Model) and _is_graph(operation):
                    made = self._visit_nested(operation, args, kwargs, prefix, training, resized)
                else:
                    if training is not None and "training" not in kwargs and takes_training(operation):
                        kwargs = {**kwargs, "training": training}
                    outputs = self._resized_outputs(operation, args, kwargs) if resized else node.outputs
                    made = tuple(self.number(tensor) for tensor in outputs)
                    self.records.append((operation, prefix, args, kwargs, made))
                for tensor, index in zip(node.outputs, made, strict=True):
                    known[id(tensor)] = index

    def _visit_nested(
        self, model: keras.Model, args: tuple, kwargs: dict, prefix: str, training: bool | None, resized: bool
    ) -> tuple[int, ...]:
        function = function_of(model)
        given = [ref.index for ref in _refs(args)] or [ref.index for ref in _refs(kwargs)]
        if len(given) != len(function.inputs):
            raise MorphError(
                f"Nested model '{model.name}' takes {len(function.inputs)} inputs but is called with {len(given)} "
                "tensors; call it with exactly its inputs."
            )
        inner = {id(tensor): index for tensor, index in zip(function.inputs, given, strict=True)}
        own = kwargs.get("training")
        resized |= any(self.shapes[index] != tensor.shape for tensor, index in zip(function.inputs, given, strict=True))
        # A model that nobody named is called by Keras' count of models, which another call of the same code changes.
        prefix = prefix if _is_automatic(model) else f"{prefix}{model.name}."
        self.visit(function, inner, prefix, training if own is None else own, resized)
        return tuple(inner[id(tensor)] for tensor in function.outputs)

    def _resized_outputs(self, operation: Any, args: tuple, kwargs: dict) -> list[Any]:
        """What an operation makes of tensors of the sizes that it is given here."""
        given, named = keras.tree.map_structure(
            lambda leaf: self.tensors[leaf.index] if isinstance(leaf, Ref) else leaf, (args, kwargs)
        )
        return keras.tree.flatten(operation.compute_output_spec(*given, **named))


def _is_graph(model: keras.Model) -> bool:
    return isinstance(model, keras.Sequential) or hasattr(model, "_nodes_by_depth")


def takes_training(operation: Any) -> bool:
    """Whether a layer's `call` has an argument `training`."""
    return isinstance(operation, keras.Layer) and "training" in inspect.signature(operation.call).parameters


def _refs(structure: Any) -> Iterator[Ref]:
    return (leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Ref))


def _stable_names(records: list[tuple[Any, str, tuple, dict, tuple[int, ...]]]) -> dict[int, str]:
    """A name for every layer, by its id: its own where a person chose one, else its kind and rank."""
    order: dict[int, tuple[Any, str]] = {}
    for layer, prefix, *_ in records:
        order.setdefault(id(layer), (layer, prefix))
    names: dict[int, str] = {}
    taken: set[str] = set()
    for key, (layer, prefix) in order.items():
        if not _is_automatic(layer):
            name = f"{prefix}{layer.name}".replace(".", "-")
            names[key] = _free(name, taken)
    ranks: dict[str, int] = {}
    for key, (layer, _) in order.items():
        if key in names:
            continue
        kind = _snake_case(type(layer).__name__)
        while True:
            ranks[kind] = ranks.get(kind, 0) + 1
            name = f"{kind}-{ranks[kind]}"
            if name not in taken:
                break
        taken.add(name)
        names[key] = name
    return names


def _free(name: str, taken: set[str]) -> str:
    """`name`, or with a suffix when a layer of another nested model has it already."""
    candidate, rank = name, 1
    while candidate in taken:
        rank += 1
        candidate = f"{name}-{rank}"
    taken.add(candidate)
    return candidate


def _is_automatic(layer: Any) -> bool:
    return re.fullmatch(rf"{re.escape(_snake_case(type(layer).__name__))}(_\d+)?", layer.name) is not None


def _snake_case(name: str) -> str:
    """Keras' own way from a class name to a default layer name."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
