"""What a person sees of a running training, on a terminal and in a log file."""

import io

import keras
import numpy as np
import pytest

from morph_tfx.components.training import progress
from morph_tfx.components.training.progress import ProgressCallback


class Terminal(io.StringIO):
    def isatty(self):
        return True


class CostLogs(keras.callbacks.Callback):
    """Adds what StructureSearch logs."""

    def on_train_batch_end(self, batch, logs=None):
        logs.update(cost=0.75, target=0.5, alive=12)


def fit(stream, **arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    callback = ProgressCallback("search", epochs=2, steps_per_epoch=5, stream=stream, **arguments)
    data = np.ones((10, 2), np.float32), np.ones((10, 1), np.float32)
    callbacks = [CostLogs(), callback]
    model.fit(*data, batch_size=2, epochs=2, validation_data=data, callbacks=callbacks, verbose=0)
    return stream.getvalue()


def test_a_log_file_gets_plain_lines_with_step_cost_target_and_metrics(monkeypatch):
    monkeypatch.setattr(progress, "_SHORTEST_PAUSE_S", 0.0)
    lines = fit(io.StringIO(), cycle="1/2", scales={"flops": 1.0}).splitlines()
    assert lines[0] == "[cycle 1/2, search] starts: 10 steps in 2 epochs"
    assert lines[1].startswith("[cycle 1/2, search] step 1/10  flops 75.0% of the seed (target 50.0% now)  ")
    assert lines[1].endswith("  12 channels")
    assert "loss" in lines[1]
    assert "mae" in lines[1]
    assert any(" left  flops" in line for line in lines)
    assert any("epoch 1/2  on the evaluation split: loss" in line for line in lines)
    assert "\x1b" not in "".join(lines)
    assert lines[-1].startswith("[cycle 1/2, search] done: 10 steps in 0:0")


def test_a_fast_run_does_not_flood_the_log():
    lines = fit(io.StringIO()).splitlines()
    steps = [line for line in lines if "step " in line]
    assert steps[-1].startswith("[search] step 10/10")
    assert len(steps) <= 4


def test_the_time_of_a_run_is_known_when_it_is_over_and_ran_in_one_process():
    callback = ProgressCallback("search", epochs=2, steps_per_epoch=5, stream=io.StringIO())
    assert callback.seconds is None
    for first_epoch, is_known in ((0, True), (1, False)):
        callback = ProgressCallback("search", epochs=2, steps_per_epoch=5, stream=io.StringIO())
        callback.on_train_begin()
        for epoch in range(first_epoch, 2):
            callback.on_epoch_begin(epoch)
        callback.on_train_end()
        assert (callback.seconds is not None) == is_known


def test_costs_of_a_later_cycle_are_shown_relative_to_the_original_seed():
    shown = fit(io.StringIO(), scales={"params": 0.4})
    assert "params 30.0% of the seed (target 20.0% now)" in shown


def test_a_terminal_gets_one_live_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = fit(Terminal(), cycle="2/2", scales={"flops": 1.0})
    assert "10/10" in shown
    assert "cycle 2/2, search" in shown
    assert "flops 75" in shown
    assert "\x1b[" in shown


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (61, "1:01"), (3723, "1:02:03")])
def test_durations_read_like_a_clock(seconds, text):
    assert progress._duration(seconds) == text
