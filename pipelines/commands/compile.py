"""`morph-tfx compile`: a pipeline as a job for Kubeflow Pipelines v2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .command import MorphError, click, command, config_option, pipeline_option, start, verbose_option

if TYPE_CHECKING:
    from ..config import PipelineKind


@click.command(name="compile")
@config_option
@pipeline_option
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The job, a YAML file.")
@verbose_option
@command
def compile_(config_file: Path, pipeline: PipelineKind, output: Path, verbose: bool) -> None:
    """Compile a pipeline of a configuration to a Kubeflow Pipelines v2 job."""
    start(verbose)
    from ..config import load_config

    config = load_config(config_file)
    if output.exists() and output.samefile(config_file):
        raise MorphError(
            f"--output: {output} is the configuration, which the job would replace. Give another name, such as "
            "job.yaml."
        )
    from ..kubeflow.compiler import compile_pipeline  # after it: what it imports takes longer than a mistake

    compile_pipeline(config, output, say=click.echo, verbose=verbose, pipeline=pipeline)
