"""One run of a network on symbolic inputs, in which its composite layers are opened, as a list of steps.

Each composite layer answers the question for its output's shape by running its own `call`; what it runs is recorded.
While the network runs, layers have hooks and symbols for their weights in their attributes; afterwards they are as they
were. See `opening` for what the steps of several runs become.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from .flows import einsum_terms
from .known import known_numbers
from .trace import _is_automatic, _snake_case, input_structure

# Where Keras and PyTorch keep their own lists of a layer's variables and layers, beside TensorFlow's that begin with
# "_self_": these must go on holding the variables themselves.
_LEDGERS = frozenset(
    {"_trainable_variables", "_non_trainable_variables", "_layers", "_seed_generators", "_tracker"}
    | {"_modules", "_parameters", "_buffers"}
)

# What stands in a layer's attributes during a run, in front of the methods of its class.
_HOOKS = ("compute_output_spec", "call", "add_loss")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a run takes for sizes that the model's inputs leave open: of the batch, and of any other axis."""

    batch: int | None
    other: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """In the place of an operation: what makes the symbolic tensor of a weight or of a constant."""

    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
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


class Run:
    """The network run once on symbolic inputs."""

    def __init__(self, is_leaf: Callable[[Any], bool], keep_closed: dict[int, str]) -> None:
        self.is_leaf = is_leaf
        self.keep_closed = keep_closed
        self.closed: dict[int, tuple[Any, str]] = {}
        self.steps: list[Step] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.losses: list[tuple[Any, Any]] = []
        self.paths: dict[int, str] = {}
        self._watch = _Watch()
        self._symbols: dict[int, Any] = {}
        self._held: dict[int, Held] = {}
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
                yield from self._layers_of(child, joined(path, _name_within(layer, child)))

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
            self._held[id(symbol)] = Held((variable, layer, name))
            self._symbols[id(variable)] = symbol
        return self._symbols[id(variable)]

    def _constant(self, value: Any) -> Any:
        array = as_numpy(value)
        symbol = keras.KerasTensor(array.shape, dtype=str(array.dtype))
        self._held[id(symbol)] = Held(array)
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
                    self._ran(layer, args, kwargs),
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

    def _ran(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        """What the code of a layer gives, also where it asks for the backend, and has operations of its own for it."""
        read, losses = len(self._watch.read), len(self.losses)
        try:
            return type(layer).call(layer, *args, **kwargs)
        except _NotOpened:
            raise
        except Exception:  # whatever a stranger's code raises, it may do without for other backends
            del self._watch.read[read:], self.losses[losses:]
            try:
                with _nameless_backend():
                    return type(layer).call(layer, *args, **kwargs)
            except Exception:  # noqa: BLE001 -- the first is the one that says why
                del self._watch.read[read:], self.losses[losses:]
            raise

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

    def _step_of(self, tensor: Any, owner: Any) -> Step:
        if id(tensor) in self._held:
            return Step(self._held[id(tensor)], owner, (), {}, (tensor,))
        history = self._made_by.get(id(tensor)) or getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            raise _NotOpened("a tensor inside it comes from nowhere")
        node = history.operation._inbound_nodes[history.node_index]
        args, kwargs = keras.tree.map_structure(
            lambda leaf: self._constant_for(leaf) if _is_array(leaf) else leaf,
            (node.arguments.args, node.arguments.kwargs),
        )
        kwargs = {**kwargs, **self._masks(history.operation, args, kwargs)}
        return Step(history.operation, owner, args, kwargs, tuple(node.outputs))

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

    def _note_masks(self, step: Step) -> None:
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


@contextlib.contextmanager
def _left_to_symbolic_tensors() -> Iterator[None]:
    """While the block runs, `array * tensor` is the tensor's affair on JAX, too, whose arrays ask for numbers first."""
    hook = vars(keras.KerasTensor).get("__jax_array__")
    if hook is not None:
        del keras.KerasTensor.__jax_array__
    try:
        yield
    finally:
        if hook is not None:
            keras.KerasTensor.__jax_array__ = hook


@contextlib.contextmanager
def _nameless_backend() -> Iterator[None]:
    """While the block runs, code that asks which backend this is takes the way that is there for any of them.

    Keras itself does not ask in this way.
    """
    places: list[Any] = [keras.config, keras.backend]
    asked = [place.backend for place in places]
    for place in places:
        place.backend = lambda: "none"
    try:
        yield
    finally:
        for place, function in zip(places, asked, strict=True):
            place.backend = function


def run_at(model: keras.Model, is_leaf: Callable, keep_closed: dict[int, str], sizes: Sizes, training: bool) -> Run:
    structure = input_structure(model)
    inputs = keras.tree.map_structure(lambda tensor: _at(tensor, sizes), structure)
    run = Run(is_leaf, keep_closed)
    with _left_to_symbolic_tensors():
        run.run(model, keras.tree.flatten(inputs), inputs, training)
    return run


def _at(tensor: Any, sizes: Sizes) -> Any:
    batch, *others = tensor.shape
    shape = [sizes.batch if batch is None else batch, *(sizes.other if one is None else one for one in others)]
    return keras.KerasTensor(shape, dtype=tensor.dtype, name=tensor.name)


def _function(model: Any) -> Any:
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth") else None


def _takes(operation: Any, name: str) -> bool:
    return isinstance(operation, keras.Layer) and name in operation._call_signature.parameters


def _all_layers(model: Any) -> list[Any]:
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (np.ndarray, keras.Variable)) or keras.ops.is_tensor(leaf)


def _symbolic_leaves(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def joined(path: str, name: str) -> str:
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
        if f"{os.sep}keras{os.sep}" not in frame.filename and not frame.filename.endswith("recording.py")
    ]
    where = f" at {os.path.basename(lines[-1].filename)}:{lines[-1].lineno} ({lines[-1].line})" if lines else ""
    text = str(error).strip().split("\n")[0][:200]
    return f"its code does not run on symbolic tensors{where}: {type(error).__name__}: {text}"


def all_results(run: Run) -> list[Any]:
    return [*run.outputs, *(loss for _, loss in run.losses)]


def needed(run: Run, results: list[Any]) -> list[Step]:
    """The steps that some tensors depend on, in order."""
    needed = {id(tensor) for tensor in results}
    kept = []
    for step in reversed(run.steps):
        if any(id(tensor) in needed for tensor in step.outputs):
            kept.append(step)
            needed.update(id(tensor) for tensor in _symbolic_leaves((step.args, step.kwargs)))
    return kept[::-1]
