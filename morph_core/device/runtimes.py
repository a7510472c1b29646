"""How a network runs on this machine: compiled by the backend, by XLA, or converted for LiteRT.

The core knows backends through Keras only. What compiles a function is no part of Keras, so here, and nowhere else in
the core, the backend that Keras runs on is asked for itself: `backend` imports whichever it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from ..cost.machine import cores, this_machine
from ..errors import MorphError
from .request import DTYPES, check_runtime

Call = Callable[[], Any]
"""Runs a network once, to the end."""

Inputs = Sequence[np.ndarray]
"""A batch for each input of a model, flat."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """One way to run a network.

    Attributes:
        name: as in `runtime="xla"`.
        backends: those of Keras that have it.
        dtypes: those that it runs in.
        copies: of one operation that are timed in one call, one after the other, where calling takes longer than most
            operations do.
        compiled: (model, its inputs as arrays, once for each copy) -> a call of all copies.
    """

    name: str
    backends: tuple[str, ...]
    dtypes: tuple[str, ...]
    copies: int
    compiled: Callable[[keras.Model, Sequence[Inputs]], Call]


def find_runtime(name: str, dtype: str) -> Runtime:
    """A runtime by its name.

    Raises:
        MorphError: there is none of that name, or not on this backend, or not in this dtype, or it is not installed.
    """
    check_runtime(name, dtype)
    runtime = RUNTIMES[name]
    if keras.backend.backend() not in runtime.backends:
        raise MorphError(
            f"Runtime '{name}' needs Keras on {' or '.join(runtime.backends)}, which comes with pip install "
            f"'morph-tfx[tfx]'; here Keras runs on {keras.backend.backend()}. Set KERAS_BACKEND={runtime.backends[0]}."
        )
    if name == "litert":
        interpreter_class()
    return runtime


def backend() -> Any:
    """The module of the backend that Keras runs on."""
    return importlib.import_module(keras.backend.backend())


def device_name() -> str:
    """The device that networks run on here: that of the backend's first accelerator, or this machine's processor."""
    if keras.backend.backend() != "tensorflow":
        return this_machine()
    config = backend().config
    cards = config.list_physical_devices("GPU")
    if not cards:
        return this_machine()
    return config.experimental.get_device_details(cards[0]).get("device_name", cards[0].name)


def threads(runtime: str) -> int:
    """How many threads one operation may use; with LiteRT one, which is its default."""
    if runtime == "litert":
        return 1
    chosen = 0
    if keras.backend.backend() == "tensorflow":
        chosen = backend().config.threading.get_intra_op_parallelism_threads()
    return chosen or cores()


def versions() -> dict[str, str]:
    """Of what measurements depend on."""
    return {
        "keras": keras.__version__,
        keras.backend.backend(): str(getattr(backend(), "__version__", "")),
        "numpy": np.__version__,
    }


def traced(model: keras.Model, batches: Sequence[Inputs], jit_compile: bool | None = None) -> tuple[Any, list[Any]]:
    """A model as one function of TensorFlow that runs it once for each batch, in order; and the batches as tensors."""
    tensorflow = backend()
    structure = model.input
    dtypes = [tensor.dtype for tensor in keras.tree.flatten(structure)]
    tensors = [tensorflow.cast(array, dtype) for batch in batches for array, dtype in zip(batch, dtypes, strict=True)]

    def call(*given: Any) -> Any:
        outputs: list[list[Any]] = [[]]
        for start in range(0, len(given), len(dtypes)):
            # Copies would run side by side if nothing held them back.
            with tensorflow.control_dependencies(outputs[-1]):
                chosen = keras.tree.pack_sequence_as(structure, list(given[start : start + len(dtypes)]))
                outputs.append(keras.tree.flatten(model(chosen, training=False)))
        # All of them are asked for: what nobody reads is not computed.
        return keras.tree.flatten(outputs)

    function = tensorflow.function(call, autograph=False, jit_compile=jit_compile)
    return function.get_concrete_function(*(tensorflow.TensorSpec(t.shape, t.dtype) for t in tensors)), tensors


@contextlib.contextmanager
def saved(model: keras.Model, batch_size: int | None = None) -> Iterator[str]:
    """The directory of a SavedModel of a network at inference, which is gone when the block ends.

    Args:
        batch_size: of all its inputs; None leaves it open.
    """
    structure = model.input
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = keras.tree.map_structure(
        lambda tensor: keras.InputSpec(shape=(batch_size, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name),
        structure,
    )
    archive.add_endpoint("serve", lambda inputs: model(inputs, training=False), [signature])
    with tempfile.TemporaryDirectory(prefix="morph-") as folder:
        archive.write_out(folder, verbose=False)
        yield folder


def litert_bytes(model: keras.Model, batch_size: int | None = None) -> bytes:
    """A network as LiteRT's float32 file."""
    with saved(model, batch_size) as folder:
        return backend().lite.TFLiteConverter.from_saved_model(folder).convert()


