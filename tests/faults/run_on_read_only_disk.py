"""Starts a local run whose directory is on a disk that was mounted read-only; prints what is said, as JSON.

    python -m tests.faults.run_on_read_only_disk DISK

A program of its own, run by test_read_only.py on a small disk.
"""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from morph_tfx.pipelines.commands.cli import cli
from tests.faults import small_pipeline


def main() -> None:
    disk = Path(sys.argv[1])
    config = small_pipeline.prepare(disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = CliRunner().invoke(cli, ["run", "--config", str(config)])
    loaded = sorted({"keras", "tensorflow", "tfx"} & set(sys.modules))
    there = sorted(path.name for path in config.parent.iterdir())
    print(json.dumps({"said": done.output, "code": done.exit_code, "loaded": loaded, "there": there}))


main()
