"""Nights of retraining in a row, each with a new span: what they take of disk, metadata, memory and time.

python -m tests.faults.nights [--nights 50] [--keep 5] [--directory DIRECTORY]
"""

from __future__ import annotations

import dataclasses
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from morph_tfx.pipelines.config import PipelineConfig
from morph_tfx.pipelines.local.runner import run_pipeline
from tests.faults.small_task import write_span, write_task


@dataclasses.dataclass(frozen=True)
class Night:
    """What was there after one retraining.

    Attributes:
        number: from 1; the search before is 0.
        seconds: that the run took.
        disk: bytes below the pipeline root.
        files: how many there are.
        pushed: versions that can be served.
        metadata: bytes of the metadata store.
        memory: the largest resident set of this process so far, in bytes.
    """

    number: int
    seconds: float
    disk: int
    files: int
    pushed: tuple[int, ...]
    metadata: int
    memory: int


def nights(config: PipelineConfig, directory: Path, count: int) -> Iterator[Night]:
    """Searches once and retrains so many times."""
    for number in range(count + 1):
        write_span(directory, number)
        start = time.monotonic()
        result = run_pipeline(config, say=lambda line: None, pipeline="retrain" if number else "morph")
        assert result.pushed_model is not None
        yield _after(config, number, time.monotonic() - start)


def _after(config: PipelineConfig, number: int, seconds: float) -> Night:
    files = [path for path in Path(config.pipeline_root).rglob("*") if path.is_file()]
    return Night(
        number=number,
        seconds=seconds,
        disk=sum(path.stat().st_size for path in files),
        files=len(files),
        pushed=tuple(sorted(int(path.name) for path in Path(config.push_to).iterdir())),
        metadata=Path(config.metadata).stat().st_size,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # in units of 1024 bytes on Linux
    )


@click.command()
@click.option("--nights", "count", default=50, show_default=True, help="Retrainings in a row.")
@click.option("--keep", default=5, show_default=True, help="What the configuration says; 0 keeps everything.")
@click.option("--directory", help="Where everything lies and stays; by default a temporary one.")
def main(count: int, keep: int, directory: str | None) -> None:
    """Runs the nights and prints a line for each."""
    place = Path(directory or tempfile.mkdtemp(prefix="nights-"))
    try:
        config = write_task(place, keep=keep or None)
        click.echo("night  seconds  disk [MB]  files  pushed  metadata [kB]  memory [MB]")
        for night in nights(config, place, count):
            click.echo(
                f"{night.number:5}  {night.seconds:7.1f}  {night.disk / 1e6:9.2f}  {night.files:5}  "
                f"{len(night.pushed):6}  {night.metadata / 1e3:13.0f}  {night.memory / 1e6:11.0f}"
            )
    finally:
        if directory is None:
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