def lacking(text: str) -> list[str]:
    """The operations that LiteRT does not have, from the pages that its converter writes then."""
    return list(dict.fromkeys(re.findall(r"'?tf\.(\w+)'? op is neither", text)))


def interpreter_class() -> Any:
    """LiteRT's interpreter, of its own package or of TensorFlow.

    Raises:
        MorphError: neither has it.
    """
    try:
        return importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ModuleNotFoundError:
        found = getattr(getattr(backend(), "lite", None), "Interpreter", None)
    if found is None:
        raise MorphError(
            "LiteRT is not installed: this TensorFlow has no interpreter of its own. Install it with: "
            "pip install 'morph-tfx[litert]'"
        )
    return found


def interpreter(content: bytes) -> Any:
    """A LiteRT interpreter of a converted model, on one thread, which is its default."""
    made = interpreter_class()(model_content=content, num_threads=threads("litert"))
    made.allocate_tensors()
    return made


def litert_answers(made: Any, model: keras.Model, batch: Inputs) -> list[np.ndarray]:
    """What an interpreter answers to a batch, output by output; the batch stays set for further calls."""
    runner = made.get_signature_runner()
    expected = runner.get_input_details()
    names = [tensor.name for tensor in keras.tree.flatten(model.input)]
    named = dict(zip(names if len(names) > 1 else expected, batch, strict=True))
    answers = runner(**{name: array.astype(expected[name]["dtype"]) for name, array in named.items()})
    return [answers[name] for name in sorted(answers)]


def _tensorflow(model: keras.Model, batches: Sequence[Inputs], jit_compile: bool | None = None) -> Call:
    function, tensors = traced(model, batches, jit_compile)
    tensorflow = backend()
    if not tensorflow.config.list_logical_devices("GPU"):
        return lambda: function(*tensors)
    # A card is told what to do and answers at once; waiting for it is part of the time.
    wait = tensorflow.test.experimental.sync_devices

    def call() -> None:
        function(*tensors)
        wait()

    return call


def _xla(model: keras.Model, batches: Sequence[Inputs]) -> Call:
    if keras.backend.backend() == "tensorflow":
        return _tensorflow(model, batches, jit_compile=True)
    structure, jax = model.input, backend()
    function = jax.jit(
        lambda sets: [model(keras.tree.pack_sequence_as(structure, one), training=False) for one in sets]
    )
    dtypes = [tensor.dtype for tensor in keras.tree.flatten(structure)]
    sets = [[keras.ops.cast(array, dtype) for array, dtype in zip(batch, dtypes, strict=True)] for batch in batches]
    return lambda: jax.block_until_ready(function(sets))


def _litert(model: keras.Model, batches: Sequence[Inputs]) -> Call:
    (inputs,) = batches
    made = interpreter(litert_bytes(model, len(inputs[0])))
    litert_answers(made, model, inputs)
    return made.invoke


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("tf.function", ("tensorflow",), DTYPES["tf.function"], 8, _tensorflow),
        Runtime("xla", ("tensorflow", "jax"), DTYPES["xla"], 4, _xla),
        Runtime("litert", ("tensorflow",), DTYPES["litert"], 1, _litert),
    )
}
