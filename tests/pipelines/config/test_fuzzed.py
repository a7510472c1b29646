"""Whatever stands in a field of a configuration: it is taken, or refused with the field and its line."""

import copy
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morph_core import MorphError
from morph_tfx.pipelines.config import PipelineConfig, parse_config
from tests.pipelines.config.test_reading import everything_offered


def ways(values, way=()):
    """The way to each value of a configuration, sections and elements of lists included."""
    if way:
        yield way
    inside = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inside:
        yield from ways(value, (*way, key))


EVERYTHING = yaml.safe_load(everything_offered())
WAYS = list(ways(EVERYTHING))
NEEDED = {"name", "data", "module_file", "label", "target", "search", "retrain", "evaluate"}

WORDS = st.sampled_from(
    [
        *(
            "",
            "auto",
            "flops",
            "latency",
            "latency:",
            "latency:none.json",
            "fisher",
            "~",
            "gs://bucket/x",
            "{SPAN}",
            "{",
        ),
        *("*", "64Gi", "-1", "1e999", "0 3 * * *", "http://", "\x00", "\ud800", "../../etc", "a" * 500, "2024-13-45"),
        *("!!binary x", "ü\n\t"),
    ]
)
NUMBERS = st.sampled_from([0, -1, 1, 2, 0.5, 1.5, 1e308, -1e308, 5e-324, 2**31, 2**63 - 1, 2**63, 10**400])
ODD = st.one_of(st.dates(), st.binary(max_size=4))
SCALARS = st.one_of(st.none(), st.booleans(), WORDS, NUMBERS, st.integers(), st.floats(), st.text(max_size=8), ODD)
KEYS = st.one_of(WORDS, st.text(max_size=5), st.integers(), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


OF_VALUES = ("not valid YAML", "cannot be read as", "no text", "larger than a computer counts")
"""What is said of values that stand for nothing in any field; they are told by line and column."""


def with_value(way, value) -> str:
    """The configuration as text, with one value replaced."""
    # Small, because YAML is slow; and a device is measured for that cost alone.
    also = {way[0], "cost"} if way[0] == "calibrate" else {way[0]} - {"cost"}
    values = copy.deepcopy({key: part for key, part in EVERYTHING.items() if key in NEEDED | also})
    if way[0] == "cost":
        values["cost"] = "flops"
    section = values
    for key in way[:-1]:
        section = section[key]
    section[way[-1]] = value
    return yaml.safe_dump(values, sort_keys=False)


def check(text: str, told: str, is_nothing: bool) -> None:
    try:
        config = parse_config(text, "config.yaml", "/base")
    except MorphError as error:
        message = str(error)
        assert message.startswith("config.yaml"), message
        assert re.search(r"line \d+", message) or is_nothing, message
        assert told in message or any(words in message for words in OF_VALUES), message
        assert all(len(line) < 1500 for line in message.splitlines()), message
    else:
        assert isinstance(config, PipelineConfig)


def try_one(way, value) -> None:
    # Messages name keys; an element of a list is told by the key of the list, and a section by what it lacks.
    named = [str(key) for key in way if isinstance(key, str)]
    check(with_value(way, value), named[0], value is None)  # what is not there has no line


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(WAYS), VALUES)
def test_a_value_is_taken_or_refused_with_its_field_and_line(way, value):
    try_one(way, value)


@pytest.mark.thorough
@settings(max_examples=6000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(WAYS), VALUES)
def test_many_values_are_taken_or_refused_with_their_field_and_line(way, value):
    try_one(way, value)


def test_nothing_and_a_mapping_and_a_list_in_the_place_of_each_field():
    for way in WAYS:
        for value in (None, {"a": 1}, [1, [2]], ""):
            try_one(way, value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(alphabet=st.sampled_from("ab: -[]{}&*!|>'\"#%@`\n\t?,<\\0"), max_size=60))
def test_any_text_is_refused_in_one_message(text):
    with pytest.raises(MorphError, match=r"^config\.yaml"):
        parse_config(text, "config.yaml", "/base")
