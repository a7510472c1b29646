"""`morph-tfx schedule ...`: runs of a pipeline on a cluster, again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cluster import (
    FILE,
    compiled_job,
    config_file_option,
    connect,
    connection_options,
    experiment_option,
    job_file_option,
    loaded,
    parameters_option,
    say_version,
    service_account_option,
    setting_of,
)
from .command import click, command, options, start, verbose_option

if TYPE_CHECKING:
    from ..config import PipelineConfig, PipelineKind
    from ..kubeflow.api import KubeflowApi
    from ..kubeflow.schedule import Schedule, Settings


# Without a default: what is scheduled changes only where somebody says so.
_pipeline = click.option(
    "--pipeline",
    type=click.Choice(["morph", "retrain"]),
    help="morph: search for a structure; a new schedule does, if you do not say. retrain: train the latest pushed "
    "structure anew, on the newest data.",
)
_job_options = (config_file_option, _pipeline, job_file_option)
_connection_file = click.option("--config", "config_file", type=FILE, help="Take kubeflow_api from this configuration.")


def _cron(required: bool) -> Callable[..., Any]:
    return click.option(
        "--cron",
        required=required,
        help="When: minute, hour, day of the month, month, day of the week. '0 3 * * *' is each day at 03:00; UTC, "
        "unless the cluster sets CRON_SCHEDULE_TIMEZONE.",
    )


def _max_concurrency(default: int | None) -> Callable[..., Any]:
    return click.option(
        "--max-concurrency",
        type=click.IntRange(1, 10),
        default=default,
        show_default=default is not None,
        help="How many of its runs may go on at once; a later one waits.",
    )


def _catch_up(default: bool | None) -> Callable[..., Any]:
    return click.option(
        "--catch-up/--no-catch-up",
        default=default,
        help="Whether runs that were missed, because the schedule or the cluster was off, are made up for"
        + ("." if default is None else " (default: no)."),
    )


class _CreateByDefault(click.Group):
    """`schedule --cron ...` is `schedule create --cron ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["create", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_CreateByDefault)
def schedule() -> None:
    """Run a pipeline again and again, by Kubeflow Pipelines' own scheduler.

    'morph-tfx schedule --cron ...' is short for 'morph-tfx schedule create --cron ...'. Times are UTC, unless the
    cluster sets CRON_SCHEDULE_TIMEZONE.
    """


@schedule.command()
@options(_job_options, parameters_option, _cron(required=True))
@click.option("--name", help="Name of the schedule; default: the pipeline's name.")
@options(_max_concurrency(1), _catch_up(False))
@click.option("--disabled", is_flag=True, help="Create it, but let it start nothing yet.")
@options(experiment_option, service_account_option, connection_options, verbose_option)
@command
def create(
    config_file: Path | None,
    pipeline: PipelineKind | None,
    job_file: Path | None,
    parameters: tuple[str, ...],
    cron: str,
    name: str | None,
    max_concurrency: int,
    catch_up: bool,
    disabled: bool,
    experiment: str | None,
    service_account: str | None,
    verbose: bool,
    **connection: Any,
) -> None:
    """Create a schedule, or make the one of this name what is asked for here.

    Given twice, there is one schedule. One that runs another pipeline goes over to this one only if you name it, by
    --pipeline or --job.
    """
    start(verbose)
    from ..kubeflow.cron import kubeflow_cron

    fields = kubeflow_cron(cron)
    config = loaded(config_file)
    api = connect(config, connection)
    from ..kubeflow.runs import experiment_id
    from ..kubeflow.schedule import Settings, put_schedule, schedules_of_ours
    from ..kubeflow.upload import upload, values_of

    if config is not None and job_file is None:
        _check_before_compiling(api, config, pipeline, name)
    with compiled_job(config, pipeline or "morph", job_file, verbose) as job:
        values = values_of(job, parameters)
        schedules_of_ours(api, name or job.pipeline)  # one of somebody else is found before anything is uploaded
        version = upload(api, job)
        settings = Settings(
            cron=fields,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            experiment_id=experiment_id(api, experiment or setting_of(config, "experiment") or job.pipeline),
            max_concurrency=max_concurrency,
            catch_up=catch_up,
            service_account=service_account or setting_of(config, "service_account"),
            root=job.root,
            parameters=values,
        )
        made, changed = put_schedule(api, name or job.pipeline, settings, enabled=not disabled)
    say_version(version)
    _say_schedule("Set up" if changed else "Nothing to do: there is", made)


@schedule.command()
@click.argument("name")
@options(
    _job_options,
    parameters_option,
    _cron(required=False),
    _max_concurrency(None),
    _catch_up(None),
    service_account_option,
)
@options(connection_options, verbose_option)
@command
def update(
    name: str,
    config_file: Path | None,
    pipeline: PipelineKind | None,
    job_file: Path | None,
    parameters: tuple[str, ...],
    cron: str | None,
    max_concurrency: int | None,
    catch_up: bool | None,
    service_account: str | None,
    verbose: bool,
    **connection: Any,
) -> None:
    """Change the schedule NAME: the options that are given; the rest stays as it is.

    The schedule goes over to another job with --job, or with --config and --pipeline. With --config alone it keeps its
    job, and the file says how to reach the cluster.
    """
    start(verbose)
    if pipeline is not None and (config_file is None or job_file is not None):
        raise click.UsageError("--pipeline names one of the pipelines of --config; --job is a job already.")
    from ..kubeflow.cron import kubeflow_cron

    if parameters and pipeline is None and job_file is None:
        raise click.UsageError("--parameter needs the job that has them: --config and --pipeline, or --job.")
    given: dict[str, Any] = {
        "cron": kubeflow_cron(cron) if cron is not None else None,
        "max_concurrency": max_concurrency,
        "catch_up": catch_up,
        "service_account": service_account,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    other_job = pipeline is not None or job_file is not None
    if not changes and not other_job:
        raise click.UsageError(
            "Nothing to change: give --cron, --job or another option. With --config, name the pipeline that the "
            "schedule is to run as it is configured now: --pipeline morph or --pipeline retrain."
        )
    config = loaded(config_file)
    api = connect(config, connection)

    from ..kubeflow.schedule import existing_schedules, schedules_of_ours, update_schedule
    from ..kubeflow.upload import upload, values_of

    # A wrong address, credential or name is found before anything is compiled or uploaded.
    current = existing_schedules(api, name)[-1].settings
    schedules_of_ours(api, name)
    if other_job:
        with compiled_job(config, pipeline or "morph", job_file, verbose) as job:
            kept = {name: value for name, value in current.parameters.items() if name in job.parameters}
            changes |= {"root": job.root, "parameters": {**kept, **values_of(job, parameters)}}
            version = upload(api, job)
            changes |= {"pipeline_id": version.pipeline_id, "version_id": version.version_id}
        say_version(version)

    def changed(settings: Settings) -> Settings:
        return replace(settings, **changes)

    made, different = update_schedule(api, name, changed)
    _say_schedule("Updated" if different else "Nothing to do: there is", made)


@schedule.command(name="list")
@_connection_file
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options(connection_options)
@command
def list_(config_file: Path | None, as_json: bool, **connection: Any) -> None:
    """List the schedules of the namespace."""
    start(verbose=False)
    api = connect(loaded(config_file), connection)
    from ..kubeflow.schedule import list_schedules

    schedules = list_schedules(api)
    if as_json:
        import json

        click.echo(json.dumps([one.to_json() for one in schedules], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    from ..kubeflow.cron import TIME_ZONE, people_cron

    table = Table("name", "cron", "state", "at once", "catch-up", "version", "made by")
    for one in schedules:
        table.add_row(
            one.name,
            people_cron(one.settings.cron),
            "enabled" if one.enabled else "disabled",
            str(one.settings.max_concurrency),
            "yes" if one.settings.catch_up else "no",
            one.settings.version_id,
            "morph-tfx" if one.mark else "others",
        )
    console = Console()
    console.print(table)
    console.print(TIME_ZONE, soft_wrap=True, highlight=False)


@schedule.command()
@click.argument("name")
@options(_connection_file, connection_options)
@command
def enable(name: str, config_file: Path | None, **connection: Any) -> None:
    """Let the schedule NAME start runs again."""
    _switch(name, True, config_file, connection)


@schedule.command()
@click.argument("name")
@options(_connection_file, connection_options)
@command
def disable(name: str, config_file: Path | None, **connection: Any) -> None:
    """Let the schedule NAME start no runs until it is enabled."""
    _switch(name, False, config_file, connection)


@schedule.command()
@click.argument("name")
@options(_connection_file, connection_options)
@command
def delete(name: str, config_file: Path | None, **connection: Any) -> None:
    """Delete the schedule NAME. The runs that it started stay."""
    start(verbose=False)
    api = connect(loaded(config_file), connection)
    from ..kubeflow.schedule import delete_schedule

    delete_schedule(api, name)
    click.echo(f"Deleted the schedule {name}")


def _check_before_compiling(
    api: KubeflowApi, config: PipelineConfig, pipeline: PipelineKind | None, name: str | None
) -> None:
    """Refuses to replace what a schedule runs by a pipeline that nobody has named.

    Raises:
        MorphError: the schedule runs another pipeline, or was made by somebody else.
    """
    from morph_core import MorphError

    from ..kubeflow.schedule import schedules_of_ours
    from ..kubeflow.upload import pipeline_named

    wanted = config.retrain_pipeline_name if pipeline == "retrain" else config.name
    schedules = schedules_of_ours(api, name or wanted)
    if not schedules or pipeline is not None:
        return
    known = pipeline_named(api, wanted)
    if known is None or known.pipeline_id != schedules[-1].settings.pipeline_id:
        raise MorphError(
            f"The schedule {schedules[-1].name!r} runs another pipeline than {wanted!r}, the search of the "
            "configuration, and nobody has said that it is to change. Name what it is to run: --pipeline morph or "
            "--pipeline retrain."
        )


def _switch(name: str, enabled: bool, config_file: Path | None, connection: dict[str, Any]) -> None:
    start(verbose=False)
    api = connect(loaded(config_file), connection)
    from ..kubeflow.schedule import enable_schedule

    enable_schedule(api, name, enabled)
    click.echo(f"{'Enabled' if enabled else 'Disabled'} the schedule {name}")


def _say_schedule(what: str, made: Schedule) -> None:
    from ..kubeflow.cron import TIME_ZONE, people_cron

    settings = made.settings
    click.echo(
        f"{what} the schedule {made.name} ({made.id}): {people_cron(settings.cron)}, "
        f"{'enabled' if made.enabled else 'disabled'}, at most {settings.max_concurrency} at once, "
        f"{'with' if settings.catch_up else 'no'} catch-up"
    )
    click.echo(TIME_ZONE)
