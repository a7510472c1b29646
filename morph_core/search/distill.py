"""A trained network as teacher: what is left of a network also learns to answer as the whole one did.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531. Beside the labels, the
student is told what the teacher answers. Answers about classes are softened by a temperature T first, so that it counts
how likely the wrong ones are:

    loss = (1 - weight) * loss on labels + weight * T^2 * KL(softmax(z_teacher / T) || softmax(z_student / T))

T^2 keeps the second term's gradients of the size that they have at T = 1 (section 2 of the paper). Where a network
gives probabilities, z is their logarithm, which is the same. Answers of yes or no have a sigmoid in the place of
softmax. Numbers (regression) have no temperature: there the second term is the mean squared error to the teacher's.

It is the term of `keras.distillation.LogitsDistillation` with `KLDivergence()`, which newer versions of Keras have, and
what a `fit` brings besides: weights of examples and of outputs, masks, reductions, several devices. An example that
weighs nothing teaches nothing. Losses that layers add (regularizers) keep their size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from ..arrays import as_numpy
from ..errors import MorphError
from ..network.trace import input_structure, pack_outputs, standardize_inputs

Answers = Callable[[Any], Sequence[Any]]
"""A teacher at work: the student's inputs -> what the teacher answers, flat, in the order of the student's outputs."""

SEED = "the seed at the cut"

_SETTINGS = {
    "teacher": "a trained keras.Model with the same inputs and outputs; by default the seed, as it is when it is cut",
    "temperature": "above 0, by which answers about classes are softened; 3 by default",
    "weight": "of the teacher, above 0 and at most 1, the rest being that of the labels; 0.5 by default",
    "loss": "a keras.distillation loss, or another object with compute_loss(teacher_outputs, student_outputs)",
}


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What a user asks for with `distill=`.

    Attributes:
        teacher: None for the seed itself.
        temperature: T above.
        weight: of the teacher; labels have the rest.
        loss: in the place of the losses above; sees no weights of examples.
    """

    teacher: keras.Model | None = None
    temperature: float = 3.0
    weight: float = 0.5
    loss: Any = None

    def settings(self) -> dict[str, Any]:
        """What a structure tells of it."""
        told: dict[str, Any] = {
            "teacher": SEED if self.teacher is None else self.teacher.name,
            "temperature": float(self.temperature),
            "weight": float(self.weight),
        }
        return told if self.loss is None else {**told, "loss": type(self.loss).__name__}

    def digest(self) -> str:
        """Of the weights of a teacher of one's own: a run is not continued with another one."""
        found = hashlib.sha256()
        for weight in [] if self.teacher is None else self.teacher.weights:
            found.update(as_numpy(weight).tobytes())
        return "sha256:" + found.hexdigest()


def distillation_of(asked: Any, caller: str = "distill") -> Distillation | None:
    """What `distill=` says: True, a teacher, or a dict of settings; None and False ask for none.

    Args:
        asked: the user's words.
        caller: what messages call them.

    Raises:
        MorphError: it is none of these, or a setting is unknown or out of range.
    """
    if asked is None or asked is False:
        return None
    if asked is True:
        return Distillation()
    if isinstance(asked, keras.Model):
        return Distillation(asked)
    known = "; ".join(f"{name!r} ({meaning})" for name, meaning in _SETTINGS.items())
    if not isinstance(asked, Mapping):
        raise MorphError(
            f"{caller} is {asked!r}; expected True (the seed is the teacher), a trained keras.Model, or a dict with "
            f"some of: {known}."
        )
    for name in asked:
        if name not in _SETTINGS:
            raise MorphError(f"{caller} has an unknown setting {name!r}. Known: {known}.")
    for name, most in (("temperature", math.inf), ("weight", 1.0)):
        value = asked.get(name, 1.0)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not (is_number and 0 < value <= most):
            raise MorphError(f"{caller} has the {name} {value!r}; expected a number {_SETTINGS[name]}.")
    if not isinstance(asked.get("teacher"), (keras.Model, type(None))):
        raise MorphError(f"{caller} has the teacher {asked['teacher']!r}; expected {_SETTINGS['teacher']}.")
    loss = asked.get("loss")
    if loss is not None and not callable(getattr(loss, "compute_loss", None)):
        raise MorphError(f"{caller} has the loss {loss!r}; expected {_SETTINGS['loss']}.")
    layers = [getattr(loss, f"{whose}_layer_name", None) for whose in ("teacher", "student")]
    if any(layers):
        raise MorphError(
            f"{caller} has a {type(loss).__name__} of the layers {layers[0]!r} and {layers[1]!r}, but layers are cut "
            "and may be gone. Leave the names of layers out: only the outputs stay as they are."
        )
    return Distillation(**asked)


