"""What a layer multiplies inside: its code is run on symbolic tensors, and what it runs is counted.

On symbolic tensors every Keras layer and operation leaves a record. A layer that multiplies in another way (an
operation of the backend, two of its own weights) leaves none: then the count would be wrong, and it is `Uncounted`
instead.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras
import numpy as np

from ..cost.calls import CallWidths, Shape, Uncounted
from ..cost.costs import multiply_adds
from ..errors import MorphError
from .rules import rule_for
from .trace import takes_training


class Inside:
    """Counts of inner calls, each remembered: they are taken at full widths, which do not change."""

    def __init__(self) -> None:
        self._known: dict[Any, float | Uncounted] = {}

    def count(self, layer: Any, given: dict[str, Any], opened: bool) -> float:
        """Multiply-adds of a layer for one example.

        Args:
            layer: at its own full widths.
            given: what it is called with, by the names of its parameters; tensors are `Shape`s.
            opened: by what its code runs; otherwise by its own rule.

        Raises:
            Uncounted: they cannot be told.
        """
        key = (id(layer), opened, repr(given))
        if key not in self._known:
            try:
                self._known[key] = self._counted(layer, given, opened)
            except Uncounted as reason:
                self._known[key] = reason
        found = self._known[key]
        if isinstance(found, Uncounted):
            raise Uncounted(str(found))
        return found

    def _counted(self, layer: Any, given: dict[str, Any], opened: bool) -> float:
        symbolic = keras.tree.map_structure(lambda leaf: _symbol(layer, leaf), given)
        inputs = [leaf for leaf in keras.tree.flatten(symbolic) if isinstance(leaf, keras.KerasTensor)]
        nodes = _run(layer, symbolic, opened)
        if opened:
            _check_weights(layer, nodes)
        made = {id(tensor) for node in nodes for tensor in node.output_tensors}
        strangers = [
            tensor
            for node in nodes
            for tensor in node.input_tensors
            if id(tensor) not in made and all(tensor is not one for one in inputs)
        ]
        if strangers:
            raise Uncounted("its code reads a tensor from outside")
        spent = 0.0
        for node in nodes:
            try:
                spent += float(multiply_adds(self._widths(node)))
            except MorphError as reason:
                kind = type(node.operation).__name__
                raise Uncounted(f"it runs {node.operation.name} ({kind}), and {reason}") from reason
        return spent

    def _widths(self, node: Any) -> CallWidths:
        """The call of a node at full widths; its tensors hold one example."""
        operation = node.operation
        args, kwargs = keras.tree.map_structure(
            lambda leaf: Shape.of_seed(*leaf.shape) if isinstance(leaf, keras.KerasTensor) else leaf,
            (node.arguments.args, node.arguments.kwargs),
        )
        made = node.output_tensors[0]
        return CallWidths(
            name=operation.name,
            kind=type(operation).__name__,
            layer=operation,
            rule=rule_for(operation),
            input_shapes=tuple(tuple(tensor.shape) for tensor in node.input_tensors),
            output_shape=tuple(made.shape),
            places=(),
            axes={},
            first=True,
            reads=(),
            makes=(),
            frees=(),
            tensor_sizes=lambda: np.zeros(0),
            arguments=lambda: bound(operation, args, kwargs),
            made=lambda: Shape.of_seed(*made.shape),
            inside=self.count,
            rows=(_first(node.input_tensors[0].shape) if node.input_tensors else 1, _first(made.shape)),
        )


def bound(operation: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operation's parameters.

    Raises:
        Uncounted: they are none that it takes.
    """
    try:
        found = inspect.signature(operation.call).bind_partial(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise Uncounted(f"it is called in a way that is not followed ({error})") from error
    return dict(found.arguments)


def _first(shape: Any) -> int:
    return shape[0] or 1 if len(shape) > 1 else 1


def _symbol(layer: Any, leaf: Any) -> Any:
    if not isinstance(leaf, Shape):
        return leaf
    if any(np.isnan(size).any() for size in leaf.sizes):
        raise Uncounted("the size of a tensor that it reads is unknown; give keras.Input a shape without None")
    return keras.KerasTensor(tuple(int(size) for size in leaf.sizes), dtype=getattr(layer, "compute_dtype", "float32"))


def _run(layer: Any, given: dict[str, Any], opened: bool) -> list[Any]:
    """The nodes that the output depends on, after a run that leaves nothing behind."""
    if opened and takes_training(layer):
        given = {**given, "training": False}
    arguments = inspect.signature(layer.call).bind_partial()
    arguments.arguments.update(given)
    parts = [layer, *layer._flatten_layers(include_self=False)] if isinstance(layer, keras.Layer) else []
    nodes = [(part, len(part._inbound_nodes), len(part._outbound_nodes)) for part in parts]
    try:
        with keras.StatelessScope():
            outputs = (layer.call if opened else layer)(*arguments.args, **arguments.kwargs)
        return _nodes_behind([leaf for leaf in keras.tree.flatten(outputs) if isinstance(leaf, keras.KerasTensor)])
    except Exception as error:
        text = str(error).strip().splitlines()
        raise Uncounted(
            f"its code does not run on symbolic tensors ({type(error).__name__}: {text[0][:120] if text else ''})"
        ) from error
    finally:
        for part, inbound, outbound in nodes:
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]


def _nodes_behind(outputs: list[Any]) -> list[Any]:
    found: dict[int, Any] = {}
    todo = list(outputs)
    while todo:
        history = getattr(todo.pop(), "_keras_history", None)
        if history is None or history.operation is None:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in found and not node.is_input:
            found[id(node)] = node
            todo += node.input_tensors
    return list(found.values())


def _check_weights(layer: Any, nodes: list[Any]) -> None:
    """Raise unless all matrices of a layer were seen in what it ran, as they are or as an array of their size."""
    matrices = [weight for weight in getattr(layer, "_trainable_variables", ()) if len(weight.shape) > 1]
    leaves = [leaf for node in nodes for leaf in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))]
    seen = {id(leaf) for leaf in leaves}
    seen.update(id(weight) for node in nodes for weight in getattr(node.operation, "weights", ()))
    sizes = {
        math.prod(leaf.shape)
        for leaf in leaves
        if hasattr(leaf, "shape") and not isinstance(leaf, (keras.KerasTensor, keras.Variable))
    }
    for weight in matrices:
        if id(weight) not in seen and math.prod(weight.shape) not in sizes:
            raise Uncounted(f"its code uses weight '{weight.name}' in a way that cannot be seen")
