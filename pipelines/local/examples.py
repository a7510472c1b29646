"""A first look at the examples, so that what is wrong with them is found before an hour of training and not after.

Only files on this machine are looked at, and of several spans those of the newest. Every row is read: what stops a step
of the pipeline minutes later, or a training hours later, is told here with its file and its row. What the examples
mean, StatisticsGen and ExampleValidator then see in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from morph_core import MorphError

from ..config import DataConfig, is_uri
from ..config.spans import newest_files
from ..graph.module_files import check_features_read
from .contents import MOST_LABELS, NUMBERS, TEXT, WHOLE, Contents
from .csv_rows import csv_contents
from .records import record_contents

_READERS = {"csv": csv_contents, "tfrecord": record_contents}
_MOST_REMARKS = 5  # are told one by one; the rest is counted
_MOST_NUMBERED_CLASSES = 100  # more different whole numbers are taken for amounts


def check_examples(
    data: DataConfig,
    label: str,
    batch_sizes: Mapping[str, int] | None = None,
    preprocessing_file: str | None = None,
    required: Mapping[str, str] | None = None,
    slices: Sequence[str] = (),
) -> list[str]:
    """Reads the examples of each split; of several spans, of the newest.

    Args:
        data: where they are.
        label: the feature with the label.
        batch_sizes: of the trainings, by the key of the configuration that says it.
        preprocessing_file: Python file with `preprocessing_fn`, to be searched for features that no CSV file has.
        required: features that every example must have, and what they hold ("whole numbers", "numbers" or "text"), as
            `required_by` finds them.
        slices: features by whose values the model is evaluated.

    Returns:
        What is no mistake and yet worth knowing, one sentence each.

    Raises:
        MorphError: the directory, a split's files or its examples are missing; a file or a row cannot be read; the
            label is not among the features, or of some row; a feature is not of the same type in all splits, or
            preprocessing_fn asks for one that is not there; a feature to slice by is not there or holds amounts; or the
            newest span is not the same for all splits.
    """
    if is_uri(data.path):
        return []
    directory = Path(data.path)
    if not directory.is_dir():
        raise MorphError(
            f"data.path: {directory} is not a directory. Expected the directory that holds your {data.format} files."
        )
    newest, contents = {}, {}
    for split, pattern in data.patterns.items():
        key = f"data.splits.{split}" if data.splits else "data.pattern" if data.pattern else "data.path"
        files, newest[split] = newest_files(directory, pattern)
        if not files:
            raise MorphError(f"{key}: no file matches {directory / pattern}. Check the pattern, and what is there.")
        found = contents[split] = _READERS[data.format](files, label, required or ())
        if not found.examples:
            raise MorphError(
                f"{key}: the {len(files)} file(s) that match {directory / pattern} hold no examples. Expected at least "
                "one in every split."
            )
        if label not in found.features:
            raise MorphError(
                f"label: {label!r} is not a feature of the examples in {directory / pattern}. They have: "
                f"{', '.join(sorted(found.features))}."
            )
        _check_required(found, required or {}, directory / pattern)
    if len(set(newest.values())) > 1:
        listed = ", ".join(f"{'-'.join(map(str, span))} of {split!r}" for split, span in newest.items())
        raise MorphError(
            f"data.splits: the newest spans are not the same: {listed}. Expected the newest files of every split to "
            "belong together; add those that are missing, or take away the span that is not complete."
        )
    _check_same_kinds(contents)
    _check_slices(contents, slices)
    if (
        data.format == "csv" and preprocessing_file is not None
    ):  # a header names all features; a record may leave some out
        check_features_read(Path(preprocessing_file), {name for found in contents.values() for name in found.features})
    remarks = [remark for found in contents.values() for remark in found.remarks]
    if len(remarks) > _MOST_REMARKS:
        remarks[_MOST_REMARKS:] = [f"So it is in {len(remarks) - _MOST_REMARKS} more columns."]
    return [*remarks, *_about_labels(contents, label), *_about_batches(data, contents, batch_sizes or {})]


def required_by(push_to: str) -> dict[str, str]:
    """What the model that was pushed last needs of every example: features and what they hold; none without a model.

    Args:
        push_to: the directory that models are pushed to.
    """
    schemas = [] if is_uri(push_to) else [*Path(push_to).glob("*/assets.extra/schema.pbtxt")]
    numbered = {int(path.parents[1].name): path for path in schemas if path.parents[1].name.isdecimal()}
    if not numbered:
        return {}
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    newest = numbered[max(numbered)]
    try:
        schema = text_format.Parse(newest.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise MorphError(
            f"push_to: the schema of the model that was pushed last, {newest}, cannot be read: {error}. Restore it, or "
            "take that version away, so that the one before it counts."
        ) from error
    kinds = {schema_pb2.INT: WHOLE, schema_pb2.FLOAT: NUMBERS, schema_pb2.BYTES: TEXT}
    # Those with a shape are parsed densely, and cannot be left out; others arrive as sparse tensors.
    return {
        feature.name: kinds[feature.type]
        for feature in schema.feature
        if feature.HasField("shape") and feature.presence.min_fraction == 1 and feature.type in kinds
    }


def _check_required(found: Contents, required: Mapping[str, str], files: Path) -> None:
    """Raises MorphError where the examples depart from what the pushed model was trained with."""
    for name, kind in required.items():
        if name not in found.features:
            raise MorphError(
                f"data: the examples in {files} have no feature {name!r}, which the model that was pushed last was "
                f"trained with ({kind}). They have: {', '.join(sorted(found.features))}. Add it, or search anew: "
                "morph-tfx run without --pipeline retrain."
            )
        if found.kinds.get(name, kind) != kind:
            remark = next((f" {remark}" for remark in found.remarks if f"column {name!r}" in remark), "")
            raise MorphError(
                f"data: feature {name!r} of the examples in {files} holds {found.kinds[name]}, but {kind} when the "
                f"model was trained that was pushed last.{remark} Expected the same type; in a CSV file a "
                "column of decimals is written with decimals throughout (1.0)."
            )


def _check_same_kinds(contents: Mapping[str, Contents]) -> None:
    """Raises MorphError where a feature is of another type in one split than in the other: TFX parses all alike."""
    (first, here), *others = contents.items()
    for split, there in others:
        for name, kind in here.kinds.items():
            other = there.kinds.get(name, kind)
            if other != kind:
                raise MorphError(
                    f"data.splits: feature {name!r} holds {kind} in {first!r}, but {other} in {split!r}. Expected one "
                    "type in all splits; in a CSV file a column of decimals is written with decimals throughout (1.0)."
                )


def _check_slices(contents: Mapping[str, Contents], slices: Sequence[str]) -> None:
    """Raises MorphError where the examples have no such feature, or one with a value of its own for each of them."""
    known = {name for found in contents.values() for name in found.features}
    kinds = {name: kind for found in contents.values() for name, kind in found.kinds.items()}
    for name in slices:
        if name not in known:
            raise MorphError(
                f"evaluate.slices: {name!r} is not a feature of the examples. They have: {', '.join(sorted(known))}."
            )
        if kinds.get(name) == NUMBERS:
            raise MorphError(
                f"evaluate.slices: feature {name!r} holds {NUMBERS}, and every different one would be a slice. "
                f"Expected text or {WHOLE}; add a feature that says which range a number is in."
            )


def _about_labels(contents: Mapping[str, Contents], label: str) -> list[str]:
    """Splits with one label only, and labels that are evaluated and never learned."""
    told = [
        f"All {found.examples} examples of split {split!r} have the same {label!r}, {next(iter(found.labels))!r}: "
        "nothing can be told apart there."
        for split, found in contents.items()
        if len(found.labels) == 1
    ]
    if {"train", "eval"} <= set(contents) and _are_classes(contents["train"], label):
        unknown = contents["eval"].labels - contents["train"].labels
        if unknown:
            named = ", ".join(map(str, sorted(unknown, key=str)[:5]))
            told.append(
                f"{len(unknown)} labels are in split 'eval' and not in 'train', so nothing learns them: {named}."
            )
    return told


def _are_classes(found: Contents, label: str) -> bool:
    """Whether labels look like classes, and not like numbers to be estimated."""
    most = {TEXT: MOST_LABELS, WHOLE: _MOST_NUMBERED_CLASSES}
    return len(found.labels) < most.get(found.kinds.get(label, ""), 0)


def _about_batches(data: DataConfig, contents: Mapping[str, Contents], batch_sizes: Mapping[str, int]) -> list[str]:
    """Batches that are larger than the split that is trained on."""
    whole = contents.get("train") or contents["all"]
    examples = whole.examples if data.eval_fraction is None else round(whole.examples * (1 - data.eval_fraction))
    return [
        f"{key} is {size}, and there are {'about ' if data.eval_fraction else ''}{examples} examples to train on: an "
        "epoch is a single step, and a search of few steps decides by little. Lower it, or train for more epochs."
        for key, size in batch_sizes.items()
        if size > examples
    ]
