"""What MorphTrainer reads, it does not keep: memory does not grow with the rows."""

import re
import subprocess
import sys

import pytest

ROWS = 200_000
SIZE = ROWS * 256  # bytes of their numbers, where somebody keeps them


def looks(*options: str) -> list[float]:
    """The resident memory of a process, in bytes: before it reads anything, and after each tenth of the rows."""
    command = [sys.executable, "-m", "tests.faults.many_rows", "--rows", str(ROWS), *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [float(megabytes) * 1e6 for megabytes in re.findall(r"[\d,]+ rows: ([\d.]+) MB", said)]
    assert len(found) == 11
    return found


@pytest.mark.slow
def test_memory_is_flat_over_the_rows_of_a_training():
    """TFX's reader shuffles in a buffer of ten thousand rows, which is full before the second tenth ends."""
    before, _, first, *_, last = looks()
    assert last - first < 0.1 * SIZE
    assert last - before < 0.6 * SIZE, "the pass over the labels keeps nothing either"


@pytest.mark.slow
def test_the_measure_sees_an_input_fn_that_keeps_what_it_reads():
    before, *_, last = looks("--cached")
    assert last - before > 0.9 * SIZE
