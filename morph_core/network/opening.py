"""Opening composite layers: a layer whose `call` runs other layers becomes those calls, one flat list of them.

A transformer's block is one layer to Keras, and what happens inside is Python code. But that code runs as well on
symbolic tensors, on which every Keras layer and operation leaves a record. So the network is run once more, on symbolic
inputs, and while it runs each composite layer answers the question for its output's shape by running its own `call`.
Keras sets the stage for each of them as it always does (types, masks, whether this is training); what they run is
recorded, level by level, down to layers that have a rule or belong to Keras. The seed is left as it was.

Three things would be missed by the record alone:

*Weights.* Code may use a weight directly (`x * self.gamma`). While the network runs, the attributes that hold weights
hold symbolic tensors instead, so that all that is computed with them is recorded, too.

*Sizes.* Code may ask for sizes that a symbolic input does not know, such as that of the batch. The network is then run
at two or three sizes, and numbers that differ between these runs are written as what they are of the sizes.

*Training.* The first run is one at inference and the others are of training. A layer that runs other things in training
stays closed, but for losses that it adds then: what leads to them is followed as well, and a `TrainingLoss` adds them.

What cannot be opened stays closed, with the reason: then the layer is one call, as it is in Keras' own record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from .flows import einsum_terms
from .known import known_numbers
from .standins import Constant, Sized, TrainingLoss, Weight
from .trace import Call, Ref, Trace, _is_automatic, _snake_case, input_structure

# Where Keras and PyTorch keep their own lists of a layer's variables and layers, beside TensorFlow's that begin with
# "_self_": these must go on holding the variables themselves.
_LEDGERS = frozenset(
    {"_trainable_variables", "_non_trainable_variables", "_layers", "_seed_generators", "_tracker"}
    | {"_modules", "_parameters", "_buffers"}
)

# What stands in a layer's attributes during a run, in front of the methods of its class.
_HOOKS = ("compute_output_spec", "call", "add_loss")


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A network whose composite layers are opened.

    Attributes:
        trace: its calls, flat.
        closed: by the path of the layer, why it stays closed.
    """

    trace: Trace
    closed: dict[str, str]


def open_network(model: keras.Model, is_leaf: Callable[[Any], bool]) -> Opened:
    """Open the composite layers of a model, to any depth; the model is left untouched.

    Args:
        model: functional or Sequential.
        is_leaf: whether a layer is to stay as it is, since it is known what it does.
    """
    keep_closed: dict[int, str] = {}
    sizes = _sample_sizes(model)
    while True:
        # The first run is one at inference, all others are runs of training.
        runs = [_run(model, is_leaf, keep_closed, one, place > 0) for place, one in enumerate(sizes)]
        if refused := _closed_at_times(runs) or _held_by_closed(runs[0]):
            keep_closed.update(refused)
            continue
        taken = list(sizes)
        if any(run.losses for run in runs):
            # What leads to a loss is there in training only, and is needed at all sizes.
            runs.append(_run(model, is_leaf, keep_closed, sizes[0], True))
            taken.append(sizes[0])
        opened = _Merger(model, runs, taken).merge()
        if isinstance(opened, Opened):
            return opened
        keep_closed.update(opened)


def _closed_at_times(runs: list[_Run]) -> dict[int, str]:
    """Layers that stayed closed in some of the runs, by id, and why; of those inside each other the innermost."""
    closed = {key: found for run in runs for key, found in run.closed.items()}
    some = {key: found for key, found in closed.items() if any(key not in run.closed for run in runs)}
    return {
        key: reason
        for key, (layer, reason) in some.items()
        if not any(id(one) in some for one in layer._flatten_layers(include_self=False))
    }


def _held_by_closed(run: _Run) -> dict[int, str]:
    """Layers that were opened though one that stays closed holds them, too, by id: a network has one of each."""
    opened = {id(step.owner) for step in _needed(run, run.outputs)}
    return {
        id(inner): f"layer '{layer.name}', which stays closed, holds it, too"
        for layer, _ in run.closed.values()
        for inner in layer._flatten_layers(include_self=False)
        if id(inner) in opened and inner.variables
    }


# --- one run ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """What a run takes for sizes that the model's inputs leave open: of the batch, and of any other axis."""

    batch: int | None
    other: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class _Held:
    """In the place of an operation: what makes the symbolic tensor of a weight or of a constant."""

    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """One call that was recorded; its arguments hold symbolic tensors and arrays."""

    operation: Any
    owner: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Any, ...]


class _WeightTensor(keras.KerasTensor):
    """What an attribute that holds a weight holds during a run."""

    @property
    def value(self) -> _WeightTensor:
        return self


class _Nothing(keras.KerasTensor):
    """In the place of None among a layer's outputs, which Keras does not record."""


def _with_nones(kind: type, layer: Any, args: tuple, kwargs: dict) -> Any:
    """Call a layer of this class; None among its outputs stays None."""
    outputs = kind.__call__(layer, *args, **kwargs)
    return keras.tree.map_structure(lambda leaf: None if isinstance(leaf, _Nothing) else leaf, outputs)


