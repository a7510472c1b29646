"""The file that a network runs from on a device, and the proof that it is the same network.

A network is converted, run on real examples beside the Keras model, and timed beside it. Only a file that answers as
the model does, and is not slower, is kept. LiteRT has several number formats; how far each may be off is in `FORMATS`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from ..errors import MorphError, first_line
from ..files import write_whole
from ..network.trace import function_of
from .request import Format, check_batch_size, check_tolerance, format_named
from .runtimes import Inputs, backend, find_runtime, interpreter, interpreter_class, lacking, litert_answers, saved
from .stopwatch import Stopwatch

# A tenth slower is within what two timings of the same thing differ by.
_SLOWER = 1.1
MOST_EXAMPLES = 256
"""Examples that are looked at for the comparison, and for the ranges of whole-number formats."""

_REPEATS = 40
# Shares that are equal may differ by this in floating point.
_ROUNDING = 1e-9

Answers = Callable[[Inputs], list[np.ndarray]]
"""A batch -> outputs, flat."""


class CannotExpress(MorphError):
    """A format has no counterpart of an operation of the network; the message names the layer."""


@dataclasses.dataclass(frozen=True)
class Export:
    """What came of an export.

    Attributes:
        path: of the file, where it was kept.
        format: its name.
        size: of the file, in bytes.
        difference: the largest difference between outputs, as a share of the largest output.
        tolerance: how large it may be.
        milliseconds: for a batch, of the file and of the Keras model as a tf.function.
        accuracy: of the file and of the Keras model; None without labels.
        examples: how many were compared.
        problem: why the file was not kept; "" when it was.
    """

    path: str
    format: str
    size: int
    difference: float
    tolerance: float
    milliseconds: tuple[float, float]
    accuracy: tuple[float, float] | None
    examples: int
    problem: str


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    examples: Any,
    *,
    format: str = "litert",
    labels: np.ndarray | None = None,
    batch_size: int = 1,
    tolerance: float | None = None,
    max_accuracy_loss: float | None = None,
    keep_slower: bool = False,
) -> Export:
    """Write a network for a device, if the file is right.

    Args:
        model: the network, functional or Sequential.
        path: of the file to write.
        examples: real inputs of the model: an array, or a list or dict of them as the model takes them. Whole-number
            formats get their ranges from them.
        format: a name in `FORMATS`: "litert", "litert-float16", "litert-dynamic", "litert-int8" or "onnx".
        labels: whole numbers, for a model whose output is a score for each class: the accuracy is then compared, too.
        batch_size: that the file is made for.
        tolerance: another one than the format's.
        max_accuracy_loss: how much less accurate than the model the file may be, such as 0.01; needs `labels`.
        keep_slower: keep a file that is slower than the Keras model on this machine.

    Returns:
        What was compared. Where `problem` says why, no file was written.

    Raises:
        MorphError: an argument is wrong, a package is missing, the format cannot express an operation, or the file
            cannot be written.
    """
    target = pathlib.Path(path)
    kind = _checked_format(format, target)
    check_tolerance(tolerance)
    # A Sequential that was loaded from a file was never called, and has no `input` by itself.
    model = function_of(model)
    batches = _batches(model, examples, batch_size)
    count = len(batches) * batch_size
    if labels is not None and (np.ndim(labels) != 1 or len(labels) < count):
        raise MorphError(f"export: labels have shape {np.shape(labels)}; expected a whole number for each example.")
    if max_accuracy_loss is not None and labels is None:
        raise MorphError(
            f"export: max_accuracy_loss is {max_accuracy_loss:g}, but without labels no accuracy is measured. Give "
            "labels, or leave it out: outputs are compared in any case."
        )
    ours = _keras_answers(model)
    # Keras exports only what was called.
    expected = [ours(batch) for batch in batches]
    content = _onnx_bytes(model) if format == "onnx" else _litert_bytes(model, kind, batch_size, batches)
    answer, call = (_onnx_runner if format == "onnx" else _litert_runner)(model, content, batches[0])
    pairs = [(right, answer(batch)) for right, batch in zip(expected, batches, strict=True)]
    difference = _difference(pairs)
    allowed = kind.tolerance if tolerance is None else tolerance
    theirs, plain = Stopwatch(lambda: None, _REPEATS).milliseconds(
        [call, find_runtime("tf.function", "float32").compiled(model, [batches[0]])]
    )
    accuracy = None if labels is None else _accuracies(pairs, np.asarray(labels)[:count])
    problem = ""
    if not difference <= allowed:
        problem = f"its outputs differ from the model's by {difference:.2g} of the largest, more than {allowed:g}"
    elif (
        accuracy is not None
        and max_accuracy_loss is not None
        and accuracy[1] - accuracy[0] > max_accuracy_loss + _ROUNDING
    ):
        problem = (
            f"its accuracy is {accuracy[0]:.1%}, the model's {accuracy[1]:.1%}: a loss of more than "
            f"{max_accuracy_loss:.1%}"
        )
    elif theirs > _SLOWER * plain and not keep_slower:
        problem = f"it takes {theirs:.3g} ms here, the Keras model {plain:.3g} ms"
    if not problem:
        write_whole(target, content)
    return Export(
        path="" if problem else str(target),
        format=format,
        size=len(content),
        difference=difference,
        tolerance=allowed,
        milliseconds=(theirs, plain),
        accuracy=accuracy,
        examples=count,
        problem=problem,
    )


def check_installed(format: str) -> None:
    """Raise a MorphError that names the extra to install, where a package that a format needs is missing."""
    if format == "onnx":
        for name in _ONNX_PACKAGES:
            _package(name)
    else:
        interpreter_class()


def _checked_format(format: str, target: pathlib.Path) -> Format:
    kind = format_named(format)
    if target.suffix != kind.suffix:
        raise MorphError(
            f"A file of format '{format}' ends in {kind.suffix}; received {target}. Name it so, or choose another "
            "format."
        )
    find_runtime("tf.function", "float32")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise MorphError(f"{target} cannot be written: {target.parent} is no directory that you may write to.")
    return kind


def _batches(model: keras.Model, examples: Any, batch_size: int) -> list[list[np.ndarray]]:
    """Whole batches of the examples, each input by itself, flat."""
    inputs = keras.tree.flatten(model.input)
    arrays = [np.asarray(array) for array in keras.tree.flatten(examples)]
    shapes = [array.shape[1:] for array in arrays]
    wanted = [tuple(tensor.shape[1:]) for tensor in inputs]
    fitting = len(shapes) == len(wanted) and all(
        len(has) == len(wants) and all(b in (None, a) for a, b in zip(has, wants, strict=True))
        for has, wants in zip(shapes, wanted, strict=True)
    )
    if not fitting:
        raise MorphError(f"export: examples have shapes {shapes}, the model's inputs {wanted}, each without the batch.")
    check_batch_size(batch_size)
    count = min(map(len, arrays)) if arrays else 0
    if count < batch_size:
        raise MorphError(
            f"export: batch_size is {batch_size}, and {count} examples are no batch of it. Give more of them."
        )
    typed = [array.astype(tensor.dtype) for array, tensor in zip(arrays, inputs, strict=True)]
    return [
        [array[start : start + batch_size] for array in typed]
        for start in range(0, min(count, max(MOST_EXAMPLES, batch_size)) - batch_size + 1, batch_size)
    ]


def _keras_answers(model: keras.Model) -> Answers:
    structure = model.input

    def answer(batch: Inputs) -> list[np.ndarray]:
        outputs = model(keras.tree.pack_sequence_as(structure, list(batch)), training=False)
        return [as_numpy(output) for output in keras.tree.flatten(outputs)]

    return answer


def _difference(pairs: Sequence[tuple[list[np.ndarray], list[np.ndarray]]]) -> float:
    """The largest difference, as a share of the largest output; infinity for what is no number."""
    worst = largest = 0.0
    for ours, theirs in pairs:
        for expected, received in zip(ours, theirs, strict=True):
            off = float(np.abs(expected - received).max(initial=0.0))
            worst = max(worst, off if np.isfinite(off) else np.inf)
            largest = max(largest, float(np.abs(expected).max(initial=0.0)))
    return worst / max(largest, 1e-12)


def _accuracies(pairs: Sequence[tuple[list[np.ndarray], list[np.ndarray]]], labels: np.ndarray) -> tuple[float, float]:
    """Of the file, and of the model: shares of examples whose largest score is that of their label."""
    ours, theirs = (np.concatenate([pair[side][0] for pair in pairs]).argmax(-1) for side in (0, 1))
    return float((theirs == labels).mean()), float((ours == labels).mean())


# --- LiteRT -----------------------------------------------------------------------------------------------------------


def _litert_bytes(model: keras.Model, kind: Format, batch_size: int, batches: Sequence[Inputs]) -> bytes:
    lite = backend().lite
    names = [tensor.name for tensor in keras.tree.flatten(model.input)]

    def ranges() -> Iterator[Any]:
        for batch in batches:
            yield list(batch) if len(names) == 1 else dict(zip(names, batch, strict=True))

    with saved(model, batch_size) as folder:
        converter = lite.TFLiteConverter.from_saved_model(folder)
        if kind.name != "litert":
            converter.optimizations = [lite.Optimize.DEFAULT]
        if kind.name == "litert-float16":
            converter.target_spec.supported_types = [backend().float16]
        if kind.name == "litert-int8":
            converter.representative_dataset = ranges
            converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS_INT8]
        try:
            return converter.convert()
        except Exception as error:
            raise CannotExpress(_inexpressible(str(error), kind)) from error


def _inexpressible(text: str, kind: Format) -> str:
    """One message for an operation that LiteRT does not have, from the converter's pages."""
    operations = lacking(text)
    # Where it comes from: Keras names operations by the layers that they are made in.
    places = re.findall(r'(?:callsite|fused)\(?\["?[^"]*"?,? ?(?:callsite\()?"([^"@]+)@', text)
    what = f"operation {', '.join(operations)}" if operations else "the network"
    where = f", in '{places[0]}'" if places else ""
    reason = "" if operations else f" ({(text.strip().splitlines() or ['no reason given'])[0][:300]})"
    return (
        f"Format '{kind.name}' cannot express {what}{where}{reason}. Replace the layer by one made of simpler "
        "operations, or export another format."
    )


