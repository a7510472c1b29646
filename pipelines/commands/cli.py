"""The command `morph-tfx`, put together from its subcommands.

Each has a file of its own, and imports what is heavy when it is called, so that `--help` is instant.
"""

from __future__ import annotations

from .calibrate import calibrate
from .command import click
from .compile import compile_
from .cost import cost
from .demo import demo
from .export import export
from .init import init
from .run import run
from .schedule import schedule
from .submit import submit


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="morph-tfx")
def cli() -> None:
    """Learn how wide every layer of a Keras network should be, inside a TFX pipeline."""


for _subcommand in (demo, init, run, compile_, cost, calibrate, export, submit, schedule):
    cli.add_command(_subcommand)


def main() -> None:
    """The console script."""
    cli(prog_name="morph-tfx")


if __name__ == "__main__":
    main()
