"""Where nothing can be written is told before a run begins."""

import re

from tests.faults.programs import on_disk


def test_a_disk_that_is_mounted_read_only_is_named_before_anything_is_loaded(mountable, tmp_path):
    found = on_disk("run_on_read_only_disk", tmp_path, kilobytes=256)
    place = re.escape(f"pipeline_root: nothing can be written to {tmp_path}/run: its file system is mounted read-only.")
    assert re.fullmatch(rf"morph-tfx: {place} Mount it for writing, or name another place\.\n", found["said"])
    assert found["code"] == 2
    assert found["there"] == ["config.yaml", "data", "module.py"]
    assert found["loaded"] == []
