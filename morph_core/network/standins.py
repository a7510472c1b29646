"""Layers that stand in an opened network for what was no layer of its own: a weight, a constant, an operation on sizes.

The code inside a composite layer may multiply by a weight (`x * self.gamma`), add a table that it computed
(`x + positions`), or repeat something as often as there are examples. In a functional model every step is a call of a
layer or operation, so each of these gets a small layer. A rebuilt network gets one where an input has lost its readers.
All are registered with Keras, so that a network made of them is saved and loaded without naming them.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import operator
import zlib
from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import as_numpy
from ..errors import MorphError

_PACKAGE = "morph_core"


@keras.saving.register_keras_serializable(_PACKAGE)
class Weight(keras.layers.Layer):
    """One weight, as a tensor.

    It is called on any tensor of the network, of which nothing is read: a functional model needs a way to it.

    Args:
        shape: of the weight.
        initializer, regularizer, constraint: as in `add_weight`.
        weight_dtype: of the weight, where it is not the layer's, such as that of whole numbers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        initializer: Any = "zeros",
        regularizer: Any = None,
        constraint: Any = None,
        weight_dtype: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.weight_dtype = weight_dtype
        self.shape = tuple(shape)
        self.initializer = keras.initializers.get(initializer)
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)

    @classmethod
    def around(cls, variable: Any, **options: Any) -> Weight:
        """The layer whose weight is an existing variable, which it shares.

        Keras forgets how a variable was initialised. Unless that is given, a new one gets numbers like those that the
        variable has now: all the same, or random ones of the same mean and deviation.
        """
        is_float = keras.backend.is_float_dtype(variable.dtype)
        if options.get("initializer") is None:
            options["initializer"] = _initializer_like(as_numpy(variable)) if is_float else "zeros"
        layer = cls(
            tuple(variable.shape),
            weight_dtype=None if is_float else variable.dtype,
            regularizer=getattr(variable, "regularizer", None),
            constraint=getattr(variable, "constraint", None),
            trainable=variable.trainable,
            **options,
        )
        layer.weight = variable
        layer.built = True
        return layer

    def build(self, _: Any) -> None:
        self.weight = self.add_weight(
            name="weight",
            shape=self.shape,
            dtype=self.weight_dtype,
            trainable=self.weight_dtype is None,  # whole numbers cannot be
            initializer=self.initializer,
            regularizer=self.regularizer,
            constraint=self.constraint,
        )

    def call(self, _: Any) -> Any:
        return ops.convert_to_tensor(self.weight)

    def compute_output_spec(self, _: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.shape, dtype=self.weight_dtype or self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shape": list(self.shape),
            "initializer": keras.initializers.serialize(self.initializer),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
            "weight_dtype": self.weight_dtype,
        }


def _initializer_like(numbers: np.ndarray) -> keras.initializers.Initializer:
    numbers = numbers.astype("float64")
    if not numbers.size or (numbers == numbers.flat[0]).all():
        return keras.initializers.Constant(float(numbers.flat[0]) if numbers.size else 0.0)
    return keras.initializers.RandomNormal(float(numbers.mean()), float(numbers.std()))


