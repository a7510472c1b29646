"""The command `morph-tfx`. Heavy imports wait until a command needs them, so that `--help` is instant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import click
except ModuleNotFoundError as error:
    raise SystemExit(
        "morph-tfx: the commands need the TFX stack. Install it with: pip install 'morph-tfx[tfx]'"
    ) from error

_RESUME = "Interrupted. Finished steps are kept: the same command goes on after them."


class _Refused(click.ClickException):
    """Something the user can put right; shown as one message, without a traceback."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"morph-tfx: {self.format_message()}", err=True, file=file)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Shows a MorphError as a message and takes Ctrl-C calmly; other exceptions are bugs and keep their traceback."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except ValueError as error:
            from morph_core import MorphError

            if not isinstance(error, MorphError):
                raise
            raise _Refused(str(error)) from error
        except KeyboardInterrupt:
            click.echo(f"\n{_RESUME}", err=True)
            raise click.exceptions.Exit(130) from None

    return wrapper


def _start(verbose: bool) -> None:
    """Silences the libraries before they are imported, which is when TensorFlow decides how much to log."""
    if not verbose:
        from .account import quieten

        quieten()


_config = click.option(
    "--config", "config_file", required=True, type=click.Path(path_type=Path), help="The configuration, a YAML file."
)
_verbose = click.option("--verbose", is_flag=True, help="Show what TFX, Beam and TensorFlow log.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="morph-tfx")
def cli() -> None:
    """Learn how wide every layer of a Keras network should be, inside a TFX pipeline."""


@cli.command()
@click.argument("directory", default="build/demo", type=click.Path(path_type=Path, file_okay=False))
@_verbose
@_command
def demo(directory: Path, verbose: bool) -> None:
    """Run the whole pipeline on handwritten digits, in DIRECTORY (default: build/demo)."""
    click.echo(f"Preparing {directory} ...")
    _start(verbose)
    from .demo import run_demo

    run_demo(directory, say=click.echo, verbose=verbose)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@_command
def init(directory: Path) -> None:
    """Write an annotated config.yaml and a module.py to start from into DIRECTORY."""
    from .starter import write_templates

    for path in write_templates(directory):
        click.echo(f"Wrote {path}")
    click.echo(
        f"Put your examples into {directory / 'data'}, edit both files, then: "
        f"morph-tfx run --config {directory / 'config.yaml'}"
    )


@cli.command()
@_config
@_verbose
@_command
def run(config_file: Path, verbose: bool) -> None:
    """Run the pipeline of a configuration on this machine."""
    _start(verbose)
    from .config import load_config
    from .local_runner import run_pipeline
    from .summary import show_summary

    config = load_config(config_file)
    show_summary(run_pipeline(config, say=click.echo, verbose=verbose), config)


@cli.command(name="compile")
@_config
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The job, a YAML file.")
@_verbose
@_command
def compile_(config_file: Path, output: Path, verbose: bool) -> None:
    """Compile the pipeline of a configuration to a Kubeflow Pipelines v2 job."""
    _start(verbose)
    from .config import load_config
    from .kubeflow_runner import compile_pipeline

    compile_pipeline(load_config(config_file), output, say=click.echo, verbose=verbose)


@cli.command()
@click.argument("model")
@click.option("--cost", "costs", multiple=True, help="What to count, such as flops or latency:v100; may be repeated.")
@click.option("--structure", type=click.Path(path_type=Path), help="Count for this structure, too.")
@click.option("--input-shape", help="Of a network in keras.applications, such as 224,224,3.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@_command
def cost(model: str, costs: tuple[str, ...], structure: Path | None, input_shape: str | None, as_json: bool) -> None:
    """Count what MODEL costs, layer by layer.

    MODEL is a saved .keras file or keras.applications:NAME. A multiply-add counts as 2 FLOPs.
    """
    _start(verbose=False)
    from .model_costs import count, show

    result = count(model, costs, structure, input_shape)
    if as_json:
        click.echo(result.to_json())
    else:
        show(result)


def main() -> None:
    """The console script."""
    cli(prog_name="morph-tfx")


if __name__ == "__main__":
    main()
