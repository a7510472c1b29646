"""How a run speaks: its own lines are heard because the libraries below it are not, and its figures are for people."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable

Say = Callable[[str], None]
"""Receives one line of what a person watching should know."""


def quieten() -> None:
    """Silences what TensorFlow, TFX and Beam log, up to warnings. Has its full effect before TensorFlow is imported."""
    # 3 drops errors too: on a machine without a GPU TensorFlow logs several about it. What fails raises as well.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # of processes that are started from here: Beam's workers
    logging.getLogger().setLevel(logging.ERROR)
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    # TFX's launcher logs this before it raises; the exception says it better.
    logging.getLogger("absl").addFilter(_is_not_redundant)


def _is_not_redundant(record: logging.LogRecord) -> bool:
    return record.msg != "Execution %d failed."


def duration(seconds: float) -> str:
    """Seconds for people: '3.2 s', '2 min 05 s'."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def cost_title(cost: str) -> str:
    """A cost's name for people: 'FLOPs (multiply-add = 2)', 'activation memory'."""
    return {"flops": "FLOPs (multiply-add = 2)", "params": "parameters"}.get(cost, cost.replace("_", " "))


def change(seed: float, now: float) -> str:
    """How a cost has changed, for people: '-48.3%'; nothing where the seed's is 0."""
    return f"{now / seed - 1:+.1%}" if seed else ""
