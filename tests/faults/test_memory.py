"""A worker process that the system kills ends the step that waits for it, instead of being waited for."""

import subprocess
import sys

import pytest

from tests.faults.programs import ROOT

AT_MOST_S = 120  # two workers that import Beam, on a busy machine


@pytest.mark.thorough
@pytest.mark.parametrize("stage", ["computing", "starting"])
def test_a_beam_worker_that_is_killed_ends_its_pipeline_with_an_error(stage):
    command = [sys.executable, "-m", "tests.faults.dying_worker", stage]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=AT_MOST_S)
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.splitlines()[-1]
    assert last.startswith("A worker process of Beam died: Worker subprocess exited with return code "), done.stdout
