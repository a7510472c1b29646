"""The command `morph-tfx`. Heavy imports wait until a command needs them, so that `--help` is instant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .cluster_commands import schedule, submit
from .command import click, command, config_option, pipeline_option, start, verbose_option

if TYPE_CHECKING:
    from ..config import PipelineKind


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="morph-tfx")
def cli() -> None:
    """Learn how wide every layer of a Keras network should be, inside a TFX pipeline."""


@cli.command()
@click.argument("directory", default="build/demo", type=click.Path(path_type=Path, file_okay=False))
@verbose_option
@command
def demo(directory: Path, verbose: bool) -> None:
    """Run the whole pipeline on handwritten digits, in DIRECTORY (default: build/demo)."""
    click.echo(f"Preparing {directory} ...")
    start(verbose)
    from ..local.demo import run_demo

    run_demo(directory, say=click.echo, verbose=verbose)


@cli.command()
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


@cli.command()
@config_option
@pipeline_option
@verbose_option
@command
def run(config_file: Path, pipeline: PipelineKind, verbose: bool) -> None:
    """Run a pipeline of a configuration on this machine."""
    start(verbose)
    from ..config import load_config
    from ..local.runner import run_pipeline
    from ..local.summary import show_summary

    config = load_config(config_file)
    show_summary(run_pipeline(config, say=click.echo, verbose=verbose, pipeline=pipeline), config)


@cli.command(name="compile")
@config_option
@pipeline_option
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The job, a YAML file.")
@verbose_option
@command
def compile_(config_file: Path, pipeline: PipelineKind, output: Path, verbose: bool) -> None:
    """Compile a pipeline of a configuration to a Kubeflow Pipelines v2 job."""
    start(verbose)
    from ..config import load_config
    from ..kubeflow.runner import compile_pipeline

    compile_pipeline(load_config(config_file), output, say=click.echo, verbose=verbose, pipeline=pipeline)


@cli.command()
@click.argument("model")
@click.option("--cost", "costs", multiple=True, help="What to count, such as flops or latency:v100; may be repeated.")
@click.option("--structure", type=click.Path(path_type=Path), help="Count for this structure, too.")
@click.option("--input-shape", help="Of a network in keras.applications, such as 224,224,3.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@command
def cost(model: str, costs: tuple[str, ...], structure: Path | None, input_shape: str | None, as_json: bool) -> None:
    """Count what MODEL costs, layer by layer.

    MODEL is a saved .keras file or keras.applications:NAME. A multiply-add counts as 2 FLOPs.
    """
    start(verbose=False)
    from .model_costs import count, show

    result = count(model, costs, structure, input_shape)
    if as_json:
        click.echo(result.to_json())
    else:
        show(result)


cli.add_command(submit)
cli.add_command(schedule)


def main() -> None:
    """The console script."""
    cli(prog_name="morph-tfx")


if __name__ == "__main__":
    main()
