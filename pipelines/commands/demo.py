"""`morph-tfx demo`: the whole pipeline on handwritten digits."""

from __future__ import annotations

from pathlib import Path

from .command import click, command, end_with, start, verbose_option


@click.command()
@click.argument("directory", default="build/demo", type=click.Path(path_type=Path, file_okay=False))
@verbose_option
@command
def demo(directory: Path, verbose: bool) -> None:
    """Run the whole pipeline on handwritten digits, in DIRECTORY (default: build/demo)."""
    click.echo(f"Preparing {directory} ...")
    start(verbose)
    from ..local.demo import run_demo

    end_with(run_demo(directory, say=click.echo, verbose=verbose))
