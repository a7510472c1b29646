"""`morph-tfx calibrate`: how long a model's operations take on this device, written to a file."""

from __future__ import annotations

from pathlib import Path

from .command import click, command, start


@click.command()
@click.argument("model")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The file to write, such as phone.json.")
@click.option(
    "--runtime",
    type=click.Choice(["tf.function", "xla", "litert"]),
    default="tf.function",
    show_default=True,
    help="How the network will run: by TensorFlow, compiled by XLA, or as a LiteRT file on one thread.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="What it will compute in; LiteRT in float32 only.",
)
@click.option("--batch-size", default=1, show_default=True, help="Of the network when it runs.")
@click.option("--points", default=6, show_default=True, help="Widths at which each operation is measured.")
@click.option("--networks", default=8, show_default=True, help="Whole networks that are measured besides.")
@click.option("--repeats", default=30, show_default=True, help="Of each measurement.")
@click.option("--input-shape", help="Of a network in keras.applications, such as 224,224,3.")
@command
def calibrate(
    model: str,
    output: Path,
    runtime: str,
    dtype: str,
    batch_size: int,
    points: int,
    networks: int,
    repeats: int,
    input_shape: str | None,
) -> None:
    """Measure on this device what MODEL takes at any widths.

    MODEL is a saved .keras file or keras.applications:NAME. The file serves as cost="latency:FILE.json". A run that was
    stopped goes on where it was. Let nothing else run meanwhile; the end says how well measurements repeat. Fewer
    points, networks and repeats take less time.
    """
    start(verbose=False)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    import morph_core as morph
    from morph_core.device.calibrate import described, unsteady

    from .model_costs import load_model

    network = load_model(model, input_shape)
    columns = (TextColumn("Measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}")) as bar:
        task = bar.add_task("", total=None)
        calibration = morph.calibrate(
            network,
            output,
            runtime=runtime,
            dtype=dtype,
            batch_size=batch_size,
            points=points,
            networks=networks,
            repeats=repeats,
            notice=lambda now: bar.update(task, completed=now.done, total=now.total, description=now.what),
        )
    click.echo(described(calibration))
    if advice := unsteady(calibration):
        click.echo(advice)
    click.echo(f"Wrote {output}. Use it as --cost latency:{output}")
