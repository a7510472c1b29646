"""TFRecord files read record by record: that they are whole, and that each record is an example like the first.

Records are parsed in batches by TensorFlow, which reads about as fast as the disk does. Only where a batch cannot be
parsed, or an image in it looks cut, its records are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from morph_core import MorphError

from .contents import NUMBERS, TEXT, WHOLE, Contents, Unusable, is_no_number, without_feature, without_label

_GZIP = b"\x1f\x8b"
_KINDS = {"int64_list": WHOLE, "float_list": NUMBERS, "bytes_list": TEXT}
# How encoded images begin, and how those end that say so.
_IMAGES = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82", b"GIF8": b";", b"BM": b""}
_BATCH_BYTES, _BATCH_RECORDS = 1 << 22, 1024


def record_contents(files: Sequence[Path], label: str, required: Collection[str] = ()) -> Contents:
    """Reads all records of a split.

    Args:
        files: of the split, at least one.
        label: name of the feature with the label.
        required: names of features that every record must have.

    Raises:
        MorphError: a file is damaged, a record is no `tf.train.Example` or has a feature of another type than the
            first record, an image does not decode, a label is missing or NaN, or a required feature missing; file,
            record and feature are named.
    """
    found = Contents()
    empty, nan = without_label("the record has no label", label), without_label("the label is NaN", label)
    lacking = {name: without_feature(name) for name in required if name != label}
    images: set[str] = set()
    for file in files:
        for start, batch in _batches(file):
            if not found.examples:
                first = _example(batch[0], file, start)
                found.features = sorted(first)
                found.kinds = {name: _KINDS[kind] for name, feature in first.items() if (kind := feature[0])}
                images = {name for name, (_, values) in first.items() if _is_image(values)}
            found.examples += len(batch)
            parsed = _parsed(batch, found.kinds, file, start)
            for name in images:
                _check_images(parsed[name], name, file, start)
            for name, rows in {label: empty, **lacking}.items():
                if name in found.features:
                    _collect_missing(parsed.get(name), len(batch), rows, file, start)
            if label in parsed:
                _collect_labels(parsed[label], found, nan, file, start)
    for unusable in (empty, nan, *lacking.values()):
        unusable.refuse()
    return found


def _place(file: Path, record: int) -> str:
    """A record, counted from 0 here and from 1 for people."""
    return f"{file}, record {record + 1}"


def _batches(file: Path) -> Iterator[tuple[int, Any]]:
    """The records of a file in arrays of bytes, each with the number of its first."""
    import tensorflow as tf

    try:
        with open(file, "rb") as content:
            compression = "GZIP" if content.read(2) == _GZIP else ""
    except OSError as error:
        raise MorphError(f"data.path: {file} cannot be read: {error.strerror}. Check its permissions.") from error
    records = tf.data.TFRecordDataset(str(file), compression_type=compression)
    read = 0
    try:
        for record in records.take(1).as_numpy_iterator():
            size = max(1, min(_BATCH_RECORDS, _BATCH_BYTES // max(1, len(record))))
            for batch in records.batch(size).as_numpy_iterator():
                yield read, batch
                read += len(batch)
    except tf.errors.DataLossError as error:
        # Of the batch that was begun nothing arrived.
        whole = read + _whole_ones(records.skip(read))
        if not whole:
            raise _no_examples(file) from error
        raise MorphError(
            f"data: {file} is damaged: {whole} records are whole, record {whole + 1} is not ({error.message}). Copy "
            "the file again, or write it anew."
        ) from error


def _whole_ones(records: Any) -> int:
    """How many records can be read before one that is damaged."""
    import tensorflow as tf

    count = 0
    try:
        for _ in records:
            count += 1
    except tf.errors.DataLossError:
        return count
    return count


def _no_examples(file: Path) -> MorphError:
    return MorphError(
        f"data.path: {file} does not hold serialized tf.train.Examples in TFRecord format. Set data.format, or move it "
        "away."
    )


def _example(record: bytes, file: Path, number: int) -> dict[str, tuple[str | None, Any]]:
    """The features of one record: what kind each is of, and its values."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        if not number:
            raise _no_examples(file) from error
        raise MorphError(
            f"data: {_place(file, number)}: it is no tf.train.Example, as those before it are. Write the file anew, or "
            "take the record out."
        ) from error
    return {
        name: (kind, getattr(feature, kind).value if kind else [])
        for name, feature in features.items()
        for kind in (feature.WhichOneof("kind"),)
    }


def _parsed(batch: Any, kinds: dict[str, str], file: Path, start: int) -> dict[str, Any]:
    """The features of a batch as sparse tensors."""
    import tensorflow as tf

    dtypes = {WHOLE: tf.int64, NUMBERS: tf.float32, TEXT: tf.string}
    try:
        return tf.io.parse_example(batch, {name: tf.io.VarLenFeature(dtypes[kind]) for name, kind in kinds.items()})
    except tf.errors.InvalidArgumentError as error:
        for row, record in enumerate(batch):
            for name, (kind, _) in _example(record, file, start + row).items():
                if kind and name in kinds and _KINDS[kind] != kinds[name]:
                    raise MorphError(
                        f"data: {_place(file, start + row)}: feature {name!r} holds {_KINDS[kind]}, but {kinds[name]} "
                        "in the first record. Expected one type for a feature in all records."
                    ) from error
        raise  # TensorFlow refuses what the records do not explain: no mistake of the user's that we know


def _collect_missing(values: Any | None, examples: int, missing: Unusable, file: Path, start: int) -> None:
    """Notes the records of a batch that have no value of a feature; None where not even the file's first has one."""
    import numpy as np

    rows = [] if values is None else values.indices[:, 0].numpy()
    for row in np.flatnonzero(np.bincount(rows, minlength=examples) == 0):
        missing.add(_place(file, start + int(row)))


def _collect_labels(values: Any, found: Contents, nan: Unusable, file: Path, start: int) -> None:
    """Looks at the labels of one batch."""
    import numpy as np

    rows, labels = values.indices[:, 0].numpy(), values.values.numpy()
    for label, place in zip(*np.unique(labels, return_index=True), strict=True):
        value = label.decode(errors="replace") if isinstance(label, bytes) else label.item()
        if not is_no_number(value):
            found.remember(value)
            continue
        missing = rows[[place]] if isinstance(label, bytes) else rows[np.isnan(labels)]
        for row in missing:
            nan.add(_place(file, start + int(row)))


def _is_image(values: Any) -> bool:
    return len(values) == 1 and isinstance(values[0], bytes) and values[0].startswith(tuple(_IMAGES))


def _check_images(values: Any, name: str, file: Path, start: int) -> None:
    """Raises MorphError for encoded images that do not decode; tries those that do not begin or end as images do."""
    import tensorflow as tf

    for row, image in zip(values.indices[:, 0].numpy(), values.values.numpy(), strict=True):
        if any(image.startswith(begin) and image.endswith(end) for begin, end in _IMAGES.items()):
            continue
        try:
            tf.io.decode_image(image)
        except tf.errors.InvalidArgumentError as error:
            raise MorphError(
                f"data: {_place(file, start + int(row))}: feature {name!r} holds images, and the one of this record "
                f"does not decode ({len(image):,} bytes: {str(error.message).splitlines()[0][:200]}). Take the record "
                "out, or write it anew."
            ) from error