class _Watch(keras.StatelessScope):
    """Notices reads of variables in code that runs outside of any layer's own inference of shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[Any] = []

    def get_current_value(self, variable: Any) -> Any:
        self.read.append(variable)
        return super().get_current_value(variable)


class _Stage(keras.layers.Layer):
    """What Keras takes for the model during a run: layers that are not told whether this is training ask for its."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        super().__init__(autocast=False)
        self._run = run

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self._run(inputs)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        return self._run(inputs)


class _NotOpened(Exception):
    """Why a layer stays closed."""


class _Run:
    """The network run once on symbolic inputs."""

    def __init__(self, is_leaf: Callable[[Any], bool], keep_closed: dict[int, str]) -> None:
        self.is_leaf = is_leaf
        self.keep_closed = keep_closed
        self.closed: dict[int, tuple[Any, str]] = {}
        self.steps: list[_Step] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.losses: list[tuple[Any, Any]] = []
        self.paths: dict[int, str] = {}
        self._watch = _Watch()
        self._symbols: dict[int, Any] = {}
        self._held: dict[int, _Held] = {}
        self._made_by: dict[int, Any] = {}
        self._recorded: set[int] = set()
        self._implicit_mask: set[int] = set()
        self._alive: list[Any] = []
        self._owners: list[Any] = []
        self._inferring = 0

    def run(self, model: keras.Model, inputs: list[Any], structured: Any, training: bool) -> None:
        self.inputs = inputs
        self._recorded.update(map(id, inputs))
        with self._prepared(model, training), self._watch, known_numbers():
            self._call_model(model, structured, training)

    def _call_model(self, model: Any, structured: Any, training: bool) -> None:
        function = _function(model)

        def run(inputs: Any) -> Any:
            if function is None:
                outputs = model(inputs, training=training) if _takes(model, "training") else model(inputs)
            else:
                outputs = function._run_through_graph(inputs, operation_fn=with_training)
            self.outputs = keras.tree.flatten(outputs)
            self._collect(self.outputs, None)
            return outputs

        def with_training(operation: Any) -> Callable:
            given = {"training": training} if _takes(operation, "training") else {}
            # As a functional model does: what was recorded may be a layer's default of False.
            return lambda *args, **kwargs: operation(*args, **{**kwargs, **given})

        _Stage(run)(structured, training=training)

    # What layers are while the network runs.

    @contextlib.contextmanager
    def _prepared(self, model: keras.Model, training: bool) -> Iterator[None]:
        """Layers as they must be during a run; afterwards as they were."""
        layers = list(self._layers_of(model, "", root=_function(model) is not None))
        kinds = [(layer, type(layer)) for layer, _ in layers]
        nodes = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in _all_layers(model)]
        restored = [(layer, self._make_symbolic(layer)) for layer, _ in layers]
        for layer, opens in layers:
            self._put_hooks(layer, opens)
            if opens and training:
                vars(layer)["add_loss"] = functools.partial(self._add_loss, layer)
        self._attributes = {id(layer): attributes for layer, attributes in restored}
        try:
            yield
        finally:
            for layer, attributes in restored:
                vars(layer).update(attributes)
            for layer, _ in layers:
                for name in _HOOKS:
                    vars(layer).pop(name, None)
            for layer, kind in kinds:
                object.__setattr__(layer, "__class__", kind)
            for layer, inbound, outbound in nodes:
                del layer._inbound_nodes[inbound:]
                del layer._outbound_nodes[outbound:]

    def _layers_of(self, layer: Any, path: str, root: bool = False) -> Iterator[tuple[Any, bool]]:
        """The layers of a tree down to its leaves, each once, and whether it is to be opened; notes their paths."""
        if id(layer) in self.paths:
            return
        self.paths[id(layer)] = path
        opens = id(layer) not in self.keep_closed and (_function(layer) is not None or not self.is_leaf(layer))
        if id(layer) in self.keep_closed:
            self.closed[id(layer)] = (layer, self.keep_closed[id(layer)])
        if not root:
            yield layer, opens
        if opens or root:
            for child in layer._layers:
                yield from self._layers_of(child, _joined(path, _name_within(layer, child)))

    def _make_symbolic(self, layer: Any) -> dict[str, Any]:
        """Replace weights in a layer's attributes by symbols; what the attributes were."""
        before: dict[str, Any] = {}
        for name, value in list(vars(layer).items()):
            if name in _LEDGERS or name.startswith("_self_"):
                continue
            if isinstance(value, keras.Variable):
                symbol: Any = self._symbol(layer, name, value)
            elif isinstance(value, (list, tuple)) and any(isinstance(one, keras.Variable) for one in value):
                symbol = [
                    self._symbol(layer, f"{name}-{place}", one) if isinstance(one, keras.Variable) else one
                    for place, one in enumerate(value)
                ]
            elif isinstance(value, dict) and any(isinstance(one, keras.Variable) for one in value.values()):
                symbol = {
                    key: self._symbol(layer, f"{name}-{key}", one) if isinstance(one, keras.Variable) else one
                    for key, one in value.items()
                }
            else:
                continue
            before[name] = value
            vars(layer)[name] = symbol
        return before

    def _symbol(self, layer: Any, name: str, variable: Any) -> Any:
        if id(variable) not in self._symbols:
            is_cast = layer.autocast and keras.backend.is_float_dtype(variable.dtype)
            symbol = _WeightTensor(variable.shape, layer.compute_dtype if is_cast else variable.dtype)
            self._held[id(symbol)] = _Held((variable, layer, name))
            self._symbols[id(variable)] = symbol
        return self._symbols[id(variable)]

    def _constant(self, value: Any) -> Any:
        array = as_numpy(value)
        symbol = keras.KerasTensor(array.shape, dtype=str(array.dtype))
        self._held[id(symbol)] = _Held(array)
        self._alive.append(symbol)
        return symbol

    def _put_hooks(self, layer: Any, opens: bool) -> None:
        if opens:
            kind = type(layer)
            names = {
                "__module__": kind.__module__,
                "__call__": lambda layer, *args, **kwargs: _with_nones(kind, layer, args, kwargs),
            }
            object.__setattr__(layer, "__class__", type(kind.__name__, (kind,), names))
            vars(layer)["compute_output_spec"] = lambda *args, **kwargs: self._inside(layer, args, kwargs)
        else:
            vars(layer)["compute_output_spec"] = lambda *args, **kwargs: self._inferred(layer, args, kwargs)
        if opens or layer.variables:
            vars(layer)["call"] = lambda *args, **kwargs: self._called(layer, opens, args, kwargs)

    def _inferred(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        """The output's shape as the layer itself infers it, with its weights in their places."""
        symbolic = {name: vars(layer)[name] for name in self._attributes[id(layer)]}
        vars(layer).update(self._attributes[id(layer)])
        self._inferring += 1
        try:
            return _output_spec(layer, args, kwargs)
        finally:
            self._inferring -= 1
            vars(layer).update(symbolic)

    def _called(self, layer: Any, opens: bool, args: tuple, kwargs: dict) -> Any:
        """A layer that was called on numbers, such as an embedding of positions: its weights make that symbolic."""
        if self._inferring:
            return type(layer).call(layer, *args, **kwargs)
        args, kwargs = keras.tree.map_structure(
            lambda leaf: self._constant(leaf) if _is_array(leaf) else leaf, (args, kwargs)
        )
        if any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten((args, kwargs))):
            return layer(*args, **kwargs)
        if opens:
            return self._inside(layer, args, kwargs)
        raise _NotOpened(f"it calls layer '{layer.name}' without any tensor")

    def _inside(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        """What a composite layer makes, by running its code."""
        if id(layer) not in self.closed:
            self._collect(_symbolic_leaves((args, kwargs)), self._owners[-1] if self._owners else None)
            before, losses = len(self._watch.read), len(self.losses)
            self._owners.append(layer)
            try:
                if layer.activity_regularizer is not None:
                    raise _NotOpened("it adds a loss that depends on its output")
                outputs = keras.tree.map_structure(
                    lambda leaf: self._constant(leaf) if _is_array(leaf) else _Nothing(()) if leaf is None else leaf,
                    type(layer).call(layer, *args, **kwargs),
                )
                self._check(outputs, self._watch.read[before:])
                self._collect([leaf for leaf in keras.tree.flatten(outputs) if not isinstance(leaf, _Nothing)], layer)
                # After the outputs, so that what leads to these comes in the same order as at inference.
                self._collect([loss for _, loss in self.losses[losses:]], layer)
                return outputs
            except Exception as error:  # noqa: BLE001 -- whatever a stranger's code raises, its layer stays closed
                self.closed[id(layer)] = (layer, _reason(layer, error))
                del self.losses[losses:]
            finally:
                self._owners.pop()
            try:
                return self._inferred_closed(layer, args, kwargs)
            finally:
                # What it reads is its own affair, and not that of the layer that it is in.
                del self._watch.read[before:]
        return self._inferred_closed(layer, args, kwargs)

    def _add_loss(self, layer: Any, loss: Any) -> None:
        """In the place of a layer's `add_loss` in training."""
        tensors = keras.tree.flatten(loss)
        if not all(isinstance(one, keras.KerasTensor) for one in tensors):
            raise _NotOpened("it adds a loss that does not depend on its input")
        self.losses += [(layer, one) for one in tensors]

    def _inferred_closed(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        """As `_inferred`, for a layer that did not open: with all that is inside it as it was."""
        inner = [one for one in layer._flatten_layers() if id(one) in self._attributes]
        symbolic = [(one, {name: vars(one)[name] for name in self._attributes[id(one)]}) for one in inner]
        hooks = [(one, {name: vars(one).pop(name) for name in _HOOKS if name in vars(one)}) for one in inner]
        for one in inner:
            vars(one).update(self._attributes[id(one)])
        self._inferring += 1
        try:
            return _output_spec(layer, args, kwargs)
        finally:
            self._inferring -= 1
            for one, attributes in (*symbolic, *hooks):
                vars(one).update(attributes)

    def _check(self, outputs: Any, read: list[Any]) -> None:
        if read:
            raise _NotOpened(f"its code reads weight '{read[0].path}' in a way that cannot be recorded")
        for leaf in keras.tree.flatten(outputs):
            if not isinstance(leaf, keras.KerasTensor):
                raise _NotOpened(f"it returns {type(leaf).__name__} where a tensor is expected")

    # What was recorded.

    def _collect(self, outputs: list[Any], owner: Any) -> None:
        """Append the steps that lead to these tensors and are not yet known, in topological order."""
        for tensor in outputs:
            # Keras is about to name the composite layer as the maker of its outputs.
            self._alive.append(tensor)
            self._made_by.setdefault(id(tensor), getattr(tensor, "_keras_history", None))
        todo = [(tensor, False) for tensor in reversed(outputs)]
        while todo:
            tensor, is_ready = todo.pop()
            if id(tensor) in self._recorded:
                continue
            step = self._step_of(tensor, owner)
            if not is_ready:
                needed = _symbolic_leaves((step.args, step.kwargs))
                missing = [one for one in needed if id(one) not in self._recorded]
                if missing:
                    todo.append((tensor, True))
                    todo += [(one, False) for one in reversed(missing)]
                    continue
            self._recorded.update(map(id, step.outputs))
            self._note_masks(step)
            self._alive += step.outputs
            self.steps.append(step)

    def _step_of(self, tensor: Any, owner: Any) -> _Step:
        if id(tensor) in self._held:
            return _Step(self._held[id(tensor)], owner, (), {}, (tensor,))
        history = self._made_by.get(id(tensor)) or getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            raise _NotOpened("a tensor inside it comes from nowhere")
        node = history.operation._inbound_nodes[history.node_index]
        args, kwargs = keras.tree.map_structure(
            lambda leaf: self._constant_for(leaf) if _is_array(leaf) else leaf,
            (node.arguments.args, node.arguments.kwargs),
        )
        kwargs = {**kwargs, **self._masks(history.operation, args, kwargs)}
        return _Step(history.operation, owner, args, kwargs, tuple(node.outputs))

    def _constant_for(self, leaf: Any) -> Any:
        if isinstance(leaf, keras.Variable):
            return self._symbols[id(leaf)] if id(leaf) in self._symbols else self._constant(leaf)
        # The same array must stay the same symbol, since a step is looked at more than once.
        if id(leaf) not in self._symbols:
            self._symbols[id(leaf)] = self._constant(leaf)
            self._alive.append(leaf)
        return self._symbols[id(leaf)]

    def _masks(self, operation: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
        """Masks that Keras hands to a layer with its tensors, where the opened network would not hand them on."""
        if not isinstance(operation, keras.Layer):
            return {}
        names = [name for name, _ in operation._call_signature.parameters.items()]
        given = dict(zip(names, args, strict=False)) | kwargs
        tensors = {name: value for name, value in given.items() if _symbolic_leaves(value)}
        found = {}
        for name, value in tensors.items():
            argument = "mask" if len(tensors) == 1 else f"{name}_mask"
            if argument not in names or given.get(argument) is not None:
                continue
            masks = keras.tree.map_structure(lambda leaf: getattr(leaf, "_keras_mask", None), value)
            leaves = _symbolic_leaves(value)
            if any(
                getattr(leaf, "_keras_mask", None) is not None and id(leaf) not in self._implicit_mask
                for leaf in leaves
            ):
                found[argument] = masks
        return found

    def _note_masks(self, step: _Step) -> None:
        """Note outputs whose mask Keras will set by itself when the step is run again."""
        if not (isinstance(step.operation, keras.Layer) and step.operation.supports_masking):
            return
        first = _symbolic_leaves(step.args[:1]) or _symbolic_leaves(step.kwargs)
        carried = [leaf for leaf in first if getattr(leaf, "_keras_mask", None) is not None]
        explicit = any("mask" in name and value is not None for name, value in step.kwargs.items())
        if not carried or explicit or all(id(leaf) in self._implicit_mask for leaf in carried):
            self._implicit_mask.update(
                id(tensor) for tensor in step.outputs if getattr(tensor, "_keras_mask", None) is not None
            )


def _output_spec(layer: Any, args: tuple, kwargs: dict) -> Any:
    """What a layer says of its output; some that take `training` in their call do not take it in this question."""
    spec = type(layer).compute_output_spec
    known = inspect.signature(spec).parameters
    asked = kwargs
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values()):
        asked = {name: value for name, value in kwargs.items() if name in known}
    made = spec(layer, *args, **asked)
    if not _is_known(made) and _is_known((args, kwargs)):
        # EinsumDense, for one, forgets the sizes that its configuration leaves open.
        if isinstance(layer, keras.layers.EinsumDense):
            return keras.KerasTensor(_einsum_shape(layer, args[0].shape), dtype=made.dtype)
        made = keras.Operation.compute_output_spec(layer, *args, **kwargs)
    return made


def _is_known(structure: Any) -> bool:
    return not any(None in leaf.shape for leaf in _symbolic_leaves(structure))


def _einsum_shape(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an EinsumDense makes, from its equation and the sizes of its input and its kernel."""
    read, kernel, made = einsum_terms(layer)
    sizes = dict(zip(kernel.replace("...", ""), layer.kernel.shape, strict=True))
    places = len(shape) - len(read.replace("...", ""))
    before, _, after = read.partition("...")
    sizes.update(zip(before, shape, strict=False))
    sizes.update(zip(reversed(after), reversed(shape), strict=False))
    rest = shape[len(before) : len(before) + places]
    first, dots, last = made.partition("...")
    return (*(sizes[one] for one in first), *(rest if dots else ()), *(sizes[one] for one in last))


def _run(model: keras.Model, is_leaf: Callable, keep_closed: dict[int, str], sizes: _Sizes, training: bool) -> _Run:
    structure = input_structure(model)
    inputs = keras.tree.map_structure(lambda tensor: _at(tensor, sizes), structure)
    run = _Run(is_leaf, keep_closed)
    run.run(model, keras.tree.flatten(inputs), inputs, training)
    return run


def _at(tensor: Any, sizes: _Sizes) -> Any:
    batch, *others = tensor.shape
    shape = [sizes.batch if batch is None else batch, *(sizes.other if one is None else one for one in others)]
    return keras.KerasTensor(shape, dtype=tensor.dtype, name=tensor.name)


def _function(model: Any) -> Any:
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth") else None


def _sample_sizes(model: Any) -> list[_Sizes]:
    shapes = [tensor.shape for tensor in keras.tree.flatten(input_structure(model))]
    unknown = [shape for shape in shapes if None in shape[1:]]
    if not unknown:
        return [_Sizes(11, None), _Sizes(13, None)]
    one, two = (13, 17) if max(map(len, unknown)) < 4 else (224, 256)
    return [_Sizes(11, one), _Sizes(19, one), _Sizes(11, two)]


def _takes(operation: Any, name: str) -> bool:
    return isinstance(operation, keras.Layer) and name in operation._call_signature.parameters


def _all_layers(model: Any) -> list[Any]:
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (np.ndarray, keras.Variable)) or keras.ops.is_tensor(leaf)


def _symbolic_leaves(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def _joined(path: str, name: str) -> str:
    return f"{path}-{name}" if path and name else path or name


def _name_within(parent: Any, child: Any) -> str:
    """A layer's own name where a person chose one, else that of the attribute that holds it, else its kind."""
    if not _is_automatic(child):
        return child.name
    if _function(parent) is not None:
        return "" if _function(child) is not None else _snake_case(type(child).__name__)
    # PyTorch keeps layers that are set as attributes apart from other attributes.
    for name, value in (vars(parent) | vars(parent).get("_modules", {})).items():
        if name in _LEDGERS or name.startswith("_self_"):
            continue
        if value is child:
            return name.lstrip("_")
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
        )
        for key, one in items:
            if one is child:
                return f"{name.lstrip('_')}-{key}"
    return _snake_case(type(child).__name__)


def _reason(layer: Any, error: Exception) -> str:
    """Why a layer did not open: the line of its code, and what happened there."""
    if isinstance(error, _NotOpened):
        return str(error)
    lines = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}keras{os.sep}" not in frame.filename and not frame.filename.endswith("opening.py")
    ]
    where = f" at {os.path.basename(lines[-1].filename)}:{lines[-1].lineno} ({lines[-1].line})" if lines else ""
    text = str(error).strip().split("\n")[0][:200]
    return f"its code does not run on symbolic tensors{where}: {type(error).__name__}: {text}"


