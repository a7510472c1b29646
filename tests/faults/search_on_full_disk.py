"""A search whose disk is full after some epochs, then once more with room; prints what happened as JSON.

    python -m tests.faults.search_on_full_disk DISK

A program of its own, run by test_full_disk.py on a small disk.
"""

import contextlib
import json
import sys
from pathlib import Path

import keras

from morph_core import MorphError
from tests.core.search.killed_run import searched

FULL_AFTER = 3  # epochs


class Fill(keras.callbacks.Callback):
    """Fills a disk before an epoch begins."""

    def __init__(self, file: Path):
        super().__init__()
        self._file = file

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == FULL_AFTER:
            fill(self._file)


def fill(file: Path) -> None:
    """Writes zeros until nothing fits any more."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as open_file:
        while True:
            open_file.write(bytes(1024))


def main() -> None:
    disk = Path(sys.argv[1])
    checkpoints, filler = disk / "checkpoints", disk / "filler"
    message = None
    try:
        searched(checkpoints, callbacks=[Fill(filler)])
    except MorphError as error:
        message = str(error)
    left = sorted(path.name for path in checkpoints.iterdir())
    filler.unlink()
    again, history = searched(checkpoints, seed=7)
    undisturbed, _ = searched(None)
    same = again.structure() == undisturbed.structure()
    print(json.dumps({"message": message, "left": left, "epochs": len(history.epoch), "same": same}))


main()
