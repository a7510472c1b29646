"""The widths of layers over time, as curves in TensorBoard beside those that Keras writes."""

import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from morph_core import StructureSearch

WIDTHS = "widths"
"""The run below the directory of logs that has these curves; a layer's is called `width/LAYER`."""


class WidthCurves(keras.callbacks.Callback):
    """Writes how many channels of each layer a search has open; nothing of a network whose widths stay as they are.

    Args:
        log_dir: of TensorBoard.
        every: training steps between two points.
        steps_per_epoch: of the run.
    """

    def __init__(self, log_dir: str, every: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._directory = os.path.join(log_dir, WIDTHS)
        self._every, self._steps_per_epoch = every, steps_per_epoch
        self._writer: Any = None
        self._before = self._step = self._written_at = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._before = epoch * self._steps_per_epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._step = self._before + batch + 1
        if isinstance(self.model, StructureSearch) and self._step - self._written_at >= self._every:
            self._write(self.model.widths)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if isinstance(self.model, StructureSearch) and self._step > self._written_at:
            self._write(self.model.widths)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, widths: Mapping[str, int]) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._directory)
        self._written_at = self._step
        with self._writer.as_default(step=self._step):
            for layer, width in widths.items():
                tf.summary.scalar(f"width/{layer}", width)
        self._writer.flush()