def _litert_runner(model: keras.Model, content: bytes, batch: Inputs) -> tuple[Answers, Callable[[], Any]]:
    made = interpreter(content)
    answer = functools.partial(litert_answers, made, model)
    answer(batch)
    return answer, made.invoke


# --- ONNX -------------------------------------------------------------------------------------------------------------


_ONNX_PACKAGES = ("tf2onnx", "onnxruntime")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MorphError(
            f"Format 'onnx' needs {name}, which is not installed. Install what is missing with: "
            "pip install 'morph-tfx[onnx]'"
        ) from error


def _onnx_bytes(model: keras.Model) -> bytes:
    check_installed("onnx")
    with tempfile.TemporaryDirectory(prefix="morph-") as folder:
        file = pathlib.Path(folder) / "model.onnx"
        try:
            model.export(file, format="onnx", verbose=False)
            return file.read_bytes()
        except Exception as error:
            raise CannotExpress(_inexpressible_in_onnx(error)) from error


def _inexpressible_in_onnx(error: Exception) -> str:
    node = re.search(r'Node, \("([^"]+)", (\w+)', str(error))
    what = f"operation {node[2]}, in '{node[1]}'" if node else f"the network ({first_line(error)[:300]})"
    return (
        f"Format 'onnx' cannot express {what}. Replace the layer by one made of simpler operations, or export another "
        "format."
    )


def _onnx_runner(model: keras.Model, content: bytes, batch: Inputs) -> tuple[Answers, Callable[[], Any]]:
    try:
        session = _package("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        # What has no counterpart is written as it is, and found out here.
        raise CannotExpress(_inexpressible_in_onnx(error)) from error
    names = [given.name for given in session.get_inputs()]

    def answer(given: Inputs) -> list[np.ndarray]:
        return session.run(None, dict(zip(names, given, strict=True)))

    return answer, lambda: answer(batch)