@keras.saving.register_keras_serializable(_PACKAGE)
class Kernel(Weight):
    """One weight that a tensor is multiplied with, by an einsum or a matrix product.

    Args:
        equation: of the tensor and the weight, in this order, such as "th,ehm->etm".
        comes_first: whether the weight stands before the tensor in the product.
        product: "einsum" or "matmul", which of the two it is.
        others: as for `Weight`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        equation: str,
        comes_first: bool = False,
        product: str = "einsum",
        **options: Any,
    ) -> None:
        # The tensor is multiplied as it is, whatever the layer computes in: so does the operation.
        super().__init__(shape, **{**options, "autocast": False})
        self.equation, self.comes_first, self.product = equation, comes_first, product

    def call(self, inputs: Any) -> Any:
        return self._multiplied(inputs, ops.cast(self.weight, self.compute_dtype))

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        made = self._multiplied(inputs, keras.KerasTensor(self.shape, dtype=self.compute_dtype))
        return keras.KerasTensor(made.shape, dtype=made.dtype)

    def _multiplied(self, inputs: Any, weight: Any) -> Any:
        operands = (weight, inputs) if self.comes_first else (inputs, weight)
        if self.product == "matmul":
            return ops.matmul(*operands)
        read, kernel, made = flat_terms(self.equation)
        terms = (kernel, read) if self.comes_first else (read, kernel)
        return ops.einsum(f"{','.join(terms)}->{made}", *operands)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "equation": self.equation,
            "comes_first": self.comes_first,
            "product": self.product,
        }


def flat_terms(equation: str) -> tuple[str, str, str]:
    """The letters of both factors and of the product in an equation such as "ab,bc->ac"."""
    given, made = equation.replace(" ", "").split("->")
    one, other = given.split(",")
    return one, other, made


@keras.saving.register_keras_serializable(_PACKAGE)
class Constant(keras.layers.Layer):
    """An array of numbers that no training changes, such as a causal mask or a table of positions.

    The numbers are part of the configuration, compressed, and not of the weights: `count_params()` is that of the seed,
    and a model made anew from its configuration has them.

    Args:
        value: the array; or what `get_config` made of one.
        value_dtype, shape: of the array, where `value` comes from a configuration.
    """

    def __init__(
        self, value: Any, value_dtype: str | None = None, shape: tuple[int, ...] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        if isinstance(value, str) and value_dtype is not None and shape is not None:
            value = _unpacked(value, value_dtype, tuple(shape))
        self.value = np.asarray(value)
        self.built = True

    def call(self, _: Any) -> Any:
        return ops.convert_to_tensor(self.value)

    def compute_output_spec(self, _: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.value.shape, dtype=str(self.value.dtype))

    def get_config(self) -> dict[str, Any]:
        packed = base64.b64encode(zlib.compress(np.ascontiguousarray(self.value).tobytes())).decode()
        return {
            **super().get_config(),
            "value": packed,
            "value_dtype": str(self.value.dtype),
            "shape": list(self.value.shape),
        }


def _unpacked(text: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array that a configuration holds; no more is unpacked than the shape asks for."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(text), size + 1)
    if len(data) != size:
        raise MorphError(
            f"Constant of shape {shape} and type {dtype} needs {size} bytes; its configuration has others."
        )
    return np.frombuffer(data, kind).reshape(shape)


@keras.saving.register_keras_serializable(_PACKAGE)
class KeepInputs(keras.layers.Layer):
    """Passes its first tensor on, and reads nothing of the others.

    A functional model refuses an input that leads to no output. In a rebuilt network an input can be without readers,
    when all channels behind it are gone; this layer lets it stay an input, so that callers need not change.
    """

    def __init__(self, **options: Any) -> None:
        # Whatever the network computes in, tensors pass as they are.
        super().__init__(**{**options, "autocast": False})

    def call(self, tensor: Any, *unused: Any) -> Any:
        return tensor

    def compute_output_spec(self, tensor: Any, *unused: Any) -> keras.KerasTensor:
        return keras.KerasTensor(tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse)


@keras.saving.register_keras_serializable(_PACKAGE)
class TrainingLoss(keras.layers.Layer):
    """Passes its first tensor on; in training it adds its second one to the losses, as a layer's code did."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "autocast": False})

    def call(self, tensor: Any, loss: Any, training: bool | None = None) -> Any:
        if training:
            self.add_loss(loss)
        return tensor

    def compute_output_spec(self, tensor: Any, loss: Any, training: bool | None = None) -> keras.KerasTensor:
        return keras.KerasTensor(tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse)


@keras.saving.register_keras_serializable(_PACKAGE)
class Sized(keras.layers.Layer):
    """A keras operation in whose arguments some numbers are sizes of the batch, known only when it runs.

    Such a number stands in a configuration or among arguments as {"size": [times, [axis, ...], plus]}: `times` the
    product of the sizes of these axes of the tensor `like`, and `plus`. A tensor stands there as {"tensor": place}.

    Args:
        operation: the operation at some sizes, as `keras.saving.serialize_keras_object` writes it.
        config: those of its constructor's arguments that hold sizes.
        arguments: of its call, a list and a dict.
        shape, made_dtype: of its output, None where a size is not known.
    """

    def __init__(
        self,
        operation: dict[str, Any],
        config: dict[str, Any],
        arguments: list[Any],
        shape: tuple[int | None, ...],
        made_dtype: str,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.shape, self.made_dtype = tuple(shape), made_dtype
        # As text: Keras would wrap lists and dicts that are set as attributes.
        self._text = json.dumps([operation, config, arguments])
        self.built = True

    @property
    def operation(self) -> keras.Operation:
        """The operation at some sizes."""
        return keras.saving.deserialize_keras_object(json.loads(self._text)[0])

    def call(self, like: Any, *tensors: Any) -> Any:
        sizes = ops.shape(like)

        def fill(found: Any) -> Any:
            if isinstance(found, dict) and set(found) == {"size"}:
                times, axes, plus = found["size"]
                return functools.reduce(operator.mul, (sizes[axis] for axis in axes), times) + plus
            if isinstance(found, dict) and set(found) == {"tensor"}:
                return tensors[found["tensor"]]
            if isinstance(found, dict):
                return {key: fill(value) for key, value in found.items()}
            return tuple(fill(value) for value in found) if isinstance(found, list) else found

        example = self.operation
        _, config, (positional, named) = json.loads(self._text)
        given = {key: value for key, value in example.get_config().items() if key != "name"}
        return type(example)(**{**given, **fill(config)}).call(*fill(positional), **fill(named))

    def compute_output_spec(self, like: Any, *tensors: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.shape, dtype=self.made_dtype)

    def get_config(self) -> dict[str, Any]:
        operation, config, arguments = json.loads(self._text)
        return {
            **super().get_config(),
            "operation": operation,
            "config": config,
            "arguments": arguments,
            "shape": list(self.shape),
            "made_dtype": self.made_dtype,
        }
