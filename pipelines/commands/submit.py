"""`morph-tfx submit`: one run of a pipeline on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cluster import (
    compiled_job,
    connect,
    connection_options,
    experiment_option,
    job_options,
    loaded,
    parameters_option,
    say_version,
    service_account_option,
    setting_of,
)
from .command import click, command, options, start, verbose_option

if TYPE_CHECKING:
    from ..config import PipelineKind


@click.command()
@options(job_options, parameters_option, experiment_option, service_account_option)
@click.option(
    "--run-name",
    help="Name of the run. Where a run of this job has it already, that is the run: nothing is started. "
    "Default: a new name each time.",
)
@options(connection_options, verbose_option)
@command
def submit(
    config_file: Path | None,
    pipeline: PipelineKind,
    job_file: Path | None,
    parameters: tuple[str, ...],
    experiment: str | None,
    service_account: str | None,
    run_name: str | None,
    verbose: bool,
    **connection: Any,
) -> None:
    """Upload a pipeline to Kubeflow Pipelines and start one run of it.

    The same job is uploaded once, and a lost answer does not start a second run.
    """
    start(verbose)
    config = loaded(config_file)
    api = connect(config, connection)
    from ..kubeflow.runs import submit as submit_job
    from ..kubeflow.upload import values_of

    with compiled_job(config, pipeline, job_file, verbose) as job:
        run = submit_job(
            api,
            job,
            experiment or setting_of(config, "experiment"),
            run_name,
            service_account or setting_of(config, "service_account"),
            values_of(job, parameters),
        )
    say_version(run.version)
    click.echo(f"{'Started the' if run.started else 'There is already a'} run {run.name} ({run.run_id})")
    click.echo(run.url)
