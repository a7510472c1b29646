"""From runs of a network at several sizes, at inference and in training, to one list of calls.

Steps that are the same in all runs are one call. Numbers that differ are written as what they are of the sizes; weights
and constants become layers. Where the runs differ in another way, the layer whose code it is must stay closed.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import keras
import numpy as np

from .recording import Held, Run, Sizes, Step, all_results, joined, needed
from .standins import Constant, Sized, TrainingLoss, Weight
from .trace import Call, Ref, Trace, _snake_case, input_structure


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A network whose composite layers are opened.

    Attributes:
        trace: its calls, flat.
        closed: by the path of the layer, why it stays closed.
    """

    trace: Trace
    closed: dict[str, str]


class _Differs(Exception):
    """What differs between runs in a way that cannot be written down."""


class Merger:
    """Makes one list of calls out of runs at several sizes."""

    def __init__(self, model: keras.Model, runs: list[Run], sizes: list[Sizes]) -> None:
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
        steps = [needed(run, run.outputs) for run in self.runs]
        self.called = {id(step.operation) for run in self.runs for step in needed(run, all_results(run))}
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

    def _merge_steps(self, steps: list[list[Step]]) -> dict[int, str]:
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

    def _merge_losses(self, steps: list[list[Step]]) -> dict[int, str]:
        """As `_merge_steps`, of what leads to losses and to no output: of the runs of training alone, from here on.

        Of the first two of them only the batch differs, as of the first two runs of all.
        """
        order = [1, len(self.runs) - 1, *range(2, len(self.runs) - 1)]
        self.runs = [self.runs[place] for place in order]
        self.numbers = [self.numbers[place] for place in order]
        self.sizes = [self.sizes[place] for place in order]
        known = [{id(step) for step in steps[place]} for place in order]
        further = [
            [step for step in needed(run, all_results(run)) if id(step) not in seen]
            for run, seen in zip(self.runs, known, strict=True)
        ]
        return self._merge_steps(further)

    def _with_losses(self, number: int) -> int:
        """A tensor of the network on its way through layers that add the losses."""
        for layer, loss in self.runs[0].losses:
            name = self.names.ranked(joined(self.runs[0].paths.get(id(layer), ""), "training_loss"))
            numbers = (number, self.numbers[0][id(loss)])
            self.shapes.append(self.shapes[number])
            self.dtypes.append(self.dtypes[number])
            self.rows.append(self.rows[number])
            number = len(self.shapes) - 1
            refs = tuple(Ref(one) for one in numbers)
            self.calls.append(Call(name, TrainingLoss(name=name), refs, {}, numbers, (number,)))
        return number

    def _merge_step(self, steps: list[Step], expected: int) -> None:
        operations = [step.operation for step in steps]
        if len(steps) != expected or len({self._likeness(operation) for operation in operations}) != 1:
            raise _Differs("it runs other layers or operations in training, or at another size of its input")
        operation = operations[0]
        if isinstance(operation, Held):
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
        if isinstance(operation, Held):
            return "weight" if isinstance(operation.value, tuple) else "constant"
        return type(operation)

    def _merge_held(self, steps: list[Step]) -> None:
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
            name = self.names.free(joined(path, attribute.lstrip("_")))
        else:
            made = Constant(array, dtype=str(array.dtype))
            name = self.names.ranked(joined(owner, "constant"))
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
        return self.ranked(joined(owner, _snake_case(kind)))

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