def check_teacher(teacher: keras.Model, student: keras.Model) -> None:
    """Raises MorphError, naming what differs, unless two networks take the same inputs and give the same outputs.

    Several inputs or outputs are matched by their names; where there is one, its name does not matter.
    """
    shared = {id(variable) for variable in student.variables} & {id(variable) for variable in teacher.variables}
    if shared:
        raise MorphError(
            f"Teacher '{teacher.name}' has {len(shared)} of its variables in common with '{student.name}', which is "
            "trained, so it would not stay as it is. Give distill=True to have the seed as teacher, as it is at the "
            "cut, or a model with weights of its own."
        )
    inputs = [
        [(tensor.name, tuple(tensor.shape), tensor.dtype) for tensor in keras.tree.flatten(input_structure(model))]
        for model in (teacher, student)
    ]
    outputs = [
        [
            (name, tuple(tensor.shape), _ending(tensor))
            for name, tensor in zip(_output_names(model), model.outputs, strict=True)
        ]
        for model in (teacher, student)
    ]
    differing = [*_differences("input", "dtype", *inputs), *_differences("output", "activation", *outputs)]
    if differing:
        raise MorphError(
            f"Teacher '{teacher.name}' does not fit the network that it is to teach, '{student.name}': "
            f"{'; '.join(differing)}. Expected a trained model with the inputs and outputs of the seed; several of "
            "them are told apart by their names, so name them in both."
        )


def _differences(
    what: str, third: str, teachers: Sequence[tuple[str, tuple, str]], students: Sequence[tuple[str, tuple, str]]
) -> list[str]:
    """How the inputs or outputs of two networks differ, in words."""
    if len(teachers) != len(students):
        return [f"it has {len(teachers)} {what}s, the student {len(students)}"]
    if len(teachers) == 1:
        pairs = [(teachers[0], students[0])]
    else:
        by_name = {one[0]: one for one in teachers}
        missing = [one[0] for one in students if one[0] not in by_name]
        if missing:
            return [f"it has no {what} {missing[0]!r}, only {', '.join(repr(name) for name in by_name)}"]
        pairs = [(by_name[one[0]], one) for one in students]
    found = []
    for (_, shape, kind), (name, expected, wanted) in pairs:
        if not _agree(shape, expected):
            found.append(f"its {what} {name!r} has shape {shape}, the student's {expected}")
        elif kind != wanted:
            found.append(f"its {what} {name!r} has the {third} {kind}, the student's {wanted}")
    return found


def _output_names(model: keras.Model) -> list[str]:
    """The names of a model's outputs; that of a Sequential has none, to Keras as to the user."""
    return ["output"] if isinstance(model, keras.Sequential) else list(model.output_names)


def _agree(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(shape) == len(other) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, other, strict=True)
    )


def _ending(tensor: Any) -> str:
    """Which of the functions that make probabilities an output ends in, or "linear": what its numbers mean."""
    operation = tensor._keras_history.operation
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", type(operation).__name__).lower()
    return name if name in ("softmax", "sigmoid") else "linear"


def of_model(teacher: keras.Model, student: keras.Model) -> Answers:
    """A Keras model as teacher; `check_teacher` has nothing against it."""
    tensors = keras.tree.flatten(input_structure(teacher))
    names = [tensor.name for tensor in keras.tree.flatten(input_structure(student))]
    in_order = len(names) == 1
    students = _output_names(student)

    def answers(x: Any) -> Sequence[Any]:
        given = standardize_inputs(student, x)
        if not in_order:
            by_name = dict(zip(names, given, strict=True))
            given = [by_name[tensor.name] for tensor in tensors]
        structured = keras.tree.pack_sequence_as(input_structure(teacher), given)
        outputs = keras.tree.flatten(teacher(structured, training=False))
        if len(outputs) == 1:
            return outputs
        named = dict(zip(_output_names(teacher), outputs, strict=True))
        return [named[name] for name in students]

    return answers


