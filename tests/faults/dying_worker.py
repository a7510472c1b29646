"""A Beam pipeline one of whose workers is killed, as the kernel does when memory runs out; prints what it raises.

    python -m tests.faults.dying_worker STAGE       "computing", or "starting": before it has asked for anything to do

A program of its own, run by test_memory.py, since it may wait for ever.
"""

import os
import signal
import sys
import threading
import time
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from morph_tfx.pipelines.graph.workers import watch_workers
from tests.e2e.workers import workers_of


def kill_first() -> None:
    """Kills the first worker of this process, as soon as it is there."""
    while not (found := workers_of(os.getpid())):
        time.sleep(0.02)
    os.kill(min(found), signal.SIGKILL)


def main() -> None:
    watch_workers()
    if sys.argv[1] == "starting":
        threading.Thread(target=kill_first, daemon=True).start()
        work: Any = str
    else:
        work = signal.raise_signal
    options = PipelineOptions(["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    try:
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | beam.Create([int(signal.SIGKILL)]) | beam.Map(work)
    except RuntimeError as error:
        print(f"\n{error}")


main()
