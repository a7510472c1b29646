"""Whole local runs on a disk that is too small, and a little larger each time, until one comes to its end; prints JSON.

    python -m tests.faults.run_on_small_disk DISK

A program of its own, run by test_full_disk.py on a small disk. TFX is imported once.
"""

import json
import shutil
import sys
from pathlib import Path

from morph_core import MorphError
from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.local.runner import run_pipeline
from tests.faults import small_pipeline
from tests.faults.small_disk import resize
from tests.faults.whole_artifacts import faults_of_live, faults_of_pushed

FIRST_KB, GROWTH, AMPLE_KB = 120, 1.5, 2000


def main() -> None:
    disk = Path(sys.argv[1])
    config = load_config(small_pipeline.prepare(disk / "run"))
    kilobytes, attempts, message = FIRST_KB, [], ""
    resize(disk, kilobytes)
    while message is not None:
        steps, message = [], None
        try:
            run_pipeline(config, say=lambda line, steps=steps: steps.append(line) if line.startswith("[") else None)
        except MorphError as error:
            message = str(error)
        outcome = Path(config.pipeline_root) / "_outcome" / "morph.json"
        known = json.loads(outcome.read_text()) if outcome.exists() and outcome.stat().st_size else {}
        at = kilobytes
        resize(disk, at + AMPLE_KB)  # the store of ML Metadata cannot be opened on a disk that is full
        attempts.append(
            {
                "kilobytes": at,
                "message": message,
                "step": steps[-1].split()[1] if steps else None,
                "outcome": [known.get("status"), known.get("reasons")],
                "faults": [*faults_of_live(Path(config.metadata)), *faults_of_pushed(Path(config.push_to))],
            }
        )
        kilobytes = max(int(at * GROWTH), shutil.disk_usage(disk).used // 1024 + 16)
        resize(disk, kilobytes)
    print("\n" + json.dumps(attempts))


main()