class Lesson:
    """How a student's loss takes a teacher into account. Made before any training, since mistakes end here.

    Args:
        settings: of the distillation.
        student: whose outputs they are about; the seed stands for every network that is cut from it.
        compiled: what the student is compiled with: `loss`, `loss_weights`.

    Raises:
        MorphError: the loss of an output does not tell what its numbers mean, or no output has a loss.
    """

    def __init__(self, settings: Distillation, student: keras.Model, compiled: Mapping[str, Any]) -> None:
        self._settings = settings
        self._student = student
        self._count = len(student.outputs)
        losses = self._by_output(compiled.get("loss"), "loss")
        if all(loss is None for loss in losses):
            raise MorphError(
                f"distill: no output of model '{student.name}' has a loss, so a teacher's answers cannot be compared "
                "with anything. Compile with a loss for the outputs that the teacher is to teach."
            )
        weights = self._by_output(compiled.get("loss_weights"), "loss_weights")
        # (output, loss, its weight)
        self._terms: list[tuple[int, keras.losses.Loss, float]] = []
        if settings.loss is None:
            self._terms = [
                (index, self._softened(index, loss), 1.0 if weight is None else float(weight))
                for index, (loss, weight) in enumerate(zip(losses, weights, strict=True))
                if loss is not None
            ]

    @contextlib.contextmanager
    def taught(self, model: keras.Model, answers: Answers) -> Iterator[None]:
        """While the block runs, a step of training `model` listens to a teacher; evaluation and the model do not."""
        plain = model.compute_loss
        weight = self._settings.weight

        def compute_loss(
            x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            loss = plain(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
            if not training:
                return loss
            added = [ops.cast(model._aggregate_additional_loss(each), loss.dtype) for each in model.losses]
            lesson = ops.cast(self.loss(model, answers(x), y_pred, sample_weight), loss.dtype)
            return (1 - weight) * loss + weight * (lesson + sum(added))

        trained: Any = model
        trained.compute_loss, trained.train_function = compute_loss, None
        try:
            yield
        finally:
            # What was compiled for training has the teacher in it.
            del trained.compute_loss
            trained.train_function = None

    def loss(self, model: keras.Model, told: Sequence[Any], y_pred: Any, sample_weight: Any = None) -> Any:
        """The second term of the loss, before its weight: scalar tensor.

        Args:
            model: the student, to which losses of the user's own belong.
            told: the teacher's answers, flat.
            y_pred: the student's.
            sample_weight: of the examples; None, one for all outputs, or one for each.
        """
        told = [ops.stop_gradient(ops.convert_to_tensor(each)) for each in told]
        given = keras.tree.flatten(y_pred)
        if self._settings.loss is not None:
            value = ops.mean(self._settings.loss.compute_loss(pack_outputs(self._student, told), y_pred))
            return model._aggregate_additional_loss(value)
        weights = [None] * self._count if sample_weight is None else keras.tree.flatten(sample_weight)
        weights = weights * self._count if len(weights) == 1 else weights
        terms = [
            loss(told[index], given[index], sample_weight=weights[index]) * weight
            for index, loss, weight in self._terms
        ]
        return sum(terms[1:], start=terms[0])

    def _by_output(self, given: Any, what: str) -> list[Any]:
        """What was given for each output: for all of them, by place or by name."""
        if isinstance(given, Mapping):
            keys = pack_outputs(self._student, list(range(self._count)))
            keys = {index: key for key, index in keys.items()} if isinstance(keys, Mapping) else {}
            names = [(name, keys.get(index)) for index, name in enumerate(_output_names(self._student))]
            if self._count == 1 and len(given) == 1:  # a Sequential's output has no name
                return list(given.values())
            return [next((given[name] for name in both if name in given), None) for both in names]
        if isinstance(given, (list, tuple)):
            if len(given) != self._count:
                raise MorphError(
                    f"distill: {what} has {len(given)} entries for the {self._count} outputs of model "
                    f"'{self._student.name}', so it cannot be told which belongs to which. Give one for each output, "
                    "or a dict by their names."
                )
            return list(given)
        return [given] * self._count

    def _softened(self, index: int, loss: Any) -> keras.losses.Loss:
        loss = keras.losses.get(loss)
        name = next((name for name in _names_of(loss) if name in _KINDS), None)
        output = _output_names(self._student)[index]
        if name is None:
            raise MorphError(
                f"distill: the loss of output '{output}' is {_shown(loss)}, which does not say whether its numbers are "
                "classes, yes or no, or amounts, so it is not known how to compare them with a teacher's. Expected one "
                f"of Keras' own ({', '.join(dict.fromkeys(_KINDS))}). Give distill={{'loss': ...}} a "
                "keras.distillation loss, or an object with compute_loss(teacher_outputs, student_outputs)."
            )
        reduction = getattr(loss, "reduction", None) or "sum_over_batch_size"
        kind: Any = _KINDS[name]
        if kind is Amounts:
            return Amounts(reduction=reduction)
        axis = getattr(loss, "axis", -1) if kind is Classes else -1
        return kind(self._settings.temperature, bool(getattr(loss, "from_logits", False)), axis, reduction)


def _shown(loss: Any) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _names_of(loss: Any) -> list[str]:
    """The names of Keras' own losses that this is: a function, or an object of a class or of one derived from it."""
    function = getattr(loss, "fn", loss)
    own = [function] if hasattr(function, "__name__") else []
    return [each.__name__ for each in [*type(loss).__mro__, *own] if each.__module__.split(".")[0] == "keras"]


class Classes(keras.losses.Loss):
    """How far the student's distribution over classes is from the teacher's, both softened; see the file's beginning.

    Args:
        temperature: T.
        from_logits: whether outputs are z; else they are softmax(z).
        axis: along which the classes lie.
        reduction: over examples, as for any loss of Keras.
    """

    def __init__(self, temperature: float, from_logits: bool, axis: int, reduction: str) -> None:
        super().__init__(name="distillation", reduction=reduction)
        self._temperature, self._from_logits, self._axis = temperature, from_logits, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        teacher, student = self._logarithms(y_true), self._logarithms(y_pred)
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=self._axis)
        return self._temperature**2 * divergence

    def _logarithms(self, outputs: Any) -> Any:
        z = outputs if self._from_logits else ops.log(_inside(outputs))
        return ops.log_softmax(z / self._temperature, axis=self._axis)


class YesOrNo(keras.losses.Loss):
    """As `Classes`, where each output is a probability by itself; the mean over the last axis, as Keras takes it."""

    def __init__(self, temperature: float, from_logits: bool, axis: int, reduction: str) -> None:
        super().__init__(name="distillation", reduction=reduction)
        self._temperature, self._from_logits, self._axis = temperature, from_logits, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        teacher, student = self._logits(y_true), self._logits(y_pred)
        divergence = ops.zeros_like(student)
        for sign in (1.0, -1.0):
            known, guessed = ops.log_sigmoid(sign * teacher), ops.log_sigmoid(sign * student)
            divergence = divergence + ops.exp(known) * (known - guessed)
        return self._temperature**2 * ops.mean(divergence, axis=self._axis)

    def _logits(self, outputs: Any) -> Any:
        if self._from_logits:
            return outputs / self._temperature
        outputs = _inside(outputs)
        return (ops.log(outputs) - ops.log(1.0 - outputs)) / self._temperature


class Amounts(keras.losses.MeanSquaredError):
    """The mean squared error to the teacher's numbers."""


def _inside(probabilities: Any) -> Any:
    """Probabilities whose logarithms are finite, to Keras' own margin."""
    margin = keras.config.epsilon()
    return ops.clip(probabilities, margin, 1.0 - margin)


# Keras' losses by the names of their classes and functions, and what the numbers of an output with such a loss mean.
_KINDS: dict[str, type[keras.losses.Loss]] = {
    **dict.fromkeys(
        (
            "CategoricalCrossentropy",
            "SparseCategoricalCrossentropy",
            "CategoricalFocalCrossentropy",
            "KLDivergence",
            "categorical_crossentropy",
            "sparse_categorical_crossentropy",
            "categorical_focal_crossentropy",
            "kl_divergence",
        ),
        Classes,
    ),
    **dict.fromkeys(
        ("BinaryCrossentropy", "BinaryFocalCrossentropy", "binary_crossentropy", "binary_focal_crossentropy"), YesOrNo
    ),
    **dict.fromkeys(
        (
            "MeanSquaredError",
            "MeanAbsoluteError",
            "MeanAbsolutePercentageError",
            "MeanSquaredLogarithmicError",
            "Huber",
            "LogCosh",
            "Poisson",
            "mean_squared_error",
            "mean_absolute_error",
            "mean_absolute_percentage_error",
            "mean_squared_logarithmic_error",
            "huber",
            "log_cosh",
            "poisson",
        ),
        Amounts,
    ),
}
