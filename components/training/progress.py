"""Progress for a person who watches a run: which step of which cycle, the cost against its target, and the time left.

On a terminal it is one live line; elsewhere (a file, a container's log) the same as plain lines at sensible intervals.
The values of a step are fetched from the device only when they are shown, so that watching costs the training nothing.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import keras
from rich.console import Console
from rich.live import Live
from rich.text import Text

from morph_core import StructureSearch

# A plain line is due after a tenth of the steps, or after this long; never twice within the shorter time.
_LONGEST_SILENCE_S = 30.0
_SHORTEST_PAUSE_S = 1.0
_REDRAW_S = 0.2
_BAR_WIDTH = 10


class ProgressCallback(keras.callbacks.Callback):
    """Shows how far a training run is.

    Args:
        task: what runs, such as "search" or "retrain".
        epochs: of the run.
        steps_per_epoch: training steps of each.
        cycle: such as "1/2"; empty when there is one only.
        scales: for each cost that is searched by, what one unit in the logs is as a fraction of the original seed's
            cost; below 1 when the searched network is itself smaller than the seed.
        then: what a run that begins as a search goes on as, once its network is cut; empty when it stays a search.
        stream: where to write; standard output by default.

    Attributes:
        seconds: that the whole run took; None until it is over, and where an earlier process ran a part of it.
    """

    def __init__(
        self,
        task: str,
        epochs: int,
        steps_per_epoch: int,
        cycle: str = "",
        scales: Mapping[str, float] | None = None,
        then: str = "",
        stream: TextIO | None = None,
    ):
        super().__init__()
        prefix = f"cycle {cycle}, " if cycle else ""
        self._title = f"{prefix}{task}"
        self._next_title = f"{prefix}{then}" if then else ""
        self._scales = dict(scales or {})
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._steps = epochs * steps_per_epoch
        self._stream = stream if stream is not None else sys.stdout
        self._done = 0
        self._epoch: int | None = None
        self._bar: Live | None = None
        self._is_whole = True
        self._incidents_told = 0
        self.seconds: float | None = None

    def set_model(self, model: keras.Model) -> None:
        before = self.model
        super().set_model(model)
        if isinstance(model, StructureSearch):
            if before is not None and before is not model:
                self._print(f"the network is narrowed: {model.seed.count_params():,} parameters are left")
        elif self._next_title:
            self._print(f"the network is cut: {model.count_params():,} parameters are left")
            self._title, self._next_title = self._next_title, ""

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._start = self._shown_at = time.monotonic()
        self._first_step_at: float | None = None
        self._shown_tenth = 0
        if self._stream.isatty():
            self._bar = Live(self._line(""), console=Console(file=self._stream), refresh_per_second=1 / _REDRAW_S)
            self._bar.start()
        else:
            self._print(f"starts: {self._steps} steps in {self._epochs} epochs")

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._epoch is None and epoch:
            self._continue_after(epoch)
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._tell_incidents()
        self._done = (self._epoch or 0) * self._steps_per_epoch + batch + 1
        now = time.monotonic()
        if self._first_step_at is None:  # the first step traces and compiles; it says nothing about the others
            self._first_step_at, self._first_done = now, self._done
        if self._bar is not None:
            if now - self._shown_at >= _REDRAW_S or self._done == self._steps:
                self._shown_at = now
                self._bar.update(self._line(self._values(logs, now)))
            return
        tenth, silence = 10 * self._done // self._steps, now - self._shown_at
        due = silence >= _LONGEST_SILENCE_S or (tenth > self._shown_tenth and silence >= _SHORTEST_PAUSE_S)
        if due or self._done == self._steps:
            self._shown_at, self._shown_tenth = now, tenth
            self._print(f"step {self._done}/{self._steps}  {self._values(logs, now)}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._tell_incidents()
        validated = {name: value for name, value in (logs or {}).items() if name.startswith("val_")}
        if validated:
            metrics = _metrics({name.removeprefix("val_"): value for name, value in validated.items()})
            self._print(f"epoch {epoch + 1}/{self._epochs}  on the evaluation split: {metrics}")

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._epoch is None:
            self._continue_after(self._epochs)
        self.close()
        seconds = time.monotonic() - self._start
        self.seconds = seconds if self._is_whole else None
        self._print(f"done: {self._done} steps in {_duration(seconds)}")

    def close(self) -> None:
        """Gives the terminal back, also after a failure."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _tell_incidents(self) -> None:
        """What went wrong in a search since the last time, and what it has done about it."""
        incidents = getattr(self.model, "incidents", ())
        for incident in incidents[self._incidents_told :]:
            self._print(incident)
        self._incidents_told = max(self._incidents_told, len(incidents))

    def _continue_after(self, epochs: int) -> None:
        """Says that an earlier process has trained so far; its checkpoint was restored."""
        self._done, self._is_whole = epochs * self._steps_per_epoch, False
        self._print(f"continuing after epoch {epochs} of {self._epochs}")

    def _values(self, logs: Mapping[str, Any] | None, now: float) -> str:
        logs = logs or {}
        parts = [self._time_left(now)]
        several = {name: logs[f"cost_{name}"] for name in self._scales if f"cost_{name}" in logs}
        if several:
            shares = ", ".join(f"{name} {self._scales[name] * float(cost):.1%}" for name, cost in several.items())
            parts.append(f"{shares} of the seed")
        elif "cost" in logs:
            name, scale = next(iter(self._scales.items()), ("cost", 1.0))
            goal = logs.get("target")
            scheduled = "" if goal is None or float(goal) != float(goal) else f" (target {scale * float(goal):.1%} now)"
            parts.append(f"{name} {scale * float(logs['cost']):.1%} of the seed{scheduled}")
        told = {"cost", "target", "alive", *(f"cost_{name}" for name in several)}
        parts.append(_metrics({name: value for name, value in logs.items() if name not in told}))
        if "alive" in logs:
            parts.append(f"{int(logs['alive'])} channels")
        return "  ".join(part for part in parts if part)

    def _line(self, values: str) -> Text:
        """The live line; what does not fit the terminal is cut at the end, where the least important stands."""
        filled = _BAR_WIDTH * self._done // self._steps
        line = Text(f"{self._title} ", style="bold", no_wrap=True, overflow="ellipsis")
        line.append("━" * filled, style="green").append("━" * (_BAR_WIDTH - filled), style="dim")
        return line.append(f" {self._done}/{self._steps}  {values}", style="not bold")

    def _time_left(self, now: float) -> str:
        if self._first_step_at is None or self._done == self._first_done or self._done >= self._steps:
            return ""
        pace = (now - self._first_step_at) / (self._done - self._first_done)
        return f"{_duration(pace * (self._steps - self._done))} left"

    def _print(self, text: str) -> None:
        line = f"[{self._title}] {text}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._stream, flush=True)


def _metrics(logs: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {float(value):.4g}" for name, value in logs.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
