"""`morph-tfx init`: files to start from."""

from __future__ import annotations

from pathlib import Path

from .command import click, command


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@command
def init(directory: Path) -> None:
    """Write an annotated config.yaml and a module.py to start from into DIRECTORY."""
    from ..config.starter import write_templates

    for path in write_templates(directory):
        click.echo(f"Wrote {path}")
    click.echo(
        f"Put your examples into {directory / 'data'}, edit both files, then: "
        f"morph-tfx run --config {directory / 'config.yaml'}"
    )
