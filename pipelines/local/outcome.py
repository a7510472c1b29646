"""What became of the last run of a pipeline, in a file: for alerts, and for a schedule that finds nothing new to do.

`_outcome/morph.json` and `_outcome/retrain.json` below the pipeline root are written when a run starts and when it
ends. `status` is what an alert watches:

    running       it has started; after SIGKILL or a lost machine it stays so
    pushed        the model passed and was pushed
    held back     it did not pass; `reasons` says why
    failed        an error ended the run; `reasons` has it
    interrupted   by Ctrl-C or SIGTERM
    no new span   nothing was run, since nothing has changed after the run in `last`

A retraining is left out when all that it depends on is as the last one left it: the newest span and its files, the
configuration with its module files, what is pushed, ML metadata, and the versions of the software.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from morph_core import MorphError
from morph_core.files import replace_whole

from ..config import PipelineConfig, PipelineKind, is_uri
from ..config.spans import newest_files
from .result import RunResult

_FINISHED = ("pushed", "held back")


class OutcomeFile:
    """The file of one pipeline of a configuration.

    Args:
        config: with module files and structure already replaced by copies that are named by their content.
        pipeline: which of its pipelines.
    """

    def __init__(self, config: PipelineConfig, pipeline: PipelineKind):
        self.path = Path(config.pipeline_root) / "_outcome" / f"{pipeline}.json"
        self._config = config
        self._pipeline = pipeline
        self._started = _now()

    def last_if_unchanged(self) -> dict[str, Any] | None:
        """What the last finished run came to, if another one now would only repeat it; else None."""
        last = self._read()
        if last.get("status") == "no new span":
            last = last.get("last") or {}
        if last.get("status") not in _FINISHED or last.get("seen") is None or last["seen"] != self._seen():
            return None
        pushed = last.get("pushed_model")
        return last if pushed is None or os.path.isdir(pushed) else None

    def left_out(self, last: Mapping[str, Any]) -> None:
        """Records that nothing was run, since nothing has changed after the run `last`."""
        self._write("no new span", span=last.get("span"), pushed_model=last.get("pushed_model"), last=dict(last))

    @contextlib.contextmanager
    def around_run(self) -> Iterator[None]:
        """Records a run's start and, if it ends by an exception, that one; `finished` records any other end."""
        self._write("running")
        try:
            yield
        except KeyboardInterrupt:
            self._write("interrupted")
            raise
        except BaseException as error:
            self._write("failed", reasons=[f"{type(error).__name__}: {error}"])
            raise

    def finished(self, result: RunResult) -> None:
        """Records what a run has come to."""
        self._write(
            "held back" if result.pushed_model is None else "pushed",
            reasons=held_back_because(result),
            span=self._span(),
            pushed_model=result.pushed_model,
            seconds=round(result.seconds, 3),
            steps=[
                {"step": step.node_id, "state": step.state, "seconds": round(step.seconds, 3)} for step in result.steps
            ],
            seen=self._seen(),
        )

    def _newest(self) -> dict[str, tuple[list[Path], tuple[int, ...]]] | None:
        """The newest files of each split, and their span; None where that cannot be told."""
        data = self._config.data
        if is_uri(data.path):
            return None
        try:
            return {split: newest_files(Path(data.path), pattern) for split, pattern in data.patterns.items()}
        except MorphError:  # a file came during the run that fits no pattern; the next run will say so
            return None

    def _span(self) -> str | None:
        newest = self._newest()
        if not newest or not self._config.data.has_spans:
            return None
        _, span = next(iter(newest.values()))
        return "-".join(map(str, span))

    def _seen(self) -> str | None:
        """A hash of all that a run depends on; None where that cannot be told."""
        newest = self._newest()
        if newest is None or is_uri(self._config.push_to):
            return None
        pushed = self._config.push_to
        facts = {
            "config": self._config.model_dump(mode="json"),
            "data": {split: [_stat(file) for file in files] for split, (files, _) in newest.items()},
            "metadata": _stat(Path(self._config.metadata)),
            "pushed": sorted(os.listdir(pushed)) if os.path.isdir(pushed) else [],
            "versions": {name: importlib.metadata.version(name) for name in ("tfx", "tensorflow", "keras")},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or damaged: then the run is simply made
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, status: str, **more: Any) -> None:
        content = {
            "pipeline": self._config.name if self._pipeline == "morph" else self._config.retrain_pipeline_name,
            "status": status,
            "started": self._started,
            "finished": None if status == "running" else _now(),
            **more,
        }
        text = json.dumps(content, indent=2) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            replace_whole(self.path, text.encode())
        except OSError:
            # A disk that is full ends a run, and an alert has to see that: what the file holds already has its room.
            if status != "failed" or not self.path.exists():
                raise
            with self.path.open("r+", encoding="utf-8") as file:
                file.write(text)
                file.truncate()


def held_back_because(result: RunResult) -> list[str]:
    """Why the model of a run was not pushed, one sentence a reason; empty when it was."""
    if result.pushed_model is not None:
        return []
    if result.rolled_back is not None:
        return [
            f"{result.rolled_back} was pushed by an earlier run and was deleted since, which takes it back. Nothing "
            "has changed after that run, so nothing is pushed again: put the directory back, or change the data, the "
            "module file or the configuration for another model"
        ]
    if result.compared:
        return [json.loads((result.frontier / "frontier.json").read_text(encoding="utf-8"))["verdict"]]
    from .verdict import objections

    return objections(result.evaluation)


def _stat(file: Path) -> list[Any]:
    if not file.exists():
        return [str(file)]
    found = file.stat()
    return [str(file), found.st_size, found.st_mtime_ns]


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
