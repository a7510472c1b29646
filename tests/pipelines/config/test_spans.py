"""Spans in file patterns: which files are the newest, as TFX itself answers it, and which patterns are refused."""

import datetime
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfx import v1 as tfx
from tfx.components.example_gen import utils as example_gen

from morph_core import MorphError
from morph_tfx.pipelines.config.spans import newest_files, placeholders


def write(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x,label\n1,2\n")


def of_tfx(directory: Path, pattern: str) -> tuple[int, int | None, str]:
    """Span, version and the pattern that is left, as ExampleGen's driver finds them."""
    split = tfx.proto.Input.Split(name="all", pattern=pattern)
    _, span, version = example_gen.calculate_splits_fingerprint_span_and_version(str(directory), [split])
    return span, version, split.pattern


@settings(max_examples=25, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 120), st.integers(0, 12)), min_size=1, max_size=6), st.booleans())
def test_the_newest_span_and_version_are_those_that_tfx_takes(spans, padded):
    pattern = "span-{SPAN:3}/v{VERSION:2}/*.csv" if padded else "span-{SPAN}/v{VERSION}/*.csv"
    name = "span-{:03}/v{:02}/{}.csv" if padded else "span-{}/v{}/{}.csv"
    with tempfile.TemporaryDirectory() as directory:
        for span, version in spans:
            write(Path(directory), name.format(span, version, "a"), name.format(span, version, "b"))
        files, newest = newest_files(Path(directory), pattern)
        span, version, left = of_tfx(Path(directory), pattern)
        assert newest == (span, version) == max(spans)
        assert files == sorted(Path(directory).glob(left))
        assert len(files) == 2


@settings(max_examples=25, deadline=None)
@given(st.sets(st.dates(datetime.date(1990, 1, 1), datetime.date(2060, 1, 1)), min_size=1, max_size=6))
def test_the_newest_day_is_that_which_tfx_takes(days):
    pattern = "{DD}.{MM}.{YYYY}/*"
    with tempfile.TemporaryDirectory() as directory:
        for day in days:
            write(Path(directory), f"{day:%d.%m.%Y}/a")
        [file], newest = newest_files(Path(directory), pattern)
        span, _, left = of_tfx(Path(directory), pattern)
        assert datetime.date(*newest) == max(days) == datetime.date(1970, 1, 1) + datetime.timedelta(days=span)
        assert file.parent.name == Path(left).parent.name


def test_a_pattern_without_placeholders_means_all_its_files(tmp_path):
    write(tmp_path, "a/1.csv", "a/2.csv", "b/3.csv")
    files, newest = newest_files(tmp_path, "a/*")
    assert ([file.name for file in files], newest) == (["1.csv", "2.csv"], ())


def test_files_that_match_nothing_are_none(tmp_path):
    assert newest_files(tmp_path, "span-{SPAN}/*") == ([], ())


def test_a_file_without_a_number_where_one_should_be_is_named(tmp_path):
    write(tmp_path, "span-1/a", "span-old/a")
    with pytest.raises(MorphError, match=r"span-old/a is among the files .* no digits where \{SPAN\} stand"):
        newest_files(tmp_path, "span-{SPAN}/*")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("train/*", []),
        ("{SPAN}/*", ["SPAN"]),
        ("{SPAN:4}/v{VERSION:2}/*", ["SPAN", "VERSION"]),
        ("{YYYY}-{MM}-{DD}/*", ["YYYY", "MM", "DD"]),
    ],
)
def test_placeholders_are_read_from_a_pattern(pattern, names):
    assert placeholders("train", pattern) == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{DATE}/*", r"unknown placeholder \{DATE\}\. Expected \{SPAN\} or \{YYYY\}, \{MM\} and \{DD\}"),
        ("{span}/*", r"unknown placeholder \{span\}"),
        ("{SPAN:}/*", r"unknown placeholder \{SPAN:\}.*a width such as \{SPAN:4\}"),
        ("{SPAN:x}/*", r"unknown placeholder \{SPAN:x\}"),
        ("{MM:2}/*", r"unknown placeholder \{MM:2\}"),
        ("{SPAN/*", "a brace without its partner"),
        ("{SPAN}/{SPAN}", "a placeholder twice"),
        ("{YYYY}-{MM}/*", r"tells no one date: expected all of \{YYYY\}, \{MM\} and \{DD\}"),
        ("{SPAN}/{YYYY}-{MM}-{DD}/*", r"tells no one date: .*without \{SPAN\}"),
        ("v{VERSION}/*", r"has a \{VERSION\} of nothing: add \{SPAN\} or a date"),
    ],
)
def test_a_pattern_that_names_no_span_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message) as caught:
        placeholders("train", pattern)
    assert "the pattern of 'train', " in str(caught.value)
