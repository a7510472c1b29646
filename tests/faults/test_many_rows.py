"""What MorphTrainer reads, it does not keep: memory does not grow with the rows."""

import re
import subprocess
import sys

import pytest

ROWS, WIDTH = 200_000, 64  # 51 MB as numbers, of which nine tenths come after the first look


def growth(*options: str) -> float:
    """Bytes for each row by which a process grew while it read the last eight tenths of the rows."""
    command = [sys.executable, "-m", "tests.faults.many_rows", "--rows", str(ROWS), *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    looks = {
        int(rows.replace(",", "")): float(mb) * 1e6 for rows, mb in re.findall(r"([\d,]+) rows: ([\d.]+) MB", said)
    }
    assert len(looks) == 11
    return (looks[ROWS] - looks[ROWS // 5]) / (ROWS - ROWS // 5)


@pytest.mark.thorough
def test_memory_is_flat_over_the_rows_of_a_training():
    """The first two tenths fill the buffer that shuffles, of ten thousand rows, and the allocator's own."""
    assert growth() < 0.2 * 4 * WIDTH


@pytest.mark.slow
def test_the_measure_sees_an_input_fn_that_keeps_what_it_reads():
    assert growth("--cached") > 0.8 * 4 * WIDTH
