"""Of data that grows by spans, the newest is looked at before anything runs, and it has to be complete."""

from pathlib import Path

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config import DataConfig
from morph_tfx.pipelines.local.examples import check_examples


def write(directory: Path, *names: str, text: str = "x,label\n1,2\n") -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def data(tmp_path):
    write(tmp_path, "day-1/train/a", "day-1/eval/a", "day-2/train/a", "day-2/eval/a")
    return DataConfig(
        format="csv", path=str(tmp_path), splits={"train": "day-{SPAN}/train/*", "eval": "day-{SPAN}/eval/*"}
    )


def test_the_newest_span_is_looked_at_before_anything_runs(data, tmp_path):
    check_examples(data, "label")
    write(tmp_path, "day-2/eval/a", text="x,digit\n1,2\n")
    with pytest.raises(MorphError, match=r"label: 'label' is not a feature .* They have: digit, x"):
        check_examples(data, "label")


def test_a_span_that_is_not_complete_is_named(data, tmp_path):
    write(tmp_path, "day-10/train/a")
    with pytest.raises(MorphError, match=r"newest spans are not the same: 10 of 'train', 2 of 'eval'"):
        check_examples(data, "label")


def test_no_span_at_all_is_named(data, tmp_path):
    empty = data.model_copy(update={"path": str(tmp_path / "day-1")})
    with pytest.raises(MorphError, match=r"data.splits.train: no file matches .*day-\{SPAN\}/train/\*"):
        check_examples(empty, "label")


def test_a_fraction_is_taken_of_the_newest_span(tmp_path):
    write(tmp_path, "day-1/a", "day-2/a")
    by_hash = {"format": "csv", "path": str(tmp_path), "eval_fraction": 0.2}
    check_examples(DataConfig(**by_hash, pattern="day-{SPAN}/*"), "label")
    with pytest.raises(MorphError, match=r"data.pattern: no file matches .*week-\{SPAN\}"):
        check_examples(DataConfig(**by_hash, pattern="week-{SPAN}/*"), "label")
