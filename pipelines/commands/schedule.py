"""`morph-tfx schedule ...`: runs of a pipeline on a cluster, again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cluster import (
    FILE,
    compiled_job,
    connect,
    connection_options,
    experiment_option,
    job_options,
    loaded,
    say_version,
    service_account_option,
    setting_of,
)
from .command import click, command, options, start, verbose_option

if TYPE_CHECKING:
    from ..config import PipelineKind
    from ..kubeflow.schedule import Schedule, Settings


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
@options(job_options, _cron(required=True))
@click.option("--name", help="Name of the schedule; default: the pipeline's name.")
@options(_max_concurrency(1), _catch_up(False))
@click.option("--disabled", is_flag=True, help="Create it, but let it start nothing yet.")
@options(experiment_option, service_account_option, connection_options, verbose_option)
@command
def create(
    config_file: Path | None,
    pipeline: PipelineKind,
    job_file: Path | None,
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

    Given twice, there is one schedule.
    """
    start(verbose)
    from ..kubeflow.cron import kubeflow_cron

    fields = kubeflow_cron(cron)
    config = loaded(config_file)
    api = connect(config, connection)
    from ..kubeflow.runs import experiment_id
    from ..kubeflow.schedule import Settings, put_schedule
    from ..kubeflow.upload import upload

    with compiled_job(config, pipeline, job_file, verbose) as job:
        version = upload(api, job)
        settings = Settings(
            cron=fields,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            experiment_id=experiment_id(api, experiment or setting_of(config, "experiment") or job.pipeline),
            max_concurrency=max_concurrency,
            catch_up=catch_up,
            service_account=service_account or setting_of(config, "service_account"),
        )
        made, changed = put_schedule(api, name or job.pipeline, settings, enabled=not disabled)
    say_version(version)
    _say_schedule("Set up" if changed else "Nothing to do: there is", made)


@schedule.command()
@click.argument("name")
@options(job_options, _cron(required=False), _max_concurrency(None), _catch_up(None), service_account_option)
@options(connection_options, verbose_option)
@command
def update(
    name: str,
    config_file: Path | None,
    pipeline: PipelineKind,
    job_file: Path | None,
    cron: str | None,
    max_concurrency: int | None,
    catch_up: bool | None,
    service_account: str | None,
    verbose: bool,
    **connection: Any,
) -> None:
    """Change the schedule NAME: the options that are given; the rest stays as it is.

    With --config or --job the schedule goes over to that job.
    """
    start(verbose)
    from ..kubeflow.cron import kubeflow_cron

    changes: dict[str, Any] = {
        "cron": kubeflow_cron(cron) if cron is not None else None,
        "max_concurrency": max_concurrency,
        "catch_up": catch_up,
        "service_account": service_account,
    }
    config = loaded(config_file)
    api = connect(config, connection)

    from ..kubeflow.schedule import list_schedules, update_schedule
    from ..kubeflow.upload import upload

    if config is not None or job_file is not None:
        list_schedules(api, name)  # a wrong address or credential is found before anything is compiled
        with compiled_job(config, pipeline, job_file, verbose) as job:
            version = upload(api, job)
        say_version(version)
        changes |= {"pipeline_id": version.pipeline_id, "version_id": version.version_id}
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes:
        raise click.UsageError("Nothing to change: give --cron, --config, --job or another option.")

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
