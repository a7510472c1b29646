"""Nights in a row with `keep`: the disk holds no more after the third than after the second."""

from pathlib import Path

import pytest

from morph_tfx.components.artifacts.saved_model import fault_of
from tests.faults.nights import nights
from tests.faults.small_task import write_task

pytestmark = pytest.mark.slow


def test_the_disk_is_bounded_and_what_is_kept_can_be_served_and_retrained(tmp_path):
    config = write_task(tmp_path, keep=1)
    search, first, second, third = nights(config, tmp_path, 3)
    assert search.files < first.files < second.files == third.files
    assert third.disk < 1.1 * second.disk
    # Those of the search, of the last night, and what the last night was compared with.
    assert third.pushed == (search.pushed[0], second.pushed[-1], third.pushed[-1])
    assert first.pushed[-1] not in third.pushed
    assert [fault_of(str(Path(config.push_to) / str(version))) for version in third.pushed] == [None] * 3
