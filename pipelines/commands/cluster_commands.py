"""The commands that talk to a cluster: `morph-tfx submit` and `morph-tfx schedule ...`."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command import click, command, pipeline_option, start, verbose_option

if TYPE_CHECKING:
    from ..config import PipelineConfig, PipelineKind
    from ..kubeflow.api import KubeflowApi
    from ..kubeflow.schedule import Job, Schedule, Settings, Version

_FILE = click.Path(path_type=Path, dir_okay=False)

_what_options = (
    click.option("--config", "config_file", type=_FILE, help="The configuration whose pipeline is compiled."),
    pipeline_option,
    click.option("--job", "job_file", type=_FILE, help="A job of 'morph-tfx compile', instead of a configuration."),
)
_connection_options = (
    click.option(
        "--endpoint",
        envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"],
        show_envvar=True,
        help="Address of the Kubeflow Pipelines API; default: kubeflow_api.endpoint of the configuration.",
    ),
    click.option(
        "--namespace",
        envvar="KFP_NAMESPACE",
        show_envvar=True,
        help="Yours, where Kubeflow has several users.",
    ),
    click.option(
        "--token-file", type=_FILE, help="File with a bearer token; default: KFP_TOKEN_FILE, or the token in KFP_TOKEN."
    ),
    click.option(
        "--cookie-file",
        type=_FILE,
        help="File with session cookies (Dex, oauth2-proxy), as name=value or of curl -c; default: KFP_COOKIE_FILE, or "
        "the cookies in KFP_COOKIE.",
    ),
    click.option("--ca-file", type=_FILE, help="Certificates (PEM) that the server's is checked with."),
)
_experiment = click.option("--experiment", help="The experiment of the runs; default: the pipeline's name.")
_service_account = click.option("--service-account", help="Kubernetes service account that the steps run as.")
_configuration = click.option("--config", "config_file", type=_FILE, help="Take kubeflow_api from this configuration.")


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


def _options(*groups: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """All of these options, in this order."""
    flat = [option for group in groups for option in (group if isinstance(group, tuple) else (group,))]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        return functools.reduce(lambda decorated, option: option(decorated), reversed(flat), function)

    return decorate


def _connect(config: PipelineConfig | None, given: dict[str, Any]) -> KubeflowApi:
    """A connection: what was given on the command line or in the environment, else in the configuration."""
    from morph_core import MorphError

    from ..kubeflow.api import Connection, KubeflowApi
    from ..kubeflow.credentials import find_credential

    section = config.kubeflow_api if config is not None else None

    def setting(name: str) -> Any:
        value = given[name]
        return value if value is not None or section is None else getattr(section, name)

    endpoint = setting("endpoint")
    if not endpoint:
        raise MorphError(
            "endpoint: the address of the Kubeflow Pipelines API is expected: --endpoint URL, KFP_ENDPOINT or "
            "kubeflow_api.endpoint in the configuration. For example https://kubeflow.example.com/pipeline, or "
            "http://localhost:8080 after 'kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80'."
        )
    files = {name: given[name] for name in ("token_file", "cookie_file")}
    if section is not None and not any(files.values()):
        files = {name: getattr(section, name) for name in files}
    ca_file = setting("ca_file")
    limits = {} if section is None else {"timeout": section.timeout, "attempts": section.attempts}
    connection = Connection(
        endpoint,
        namespace=setting("namespace"),
        credential=find_credential(endpoint.rstrip("/"), **files),
        ca_file=None if ca_file is None else str(ca_file),
        **limits,
    )
    return KubeflowApi(connection, say=lambda line: click.echo(line, err=True))


def _loaded(config_file: Path | None) -> PipelineConfig | None:
    if config_file is None:
        return None
    from ..config import load_config

    return load_config(config_file)


@contextmanager
def _job(config: PipelineConfig | None, pipeline: PipelineKind, job_file: Path | None, verbose: bool) -> Iterator[Job]:
    """The job to upload, compiled first when a configuration is given."""
    from ..kubeflow.schedule import Job

    if job_file is not None:
        yield Job.load(job_file)
        return
    if config is None:
        raise click.UsageError("One of --config and --job is expected.")
    from ..kubeflow.runner import compile_pipeline

    with tempfile.TemporaryDirectory(prefix="morph-tfx-") as directory:
        path = Path(directory) / f"{config.name}.yaml"
        compile_pipeline(config, path, say=click.echo, verbose=verbose, pipeline=pipeline)
        yield Job.load(path)


@click.command()
@_options(_what_options, _experiment, _service_account)
@click.option(
    "--run-name",
    help="Name of the run. Where a run of this job has it already, that is the run: nothing is started. "
    "Default: a new name each time.",
)
@_options(_connection_options, verbose_option)
@command
def submit(
    config_file: Path | None,
    pipeline: PipelineKind,
    job_file: Path | None,
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
    config = _loaded(config_file)
    api = _connect(config, connection)
    from ..kubeflow.schedule import submit as submit_job

    with _job(config, pipeline, job_file, verbose) as job:
        run = submit_job(
            api,
            job,
            experiment or _default(config, "experiment"),
            run_name,
            service_account or _default(config, "service_account"),
        )
    _say_version(run.version)
    click.echo(f"{'Started the' if run.started else 'There is already a'} run {run.name} ({run.run_id})")
    click.echo(run.url)


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
@_options(_what_options, _cron(required=True))
@click.option("--name", help="Name of the schedule; default: the pipeline's name.")
@_options(_max_concurrency(1), _catch_up(False))
@click.option("--disabled", is_flag=True, help="Create it, but let it start nothing yet.")
@_options(_experiment, _service_account, _connection_options, verbose_option)
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
    config = _loaded(config_file)
    api = _connect(config, connection)
    from ..kubeflow.schedule import Settings, experiment_id, put_schedule, upload

    with _job(config, pipeline, job_file, verbose) as job:
        version = upload(api, job)
        settings = Settings(
            cron=fields,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            experiment_id=experiment_id(api, experiment or _default(config, "experiment") or job.pipeline),
            max_concurrency=max_concurrency,
            catch_up=catch_up,
            service_account=service_account or _default(config, "service_account"),
        )
        made, changed = put_schedule(api, name or job.pipeline, settings, enabled=not disabled)
    _say_version(version)
    _say_schedule("Set up" if changed else "Nothing to do: there is", made)


@schedule.command()
@click.argument("name")
@_options(_what_options, _cron(required=False), _max_concurrency(None), _catch_up(None), _service_account)
@_options(_connection_options, verbose_option)
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
    config = _loaded(config_file)
    api = _connect(config, connection)
    from dataclasses import replace

    from ..kubeflow.schedule import list_schedules, update_schedule, upload

    if config is not None or job_file is not None:
        list_schedules(api, name)  # a wrong address or credential is found before anything is compiled
        with _job(config, pipeline, job_file, verbose) as job:
            version = upload(api, job)
        _say_version(version)
        changes |= {"pipeline_id": version.pipeline_id, "version_id": version.version_id}
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes:
        raise click.UsageError("Nothing to change: give --cron, --config, --job or another option.")

    def changed(settings: Settings) -> Settings:
        return replace(settings, **changes)

    made, different = update_schedule(api, name, changed)
    _say_schedule("Updated" if different else "Nothing to do: there is", made)


@schedule.command(name="list")
@_configuration
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@_options(_connection_options)
@command
def list_(config_file: Path | None, as_json: bool, **connection: Any) -> None:
    """List the schedules of the namespace."""
    start(verbose=False)
    api = _connect(_loaded(config_file), connection)
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
@_options(_configuration, _connection_options)
@command
def enable(name: str, config_file: Path | None, **connection: Any) -> None:
    """Let the schedule NAME start runs again."""
    _switch(name, True, config_file, connection)


@schedule.command()
@click.argument("name")
@_options(_configuration, _connection_options)
@command
def disable(name: str, config_file: Path | None, **connection: Any) -> None:
    """Let the schedule NAME start no runs until it is enabled."""
    _switch(name, False, config_file, connection)


@schedule.command()
@click.argument("name")
@_options(_configuration, _connection_options)
@command
def delete(name: str, config_file: Path | None, **connection: Any) -> None:
    """Delete the schedule NAME. The runs that it started stay."""
    start(verbose=False)
    api = _connect(_loaded(config_file), connection)
    from ..kubeflow.schedule import delete_schedule

    delete_schedule(api, name)
    click.echo(f"Deleted the schedule {name}")


def _switch(name: str, enabled: bool, config_file: Path | None, connection: dict[str, Any]) -> None:
    start(verbose=False)
    api = _connect(_loaded(config_file), connection)
    from ..kubeflow.schedule import enable_schedule

    enable_schedule(api, name, enabled)
    click.echo(f"{'Enabled' if enabled else 'Disabled'} the schedule {name}")


def _default(config: PipelineConfig | None, name: str) -> str | None:
    section = config.kubeflow_api if config is not None else None
    return getattr(section, name) if section is not None else None


def _say_version(version: Version) -> None:
    click.echo(f"{'Uploaded' if version.uploaded else 'Already there:'} {version.name} ({version.version_id})")


def _say_schedule(what: str, made: Schedule) -> None:
    from ..kubeflow.cron import TIME_ZONE, people_cron

    settings = made.settings
    click.echo(
        f"{what} the schedule {made.name} ({made.id}): {people_cron(settings.cron)}, "
        f"{'enabled' if made.enabled else 'disabled'}, at most {settings.max_concurrency} at once, "
        f"{'with' if settings.catch_up else 'no'} catch-up"
    )
    click.echo(TIME_ZONE)
