"""Kills whole runs of the pipeline at random points, starts them again until they end, and looks at what is left.

    python -m tests.faults.killed_runs --kills 20 --seed 0 --where local        `morph-tfx run`
    python -m tests.faults.killed_runs --kills 20 --seed 0 --where kubeflow     pods of a job (kubeflow/launcher.py)

A point is a draw from the time that one whole run takes. SIGKILL, or SIGTERM and five seconds later SIGKILL, goes to
whole process groups, as when a machine goes away. After each kill every artifact that is listed as finished is opened,
and so is every pushed version. The same command is then started again, and maybe killed again. Where it comes to its
end, its structure must be that of a run which nobody disturbed. With --directory, a script that was ended goes on where
it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

import morph_core as morph
from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from tests.faults import small_pipeline
from tests.faults.whole_artifacts import faults_of, faults_of_live, faults_of_pushed
from tests.kubeflow.launcher import Cluster

_GRACE_S = 5.0  # Kubernetes grants 30 seconds
_STEP = re.compile(r"^\[\d+/\d+\] (\S+)", re.MULTILINE)
_EPOCH = re.compile(r"^\[.*(?:search|retrain)\] epoch (\d+)/", re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """Where a kill is to hit: so many seconds after the start, with "SIGKILL" or "SIGTERM" first."""

    seconds: float
    signal: str


@dataclass(frozen=True)
class Attempt:
    """What became of one start.

    Attributes:
        number: of the start, which its point was drawn by.
        point: where it was to be killed.
        killed: whether it lived until then.
        during: what it was at then, or what it came to.
        faults: all that is wrong with what it left.
        seconds: how long it lived.
    """

    number: int
    point: Point
    killed: bool
    during: str
    faults: list[str]
    seconds: float


class Subject(Protocol):
    """Something that runs the whole pipeline in a directory of its own, again and again until it ends."""

    def start(self, point: Point | None) -> tuple[bool, str]:
        """Runs to the end or to the point; whether it was killed, and what it was at, or what was wrong in the end."""
        ...

    def faults(self) -> list[str]:
        """What is wrong with anything that is listed as finished."""
        ...

    def leftovers(self) -> list[str]:
        """What should not be there any more after a run that came to its end."""
        ...

    def structure(self) -> morph.Structure:
        """What a run found that came to its end."""
        ...


class Group:
    """A program as the leader of a process group, which is killed as a whole.

    Args:
        command: with its arguments.
        options: of `subprocess.Popen`.
    """

    def __init__(self, command: Sequence[str], **options: Any):
        self.process = subprocess.Popen(command, start_new_session=True, text=True, **options)

    def kill(self, how: str) -> None:
        """Ends the group: "SIGTERM" leaves it some time before it comes to SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            if how == "SIGTERM":
                os.killpg(self.process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(_GRACE_S)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class LocalRun:
    """`morph-tfx run`.

    Args:
        directory: to be made.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._config = small_pipeline.prepare(directory)

    def start(self, point: Point | None) -> tuple[bool, str]:
        command = [sys.executable, "-m", "morph_tfx.pipelines.commands.cli", "run", "--config", str(self._config)]
        log = self._directory / "log"
        with log.open("w") as file:
            group = Group(command, cwd=self._directory, stdout=file, stderr=subprocess.STDOUT)
            try:
                code = group.process.wait(None if point is None else point.seconds)
            except subprocess.TimeoutExpired:
                assert point is not None
                group.kill(point.signal)
                return True, _at(log.read_text())
            except BaseException:
                group.kill("SIGKILL")
                raise
        if code != 0:
            raise AssertionError(f"a run in {self._directory} ended with {code}:\n{log.read_text()[-3000:]}")
        return False, "the end"

    def faults(self) -> list[str]:
        pushed = faults_of_pushed(self._directory / "pushed")
        return [*faults_of_live(self._directory / "metadata.sqlite"), *pushed]

    def leftovers(self) -> list[str]:
        root = self._directory / "pipeline_root"
        unfinished = [*root.rglob("*unfinished*"), *root.glob("*/checkpoints/*")]
        store = metadata.sqlite_metadata_connection_config(str(self._directory / "metadata.sqlite"))
        with metadata.Metadata(store) as handle:
            executions = handle.store.get_executions()
        running = [one.id for one in executions if one.last_known_state == metadata_store_pb2.Execution.RUNNING]
        return [f"left: {path}" for path in unfinished] + [f"still running: execution {number}" for number in running]

    def structure(self) -> morph.Structure:
        newest = max((path for path in (self._directory / "pushed").iterdir()), key=lambda path: int(path.name))
        return morph.Structure.load(newest / "assets.extra" / "structure.json")


class KubeflowJob:
    """A compiled job behind the stand-in launcher, whose pods are killed; what it stores is elsewhere, and lives.

    Args:
        directory: to be made; stands for the volume that every pod mounts, and has the cluster beside it.
    """

    def __init__(self, directory: Path):
        self._volume = directory / "volume"
        settings = {"image": "registry.example.com/morph-tfx:1", "module_dir": str(self._volume)}
        settings["checkpoint_dir"] = str(self._volume / "checkpoints")
        config = small_pipeline.prepare(self._volume, f"kubeflow: {json.dumps(settings)}\n")
        self._job = compile_pipeline(load_config(config), directory / "job.yaml")
        self._cluster = DyingCluster(directory / "cluster")
        self._found: Path | None = None

    def start(self, point: Point | None) -> tuple[bool, str]:
        with self._cluster.dying_at(point) as death:
            run = self._cluster.run(self._job)
        if death.is_set():
            return True, ", ".join(sorted(run.in_state("failed"))) or "no step"
        if not run.succeeded:
            raise AssertionError(f"a run of {self._job} failed: {run}")
        self._found = self._cluster.stored(run.tasks["MorphTrainer-1"].outputs["structure"].uri)
        return False, "the end"

    def faults(self) -> list[str]:
        # What our own steps show to people has types of Kubeflow, and is a part of what is opened anyway.
        known = [artifact for artifact in self._cluster.artifacts if not artifact.title.startswith("system.")]
        stored = [(artifact.title, str(self._cluster.stored(artifact.uri))) for artifact in known]
        return [*faults_of(stored), *faults_of_pushed(self._volume / "pushed")]

    def leftovers(self) -> list[str]:
        # A job that is run again reads its examples anew: checkpoints of the killed one are of other inputs, and stay.
        return []

    def structure(self) -> morph.Structure:
        assert self._found is not None
        return morph.Structure.load(self._found / "structure.json")


class DyingCluster(Cluster):
    """A cluster whose machine with all pods goes away at a point of a run."""

    def __init__(self, directory: Path):
        super().__init__(directory)
        self._pods: list[Group] = []
        self._death = threading.Event()
        self._changing = threading.Lock()

    @contextlib.contextmanager
    def dying_at(self, point: Point | None) -> Iterator[threading.Event]:
        """While the block runs, kills the pods at that point, and lets none start any more; set when that was done."""
        self._death.clear()
        timer = None if point is None else threading.Timer(point.seconds, self._die, [point.signal])
        if timer is not None:
            timer.start()
        try:
            yield self._death
        finally:
            if timer is not None:
                timer.cancel()
                timer.join()

    def start(self, command: list[str], pod: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        with self._changing:
            if self._death.is_set():
                return subprocess.CompletedProcess(command, -signal.SIGKILL, "")
            environment = self.environment_of(pod, variables)
            group = Group(command, cwd=pod, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self._pods.append(group)
        output, _ = group.process.communicate()
        with self._changing:
            self._pods.remove(group)
        return subprocess.CompletedProcess(command, group.process.returncode, output)

    def _die(self, how: str) -> None:
        with self._changing:
            self._death.set()
            pods = list(self._pods)
        for group in pods:
            group.kill(how)


SUBJECTS: dict[str, Callable[[Path], Subject]] = {"local": LocalRun, "kubeflow": KubeflowJob}


class Story:
    """All attempts, kept in a directory, so that a script that was ended goes on.

    Args:
        where: a name of `SUBJECTS`.
        directory: for runs, and for what is known of earlier ones.
        seed: of the points.
        say: receives a line for each attempt.
    """

    def __init__(self, where: str, directory: Path, seed: int, say: Callable[[str], None] = print):
        self._where, self._directory, self._seed, self._say = where, directory, seed, say
        self._rows = directory / f"{where}-{seed}.jsonl"

    @property
    def attempts(self) -> list[Attempt]:
        """Those made so far."""
        if not self._rows.exists():
            return []
        rows = [json.loads(line) for line in self._rows.read_text().splitlines()]
        return [Attempt(**{**row, "point": Point(**row["point"])}) for row in rows]

    def tell(self, kills: int) -> list[Attempt]:
        """Kills until it is enough, and lets the last run come to its end; all attempts."""
        duration, expected = self._undisturbed()
        killed = sum(attempt.killed for attempt in self.attempts)
        while killed < kills:
            number = len(self.attempts)
            with self._subject(f"run-{number}") as subject:
                ended = False
                while not ended:
                    attempt = self._attempt(subject, len(self.attempts), duration, killed < kills, expected)
                    killed += attempt.killed
                    ended = not attempt.killed
                    if ended and attempt.number == number:  # a whole run, and maybe the machine was busy at first
                        duration = min(duration, attempt.seconds)
        return self.attempts

    def _undisturbed(self) -> tuple[float, str]:
        """How many seconds a whole run takes, and the structure that it finds."""
        file = self._directory / f"{self._where}-undisturbed.json"
        if not file.exists():
            with self._subject("undisturbed") as subject:
                start = time.monotonic()
                subject.start(None)
                seconds = time.monotonic() - start
                faults = [*subject.faults(), *subject.leftovers()]
                assert faults == [], faults
                file.write_text(json.dumps({"seconds": seconds, "structure": subject.structure().to_json()}))
        known = json.loads(file.read_text())
        self._say(f"{self._where}: undisturbed, a run takes {known['seconds']:.0f} s.")
        return known["seconds"], known["structure"]

    def _attempt(self, subject: Subject, number: int, duration: float, kill: bool, expected: str) -> Attempt:
        draw = random.Random(f"{self._seed} {self._where} {number}")
        point = Point(round(draw.uniform(0, duration), 1), draw.choice(["SIGKILL", "SIGTERM"]))
        start = time.monotonic()
        killed, during = subject.start(point if kill else None)
        seconds = round(time.monotonic() - start, 1)
        faults = subject.faults()
        if not killed:
            faults += subject.leftovers()
            if subject.structure().to_json() != expected:
                faults.append(f"another structure than undisturbed: widths {subject.structure().widths}")
        attempt = Attempt(number, point, killed, during, faults, seconds)
        with self._rows.open("a") as file:
            file.write(json.dumps(asdict(attempt)) + "\n")
        self._say(line_of(attempt))
        return attempt

    @contextlib.contextmanager
    def _subject(self, name: str) -> Iterator[Subject]:
        """A new run in a directory, which goes away with the block unless something was wrong."""
        directory = self._directory / f"{self._where}-{name}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        before = len(self.attempts)
        yield SUBJECTS[self._where](directory / "run")
        if not any(attempt.faults for attempt in self.attempts[before:]):
            shutil.rmtree(directory)


def line_of(attempt: Attempt) -> str:
    """A row of the table."""
    how = (
        f"{attempt.point.signal} at {attempt.seconds:5.1f} s"
        if attempt.killed
        else f"ended in {attempt.seconds:5.1f} s"
    )
    return f"{attempt.number:3}  {how:21}  {attempt.during:34}  {'; '.join(attempt.faults) or 'whole'}"


def _at(log: str) -> str:
    """What a local run was at, by its account."""
    steps = list(_STEP.finditer(log))
    if not steps:
        return "before the first step"
    epochs = _EPOCH.findall(log, steps[-1].start())
    return steps[-1][1] + (f", epoch {int(epochs[-1]) + 1}" if epochs else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", choices=sorted(SUBJECTS), default="local")
    parser.add_argument("--directory", type=Path, help="kept; without it, a temporary one")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = given.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="killed-runs-")))
        directory.mkdir(parents=True, exist_ok=True)
        attempts = Story(given.where, directory, given.seed, lambda line: print(line, flush=True)).tell(given.kills)
    faulty = [attempt for attempt in attempts if attempt.faults]
    killed = sum(attempt.killed for attempt in attempts)
    print(f"{killed} kills, {len(attempts) - killed} ends, {len(faulty)} of them with something wrong.")
    sys.exit(bool(faulty))


if __name__ == "__main__":
    main()