# --- from runs to calls -----------------------------------------------------------------------------------------------


class _Differs(Exception):
    """What differs between runs in a way that cannot be written down."""


class _Merger:
    """Makes one list of calls out of runs at several sizes."""

    def __init__(self, model: keras.Model, runs: list[_Run], sizes: list[_Sizes]) -> None:
        self.model, self.runs, self.sizes = model, runs, sizes
        self.inputs = keras.tree.flatten(input_structure(model))
        self.numbers: list[dict[int, int]] = [{} for _ in runs]
        self.shapes: list[tuple[int | None, ...]] = []
        self.dtypes: list[str] = []
        self.rows: list[int] = []
        self.calls: list[Call] = []
        self.held: dict[Any, int] = {}
        self.called: set[int] = set()
        self.names = _Names()

    def merge(self) -> Opened | dict[int, str]:
        """The opened network; or layers that must stay closed, by id, and why."""
        steps = [_needed(run, run.outputs) for run in self.runs]
        self.called = {id(step.operation) for run in self.runs for step in _needed(run, _all_results(run))}
        for tensors in zip(*(run.inputs for run in self.runs), strict=True):
            self._number(tensors)
        if refused := self._merge_steps(steps):
            return refused
        first = self.runs[0]
        outputs = tuple(self.numbers[0][id(tensor)] for tensor in first.outputs)
        losses = [run.losses for run in self.runs[1:]]
        if any(losses):
            owners = {tuple(id(layer) for layer, _ in one) for one in losses}
            if len(owners) != 1:
                return {id(losses[0][0][0] if losses[0] else losses[1][0][0]): "it adds other losses at another size"}
            if refused := self._merge_losses(steps):
                return refused
            outputs = (self._with_losses(outputs[0]), *outputs[1:])
        closed = {first.paths[key]: reason for key, (_, reason) in first.closed.items()}
        inputs = tuple(range(len(first.inputs)))
        trace = Trace(tuple(self.calls), tuple(self.shapes), inputs, outputs, tuple(self.dtypes), tuple(self.rows))
        return Opened(trace, closed)

    def _merge_steps(self, steps: list[list[_Step]]) -> dict[int, str]:
        """Add the calls of these steps, one list for each run; or say which layer must stay closed, by id, and why."""
        for index in range(max(map(len, steps))):
            together = [one[index] if index < len(one) else None for one in steps]
            owner = next((step.owner for step in together if step is not None and step.owner is not None), None)
            try:
                self._merge_step([step for step in together if step is not None], len(together))
            except _Differs as error:
                if owner is None:
                    raise
                return {id(owner): str(error)}
        return {}

    def _merge_losses(self, steps: list[list[_Step]]) -> dict[int, str]:
        """As `_merge_steps`, of what leads to losses and to no output: of the runs of training alone, from here on.

        Of the first two of them only the batch differs, as of the first two runs of all.
        """
        order = [1, len(self.runs) - 1, *range(2, len(self.runs) - 1)]
        self.runs, self.numbers, self.sizes = (
            [kept[place] for place in order] for kept in (self.runs, self.numbers, self.sizes)
        )
        known = [{id(step) for step in steps[place]} for place in order]
        further = [
            [step for step in _needed(run, _all_results(run)) if id(step) not in seen]
            for run, seen in zip(self.runs, known, strict=True)
        ]
        return self._merge_steps(further)

    def _with_losses(self, number: int) -> int:
        """A tensor of the network on its way through layers that add the losses."""
        for layer, loss in self.runs[0].losses:
            name = self.names.ranked(_joined(self.runs[0].paths.get(id(layer), ""), "training_loss"))
            numbers = (number, self.numbers[0][id(loss)])
            for kept in (self.shapes, self.dtypes, self.rows):
                kept.append(kept[number])
            number = len(self.shapes) - 1
            refs = tuple(Ref(one) for one in numbers)
            self.calls.append(Call(name, TrainingLoss(name=name), refs, {}, numbers, (number,)))
        return number

    def _merge_step(self, steps: list[_Step], expected: int) -> None:
        operations = [step.operation for step in steps]
        if len(steps) != expected or len({self._likeness(operation) for operation in operations}) != 1:
            raise _Differs("it runs other layers or operations in training, or at another size of its input")
        operation = operations[0]
        if isinstance(operation, _Held):
            self._merge_held(steps)
            return
        positional, named = self._merged([(step.args, step.kwargs) for step in steps])
        config = {}
        if not isinstance(operation, keras.Layer):
            configs = [
                {key: value for key, value in vars(one.operation).items() if _is_argument(one.operation, key)}
                for one in steps
            ]
            config = {key: merged for key, merged in self._merged(configs).items() if _has_size(merged)}
        owner = self.runs[0].paths.get(id(steps[0].owner), "") if steps[0].owner is not None else ""
        outputs = tuple(self._number(tensors) for tensors in zip(*(step.outputs for step in steps), strict=True))
        if _has_size((positional, named)) or config:
            dtype = steps[0].outputs[0].dtype
            operation, positional, named = self._sized(operation, config, positional, named, outputs, dtype)
        if not isinstance(operation, keras.Layer):
            operation = _with_plain_types(operation)
        inputs = tuple(leaf.index for leaf in keras.tree.flatten((positional, named)) if isinstance(leaf, Ref))
        name = self.names.of(operation, self.runs[0].paths, owner)
        self.calls.append(Call(name, operation, positional, named, inputs, outputs))

    def _likeness(self, operation: Any) -> Any:
        if isinstance(operation, keras.Layer):
            if id(operation) in self.runs[0].paths or operation.variables:
                return id(operation)
            # One that the code makes whenever it runs: it holds nothing, so it is what its configuration says.
            return type(operation), _settings_of(operation)
        if isinstance(operation, _Held):
            return "weight" if isinstance(operation.value, tuple) else "constant"
        return type(operation)

    def _merge_held(self, steps: list[_Step]) -> None:
        owner = self.runs[0].paths.get(id(steps[0].owner), "") if steps[0].owner is not None else ""
        values = [step.operation.value for step in steps]
        if isinstance(values[0], tuple):
            variable, layer, attribute = values[0]
            if id(layer) in self.called:
                raise _Differs(
                    f"it uses weight '{variable.name}' of layer '{layer.name}', which is called by itself, too"
                )
            if any(value[0] is not variable for value in values):
                raise _Differs("it uses other weights in training, or at another size of its input")
            key: Any = id(variable)
        else:
            array, is_repeated = self._merged_array(values)
            key = (array.shape, str(array.dtype), array.tobytes(), is_repeated)
        if key in self.held:
            number = self.held[key]
            for numbers, step in zip(self.numbers, steps, strict=True):
                numbers[id(step.outputs[0])] = number
            return
        if isinstance(values[0], tuple):
            path = self.runs[0].paths.get(id(layer), owner)
            given = getattr(layer, f"{attribute.lstrip('_')}_initializer", None)
            made: Any = Weight.around(
                variable, initializer=given, name=f"{layer.name}_{attribute}", dtype=layer.dtype_policy
            )
            name = self.names.free(_joined(path, attribute.lstrip("_")))
        else:
            made = Constant(array, dtype=str(array.dtype))
            name = self.names.ranked(_joined(owner, "constant"))
        tensors = tuple(step.outputs[0] for step in steps)
        if not isinstance(values[0], tuple) and is_repeated:
            single = tuple(keras.KerasTensor(array.shape, dtype=str(array.dtype)) for _ in steps)
            first = self._number(single)
            self.calls.append(Call(name, made, (), {}, (), (first,)))
            self.held[key] = self._repeated(owner, first, array, values, tensors)
            return
        number = self._number(tensors)
        self.held[key] = number
        self.calls.append(Call(name, made, (), {}, (), (number,)))

    def _repeated(self, owner: str, single: int, array: np.ndarray, values: list[np.ndarray], tensors: tuple) -> int:
        """A constant with a row for each example: one row, repeated as often as there are examples."""
        number = self._number(tensors)
        shape = self._merged([list(value.shape) for value in values])
        spread: Any = keras.ops.broadcast_to(keras.KerasTensor(array.shape, dtype=str(array.dtype)), values[0].shape)
        layer = Sized(
            _serialized(spread._keras_history.operation),
            {"shape": shape}, [[{"tensor": 0}], {}], self.shapes[number], str(array.dtype),
        )  # fmt: skip
        like = self._like()
        self.calls.append(
            Call(self.names.of(layer, {}, owner), layer, (Ref(like), Ref(single)), {}, (like, single), (number,))
        )
        return number

    def _like(self) -> int:
        """The input of the model that tells sizes: one with an unknown size besides the batch, if there is one."""
        return next((number for number, tensor in enumerate(self.inputs) if None in tensor.shape[1:]), 0)

    def _merged_array(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, bool]:
        """The array that all runs hold, or the one row of it that is repeated for each example."""
        first = arrays[0]
        if all(np.array_equal(first, other) for other in arrays[1:]):
            return first, False
        if all(_is_repeated(array) and np.array_equal(array[:1], first[:1]) for array in arrays):
            return first[:1], True
        raise _Differs(
            "it computes a table whose size is that of its input, which is unknown; "
            "call the network on a keras.Input of known shape"
        )

    def _merged(self, found: list[Any]) -> Any:
        """One structure out of several, with sizes in the place of numbers that differ."""
        first = found[0]
        if isinstance(first, keras.KerasTensor):
            numbers = {numbers[id(one)] for numbers, one in zip(self.numbers, found, strict=True)}
            if len(numbers) != 1:
                raise _Differs("it is wired in another way in training, or at another size of its input")
            return Ref(numbers.pop())
        if isinstance(first, dict):
            if any(one.keys() != first.keys() for one in found):
                raise _Differs("it is called with other arguments in training, or at another size of its input")
            merged = {key: self._merged([one[key] for one in found]) for key in first if key != "training"}
            if "training" in first and all(one["training"] == first["training"] for one in found):
                merged["training"] = first["training"]
            return merged
        if isinstance(first, (list, tuple)) and all(
            isinstance(one, type(first)) and len(one) == len(first) for one in found
        ):
            parts = [self._merged(list(part)) for part in zip(*found, strict=True)]
            return type(first)(parts) if type(first) in (list, tuple) else first
        if isinstance(first, slice) and all(isinstance(one, slice) for one in found):
            return slice(*(self._merged([getattr(one, end) for one in found]) for end in ("start", "stop", "step")))
        if all(one is first or (type(one) is type(first) and one == first) for one in found):
            return first
        if all(isinstance(one, int) and not isinstance(one, bool) for one in found):
            return self._size(found)
        raise _Differs(f"it is called with {first!r} at one size of its input and with {found[1]!r} at another")

    def _size(self, numbers: list[int]) -> dict[str, Any]:
        """What a number is of the sizes: a multiple of the batch, of the other size or of both."""
        unknown = [axis for one in self.inputs for axis, size in enumerate(one.shape) if axis and size is None]
        batches = [one.batch or 1 for one in self.sizes]
        others = [one.other or 1 for one in self.sizes]
        both = [batch * other for batch, other in zip(batches, others, strict=True)]
        for axes, products in (([0], batches), (unknown[:1], others), ([0, *unknown[:1]], both)):
            times = _ratio(numbers, products)
            if times is None:
                continue
            plus = numbers[0] - times * products[0]
            if 0 in axes and plus:
                continue
            if all(number == times * product + plus for number, product in zip(numbers, products, strict=True)):
                return {"size": [times, axes, plus]}
        raise _Differs(f"a number in its code is {numbers[0]} at one size of its input and {numbers[1]} at another")

    def _sized(
        self, operation: Any, config: dict, positional: Any, named: Any, outputs: tuple[int, ...], dtype: str
    ) -> tuple[Any, tuple, dict]:
        """An operation in whose arguments sizes stand."""
        if isinstance(operation, keras.Layer):
            raise _Differs(f"it calls layer '{operation.name}' with a size of its input")
        if type(operation).__name__ == "Reshape" and not _has_size((positional, named)):
            made = self.shapes[outputs[0]]
            if made.count(None) == 1:
                return type(operation)(tuple(-1 if size is None else size for size in made)), positional, named
        refs = [leaf for leaf in keras.tree.flatten((positional, named)) if isinstance(leaf, Ref)]
        places = {id(ref): place for place, ref in enumerate(refs)}
        written = keras.tree.map_structure(
            lambda leaf: {"tensor": places[id(leaf)]} if isinstance(leaf, Ref) else leaf, [list(positional), named]
        )
        if len(outputs) != 1:
            raise _Differs(f"it calls {type(operation).__name__}, which has several outputs, with a size of its input")
        shape = self.shapes[outputs[0]]
        layer = Sized(_serialized(operation), config, written, shape, dtype)
        return layer, (Ref(self._like()), *refs), {}

    def _number(self, tensors: tuple[Any, ...]) -> int:
        """The number of a tensor, of which each run has one."""
        number = len(self.shapes)
        for numbers, tensor in zip(self.numbers, tensors, strict=True):
            numbers[id(tensor)] = number
        shapes = [tensor.shape for tensor in tensors]
        if len({len(shape) for shape in shapes}) != 1:
            raise _Differs("a tensor in it has another rank at another size of its input")
        self.shapes.append(tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)))
        self.dtypes.append(str(tensors[0].dtype))
        self.rows.append(self._rows(shapes))
        return number

    def _rows(self, shapes: list[tuple[int | None, ...]]) -> int:
        """How many places of one example lie along the axis that grows with the batch, from the runs' sizes of it."""
        batch = self.sizes[0].batch
        for sizes in zip(*shapes[:2], strict=True):
            if batch and sizes[0] and len(set(sizes)) > 1:
                return sizes[0] // batch
        return 1


