"""A first look at the examples, so that what is missing is found before an hour of training and not after.

Only files on this machine are looked at, and of each split only as far as the first example. What the examples hold,
StatisticsGen and ExampleValidator then see in full.
"""

from __future__ import annotations

import csv
from pathlib import Path

from morph_core import MorphError

from ..config import DataConfig, is_uri
from ..config.spans import newest_files

_GZIP = b"\x1f\x8b"


def check_examples(data: DataConfig, label: str) -> None:
    """Finds each split's first example and the label in it; of several spans, in the newest.

    Raises:
        MorphError: the directory, a split's files or its examples are missing, the newest span is not the same for all
            splits, or the label is not among the features.
    """
    if is_uri(data.path):
        return
    directory = Path(data.path)
    if not directory.is_dir():
        raise MorphError(
            f"data.path: {directory} is not a directory. Expected the directory that holds your {data.format} files."
        )
    newest = {}
    for split, pattern in data.patterns.items():
        key = f"data.splits.{split}" if data.splits else "data.pattern" if data.pattern else "data.path"
        files, newest[split] = newest_files(directory, pattern)
        if not files:
            raise MorphError(f"{key}: no file matches {directory / pattern}. Check the pattern, and what is there.")
        features = next((found for found in map(_READERS[data.format], files) if found is not None), None)
        if features is None:
            raise MorphError(
                f"{key}: the {len(files)} file(s) that match {directory / pattern} hold no examples. Expected at least "
                "one in every split."
            )
        if label not in features:
            raise MorphError(
                f"label: {label!r} is not a feature of the examples in {directory / pattern}. They have: "
                f"{', '.join(sorted(features))}."
            )
    if len(set(newest.values())) > 1:
        listed = ", ".join(f"{'-'.join(map(str, span))} of {split!r}" for split, span in newest.items())
        raise MorphError(
            f"data.splits: the newest spans are not the same: {listed}. Expected the newest files of every split to "
            "belong together; add those that are missing, or take away the span that is not complete."
        )


def _csv_features(file: Path) -> set[str] | None:
    """The columns of a CSV file, or None without a row below the header."""
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            reader = csv.reader(lines)
            header, row = next(reader, None), next(reader, None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise MorphError(f"data.path: {file} is no CSV file: {error}. Set data.format, or move it away.") from error
    return set(header) if header and row else None


def _tfrecord_features(file: Path) -> set[str] | None:
    """The features of the first tf.train.Example, or None without one."""
    import tensorflow as tf

    with open(file, "rb") as content:
        compression = "GZIP" if content.read(2) == _GZIP else None
    try:
        records = tf.data.TFRecordDataset(str(file), compression_type=compression).take(1)
        for record in records.as_numpy_iterator():
            return set(tf.train.Example.FromString(record).features.feature)
    except (tf.errors.DataLossError, ValueError, _decode_error()) as error:
        raise MorphError(
            f"data.path: {file} does not hold serialized tf.train.Examples in TFRecord format. Set data.format, or "
            "move it away."
        ) from error
    return None


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError


_READERS = {"csv": _csv_features, "tfrecord": _tfrecord_features}
