"""`morph-tfx run`: a pipeline on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .command import click, command, config_option, end_with, pipeline_option, start, verbose_option

if TYPE_CHECKING:
    from ..config import PipelineKind


@click.command()
@config_option
@pipeline_option
@verbose_option
@command
def run(config_file: Path, pipeline: PipelineKind, verbose: bool) -> None:
    """Run a pipeline of a configuration on this machine.

    Exit codes: 0, a model was pushed; 2, something has to be put right first; 3, the run is done and its model was not
    good enough to be pushed; 130, interrupted.
    """
    start(verbose)
    from ..config import load_config
    from ..local.runner import run_pipeline
    from ..local.summary import show_summary

    config = load_config(config_file)
    result = run_pipeline(config, say=click.echo, verbose=verbose, pipeline=pipeline)
    show_summary(result, config)
    end_with(result)
