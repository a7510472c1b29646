"""A first look at the examples, so that what is missing is found before an hour of training and not after.

Only files on this machine are looked at, and of each split only as far as the first example. What the examples hold,
StatisticsGen and ExampleValidator then see in full.
"""

from __future__ import annotations

import csv
import glob
from pathlib import Path

from morph_core import MorphError

from .config import DataConfig, is_uri

_GZIP = b"\x1f\x8b"


def check_examples(data: DataConfig, label: str) -> None:
    """Finds each split's first example and the label in it.

    Raises:
        MorphError: the directory, a split's files or its examples are missing, or the label is not among the features.
    """
    if is_uri(data.path):
        return
    directory = Path(data.path)
    if not directory.is_dir():
        raise MorphError(
            f"data.path: {directory} is not a directory. Expected the directory that holds your {data.format} files."
        )
    for split, pattern in (data.splits or {"": "*"}).items():
        if "{" in pattern:  # {SPAN}, {VERSION} and dates are TFX's to fill in
            continue
        key = f"data.splits.{split}" if split else "data.path"
        files = [Path(path) for path in sorted(glob.glob(str(directory / pattern))) if Path(path).is_file()]
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
