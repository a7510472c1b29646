"""Starts the programs of this folder, and reads what they print in the end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.small_disk import with_disk

ROOT = Path(__file__).parents[2]


def on_disk(module: str, disk: Path, kilobytes: int) -> Any:
    """What a module of this folder prints in its last line, as JSON, when it is run on a disk of that size."""
    command = with_disk(disk, kilobytes, [sys.executable, "-m", f"tests.faults.{module}", str(disk)])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Exception ignored" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])