class _Names:
    """Names of calls: the path to a layer; for an operation the path to the code that runs it, its kind and rank."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._ranks: dict[str, int] = {}
        self._of: dict[int, str] = {}

    def of(self, operation: Any, paths: dict[int, str], owner: str) -> str:
        if id(operation) in paths:
            if id(operation) not in self._of:
                self._of[id(operation)] = self.free(paths[id(operation)])
            return self._of[id(operation)]
        kind = type(operation.operation if isinstance(operation, Sized) else operation).__name__
        return self.ranked(_joined(owner, _snake_case(kind)))

    def ranked(self, base: str) -> str:
        self._ranks[base] = self._ranks.get(base, 0) + 1
        return self.free(f"{base}-{self._ranks[base]}")

    def free(self, name: str) -> str:
        name = name.replace(".", "-").replace("/", "-")
        candidate, rank = name, 1
        while candidate in self._taken:
            rank += 1
            candidate = f"{name}-{rank}"
        self._taken.add(candidate)
        return candidate


def _all_results(run: _Run) -> list[Any]:
    return [*run.outputs, *(loss for _, loss in run.losses)]


def _needed(run: _Run, results: list[Any]) -> list[_Step]:
    """The steps that some tensors depend on, in order."""
    needed = {id(tensor) for tensor in results}
    kept = []
    for step in reversed(run.steps):
        if any(id(tensor) in needed for tensor in step.outputs):
            kept.append(step)
            needed.update(id(tensor) for tensor in _symbolic_leaves((step.args, step.kwargs)))
    return kept[::-1]


def _settings_of(layer: Any) -> str:
    """The configuration of a layer but for its name, as text; that of no other layer where it says none."""
    try:
        config = layer.get_config()
    except Exception:  # noqa: BLE001 -- whatever a stranger's configuration raises, the layer is like no other
        return str(id(layer))
    return json.dumps({key: value for key, value in config.items() if key != "name"}, default=repr, sort_keys=True)


def _serialized(operation: Any) -> Any:
    return keras.saving.serialize_keras_object(operation)


def _with_plain_types(operation: Any) -> Any:
    """An operation like this that can be saved, where a type in its arguments is an object of the backend."""
    try:
        operation.get_config()
    except NotImplementedError:
        given = {key: value for key, value in vars(operation).items() if _is_argument(operation, key)}
        for key, value in given.items():
            if key == "dtype" and value is not None:
                given[key] = keras.backend.standardize_dtype(value)
        return type(operation)(**given)
    return operation


def _is_argument(operation: Any, name: str) -> bool:
    return name != "name" and name in inspect.signature(type(operation).__init__).parameters


def _has_size(structure: Any) -> bool:
    if isinstance(structure, dict):
        return set(structure) == {"size"} or any(map(_has_size, structure.values()))
    if isinstance(structure, slice):
        return any(map(_has_size, (structure.start, structure.stop, structure.step)))
    return isinstance(structure, (list, tuple)) and any(map(_has_size, structure))


def _ratio(numbers: list[int], products: list[int]) -> int | None:
    """By how much numbers grow when products grow by one; None when they do not all grow alike."""
    rises = [(number - numbers[0], product - products[0]) for number, product in zip(numbers, products, strict=True)]
    slopes = {rise // run if run and rise % run == 0 else None for rise, run in rises if run or rise}
    return slopes.pop() if len(slopes) == 1 else None


def _is_repeated(array: np.ndarray) -> bool:
    return array.ndim > 0 and len(array) > 0 and bool((array == array[:1]).all())
