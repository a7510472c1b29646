"""Where the examples are: what the section means, and what is refused."""

import pytest

from tests.pipelines.config.sample import config_of, expect_refusal


def test_patterns_of_spans_are_kept_as_they_are():
    config = config_of('data: {format: csv, path: d, eval_fraction: 0.2, pattern: "day-{YYYY}-{MM}-{DD}/*"}')
    assert config.data.patterns == {"all": "day-{YYYY}-{MM}-{DD}/*"}
    assert config.data.has_spans
    assert not config_of().data.has_spans


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("data: {format: parquet, path: d, eval_fraction: 0.2}",), ["data.format: expected 'tfrecord' or 'csv'"]),
        (("data: {format: csv, path: data}",), ["data: exactly one of 'splits'", "got neither"]),
        (("data: {format: csv, path: d, splits: {train: a}}",), ["data: 'splits' names 'train'", "'train' and 'eval'"]),
        (
            ('data: {format: csv, path: d, splits: {train: "t-{SPN}", eval: "e-{SPN}"}}',),
            ["data: the pattern of 'train', t-{SPN}, has an unknown placeholder {SPN}"],
        ),
        (
            ('data: {format: csv, path: d, splits: {train: "t-{SPAN}", eval: "e-{YYYY}{MM}{DD}"}}',),
            ["data: the splits have different placeholders (train: {SPAN}; eval: {YYYY}, {MM}, {DD})"],
        ),
        (("data: {format: csv, path: d, splits: {train: t, eval: e}, pattern: x}",), ["'pattern' goes with 'eval_fr"]),
        (("data: {format: csv, path: d, eval_fraction: 1.5}",), ["data.eval_fraction: expected less than 1, got 1.5"]),
    ],
)
def test_data_that_cannot_be_read_or_split_is_refused(changes, parts):
    expect_refusal(changes, parts)
