"""A network's weights as one file of plain arrays, from which the network is made again without trusting the file."""

import io
import math
import zipfile

import keras
import numpy as np

from morph_core import MorphError

_HEAD = 1 << 16  # bytes, for the names of an entry and of its weight, and for the file as a whole


def packed(model: keras.Model) -> bytes:
    """A model's weights in their order, as plain arrays named 0, 1, ... in NumPy's npz format, and their paths."""
    buffer = io.BytesIO()
    values = {str(number): value for number, value in enumerate(model.get_weights())}
    np.savez(buffer, paths=np.array([weight.path for weight in model.weights]), **values)
    return buffer.getvalue()


def most_bytes(model: keras.Model) -> int:
    """What the file of a model's weights may have at most, in bytes: twice what 64-bit numbers take, and names."""
    return _HEAD + sum(_HEAD + 16 * math.prod(weight.shape) for weight in model.weights)


def unpack_into(model: keras.Model, content: bytes, source: str, instead: str) -> None:
    """Gives a model the weights that `packed` wrote.

    Args:
        model: with the same weights by name, shape and order.
        content: of the file.
        source: its path, for messages.
        instead: what to do about a damaged file, besides restoring it: "run MorphTrainer again".

    Raises:
        MorphError: the file is damaged, or its weights are not this network's.
    """
    try:
        # Compressed, a small file can stand for more than all memory.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > most_bytes(model):
            raise ValueError(f"it holds {size:,} bytes, more than the network has")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            paths = stored["paths"].tolist()
            values = [stored[str(number)] for number in range(len(paths))]
    except (ValueError, KeyError, EOFError, OSError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        raise MorphError(
            f"The weights in {source} cannot be read ({error}). Restore the file, or {instead}."
        ) from error
    found = {name: value.shape for name, value in zip(paths, values, strict=True)}
    expected = {weight.path: tuple(weight.shape) for weight in model.weights}
    if list(found.items()) != list(expected.items()):
        differing = sorted(dict(found.items() ^ expected.items()))
        raise MorphError(
            f"The weights in {source} are of another network: {', '.join(differing[:3]) or 'their order'} differ in "
            "name or shape. Use the module file and the hyperparameters that they were trained with."
        )
    model.set_weights(values)
