"""What the commands share that talk to a cluster: their options, the connection, and the job that they send."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command import click, pipeline_option

if TYPE_CHECKING:
    from ..config import PipelineConfig, PipelineKind
    from ..kubeflow.api import KubeflowApi
    from ..kubeflow.upload import Job, Version


FILE = click.Path(path_type=Path, dir_okay=False)

config_file_option = click.option(
    "--config", "config_file", type=FILE, help="The configuration whose pipeline is compiled."
)
job_file_option = click.option(
    "--job", "job_file", type=FILE, help="A job of 'morph-tfx compile', instead of a configuration."
)
job_options = (config_file_option, pipeline_option, job_file_option)
connection_options = (
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
        "--token-file", type=FILE, help="File with a bearer token; default: KFP_TOKEN_FILE, or the token in KFP_TOKEN."
    ),
    click.option(
        "--cookie-file",
        type=FILE,
        help="File with session cookies (Dex, oauth2-proxy), as name=value or of curl -c; default: KFP_COOKIE_FILE, or "
        "the cookies in KFP_COOKIE.",
    ),
    click.option("--ca-file", type=FILE, help="Certificates (PEM) that the server's is checked with."),
)
parameters_option = click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value that a run is given in the place of the configuration's, such as retrain_epochs=60; may be repeated. "
    "'morph-tfx compile' says which there are.",
)
experiment_option = click.option("--experiment", help="The experiment of the runs; default: the pipeline's name.")
service_account_option = click.option("--service-account", help="Kubernetes service account that the steps run as.")


def connect(config: PipelineConfig | None, given: dict[str, Any]) -> KubeflowApi:
    """A connection to Kubeflow Pipelines.

    Args:
        config: its section `kubeflow_api` says what the options leave open.
        given: the values of `connection_options`, from the command line or the environment.

    Raises:
        MorphError: no endpoint, or a credential that cannot be used.
    """
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


def loaded(config_file: Path | None) -> PipelineConfig | None:
    """The configuration, if one is given."""
    if config_file is None:
        return None
    from ..config import load_config

    return load_config(config_file)


@contextmanager
def compiled_job(
    config: PipelineConfig | None, pipeline: PipelineKind, job_file: Path | None, verbose: bool
) -> Iterator[Job]:
    """The job to upload, compiled first when a configuration is given."""
    from ..kubeflow.upload import Job

    if job_file is not None:
        yield Job.load(job_file)
        return
    if config is None:
        raise click.UsageError("One of --config and --job is expected.")
    from ..kubeflow.compiler import compile_pipeline

    with tempfile.TemporaryDirectory(prefix="morph-tfx-") as directory:
        path = Path(directory) / f"{config.name}.yaml"
        compile_pipeline(config, path, say=click.echo, verbose=verbose, pipeline=pipeline)
        yield Job.load(path)


def setting_of(config: PipelineConfig | None, name: str) -> str | None:
    """What `kubeflow_api` of the configuration says, if there is one."""
    section = config.kubeflow_api if config is not None else None
    return getattr(section, name) if section is not None else None


def say_version(version: Version) -> None:
    """Tells under which name the job lies on the cluster, and whether it has just been put there."""
    click.echo(f"{'Uploaded' if version.uploaded else 'Already there:'} {version.name} ({version.version_id})")
