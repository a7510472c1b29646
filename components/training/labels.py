"""The labels of the examples, looked at before the first step: that they are numbers, and classes of the model.

A label that is no number, or of a class that the model has no output for, otherwise ends a training at its end, or on
an accelerator never: TensorFlow's losses give NaN for it there. Which labels a model takes, its loss says.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from morph_core import MorphError

LABEL_CLASSES = "label_classes"
"""The vocabulary of tensorflow_transform by which labels that are text become numbers: it names the classes."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """What was seen in one pass over a split.

    Attributes:
        batches: how many there are.
        examples: in all of them; None where the label is not one tensor.
        least, most: of the labels; None where there are none, or they are not one tensor.
        not_finite: how many labels are NaN or infinite.
    """

    batches: int
    examples: int | None = None
    least: float | None = None
    most: float | None = None
    not_finite: int = 0

    @property
    def is_one_class(self) -> bool:
        """Whether all labels are the same."""
        return self.examples is not None and self.examples > 1 and self.least is not None and self.least == self.most


def seen_in(dataset: tf.data.Dataset) -> Labels:
    """One pass over batches of (features, label).

    Args:
        dataset: that ends.
    """
    spec = _label_spec(dataset)
    if not isinstance(spec, tf.TensorSpec) or spec.dtype in (tf.string, tf.bool) or spec.shape.rank == 0:
        return Labels(int(dataset.reduce(0, lambda count, _: count + 1)))

    def add(state: Any, batch: Any) -> Any:
        batches, examples, not_finite, least, most = state
        labels = tf.cast(batch[1], tf.float64)
        finite = tf.math.is_finite(labels)
        return (
            batches + 1,
            examples + tf.shape(labels, out_type=tf.int64)[0],
            not_finite + tf.math.count_nonzero(~finite),
            tf.minimum(least, tf.reduce_min(tf.where(finite, labels, math.inf))),
            tf.maximum(most, tf.reduce_max(tf.where(finite, labels, -math.inf))),
        )

    zero, infinity = tf.constant(0, tf.int64), tf.constant(math.inf, tf.float64)
    batches, examples, not_finite, least, most = (
        value.numpy() for value in dataset.reduce((zero, zero, zero, infinity, -infinity), add)
    )
    bounds = (float(least), float(most)) if least <= most else (None, None)
    return Labels(int(batches), int(examples), *bounds, int(not_finite))


def check_are_numbers(dataset: tf.data.Dataset, source: str) -> None:
    """Raises MorphError when labels are text.

    Args:
        dataset: batches of (features, label).
        source: the module file, for the message.
    """
    spec = _label_spec(dataset)
    if getattr(spec, "dtype", None) == tf.string:
        raise MorphError(
            f"input_fn in {source} yields labels that are text, and a loss takes numbers. Make them numbers in "
            f"preprocessing_fn: tft.compute_and_apply_vocabulary(inputs[LABEL], vocab_filename={LABEL_CLASSES!r}). A "
            "vocabulary of that name also tells Evaluator and clients what the model's outputs are called."
        )


def check(splits: Mapping[str, Labels], model: keras.Model, source: str) -> None:
    """Raises MorphError when a label is no number, or none that the model's loss takes.

    Args:
        splits: what was seen, by the name of the split.
        model: compiled, with known outputs.
        source: the module file, for the message.
    """
    expected = _taken_by(model)
    for split, labels in splits.items():
        if labels.not_finite:
            raise MorphError(
                f"{labels.not_finite} labels of the {split} split are NaN or infinite, as input_fn in {source} yields "
                "them. Every example needs a label to learn from: take such rows out of the data."
            )
        if expected is None or labels.least is None or labels.most is None:
            continue
        highest, why = expected
        if labels.least < 0 or labels.most > highest:
            unknown = (
                " A vocabulary gives -1 to a label that the examples it was made of do not have."
                if labels.least == -1
                else ""
            )
            raise MorphError(
                f"The labels of the {split} split go from {labels.least:g} to {labels.most:g}, but {why}, so labels "
                f"from 0 to {highest} are expected.{unknown} Give the model of build_model in {source} as many outputs "
                "as there are classes, or correct the labels."
            )


def remarks(splits: Mapping[str, Labels], batch_size: int, steps: int) -> list[str]:
    """What is no mistake and yet worth knowing, one sentence each.

    Args:
        splits: what was seen, by the name of the split; one is called "training".
        batch_size: of the training.
        steps: of the whole training.
    """
    told = [
        f"All labels of the {split} split are {labels.least:g}: nothing can be told apart there."
        for split, labels in splits.items()
        if labels.is_one_class
    ]
    examples = splits["training"].examples
    if examples is not None and splits["training"].batches == 1 and examples < batch_size:
        told.append(
            f"The batch size is {batch_size}, and the training split has {examples} examples: an epoch is one step, "
            f"and the whole training {steps}. Lower it, or train for more epochs."
        )
    return told


def _label_spec(dataset: tf.data.Dataset) -> Any:
    batch: Any = dataset.element_spec
    return batch[1]


def _taken_by(model: keras.Model) -> tuple[int, str] | None:
    """The highest label that the model's loss takes, and why; None where any number may be one."""
    loss: Any = getattr(model, "loss", None)
    if loss is None or isinstance(loss, (list, tuple, dict)) or len(model.outputs) != 1:
        return None
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    kind = str(name).replace("_", "").lower()
    if kind in ("binarycrossentropy", "binaryfocalcrossentropy"):
        return 1, f"its loss is {name}"
    options = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    if kind != "sparsecategoricalcrossentropy" or options.get("ignore_class") is not None:
        return None
    classes = model.outputs[0].shape[options.get("axis", -1)]
    if classes is None:
        return None
    return int(classes) - 1, f"the model has {classes} outputs and its loss is {name}"
