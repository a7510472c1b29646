"""Cron expressions: what people write, and what Kubeflow makes of what it gets."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morph_core import MorphError
from morph_tfx.pipelines.kubeflow import cron
from morph_tfx.pipelines.kubeflow.cron import kubeflow_cron, people_cron


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15 * * * *", "0 */15 * * * *"),
        ("30 6 1,15 jan-mar MON-FRI", "0 30 6 1,15 jan-mar MON-FRI"),
        ("0 0 3 * * *", "0 0 3 * * *"),  # Kubeflow's own six fields
        ("10 0 3 * * 7", "10 0 3 * * 0"),
        ("@daily", "0 0 0 * * *"),
        ("@Weekly", "0 0 0 * * 0"),
        ("0 3 * * 7", "0 0 3 * * 0"),  # Kubeflow knows Sunday as 0 only
        ("0 3 * * 5-7", "0 0 3 * * 5,6,0"),
        ("0 3 * * 1-7/2", "0 0 3 * * 1,3,5,0"),
        ("0 3 * * 0,7", "0 0 3 * * 0"),
        ("0 3 29 2 *", "0 0 3 29 2 *"),
        ("0 3 31 2 mon", "0 0 3 31 2 mon"),  # the 31st never comes, Mondays do
    ],
)
def test_five_fields_become_six(written, sent):
    assert kubeflow_cron(written) == sent


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "expected five fields"),
        ("0 3 * *", "expected five fields"),
        ("0 0 3 * * * 2030", "expected five fields"),
        ("@every 1h", "expected five fields"),
        ("60 3 * * *", "'60' in '60 3 * * *' is no minute: expected *, 0 to 59"),
        ("0 24 * * *", "'24' in '0 24 * * *' is no hour"),
        ("0 3 0 * *", "is no day of the month: expected *, 1 to 31"),
        ("0 3 * 13 *", "is no month"),
        ("0 3 * * 8", "is no day of the week"),
        ("0 3 * * fri-mon", "is no day of the week"),  # Kubeflow's ranges do not wrap
        ("0 3 L * *", "is no day of the month"),
        ("0 3 * * mon#2", "is no day of the week"),
        ("0 */0 * * *", "is no hour"),
        ("0 3,,4 * * *", "is no hour"),
        ("0 *-4 * * *", "is no hour"),
        ("0 3 30 feb *", "never comes"),
        ("0 3 31 4,6,9,11 *", "never comes"),
    ],
)
def test_what_is_no_expression_is_refused_by_its_field(written, said):
    with pytest.raises(MorphError) as refused:
        kubeflow_cron(written)
    assert said in str(refused.value)


def test_the_examples_are_true():
    assert doctest.testmod(cron) == (0, 4)


NUMBERS = st.tuples(st.integers(0, 59), st.integers(0, 23), st.integers(1, 28), st.integers(1, 12), st.integers(0, 7))


@given(NUMBERS, st.sets(st.integers(0, 4)))
def test_the_way_back_gives_what_was_written_but_for_a_sunday_of_7(numbers, stars):
    fields = ["*" if place in stars else str(number) for place, number in enumerate(numbers)]
    sent = kubeflow_cron(" ".join(fields))
    assert kubeflow_cron(sent) == sent
    fields[4] = "0" if fields[4] == "7" else fields[4]
    assert people_cron(sent) == " ".join(fields)


@given(st.integers(0, 7), st.integers(0, 7), st.integers(1, 8))
def test_a_range_of_weekdays_keeps_its_days(first, last, step):
    if first > last:
        return
    sent = kubeflow_cron(f"0 0 * * {first}-{last}/{step}").split()[5]
    days = set()
    for item in sent.split(","):
        span, _, by = item.partition("/")
        low, _, high = span.partition("-")
        days |= set(range(int(low), int(high or low) + 1, int(by or 1)))
    assert max(days) <= 6
    assert days == {day % 7 for day in range(first, last + 1, step)}
