"""`morph-tfx cost`: what a model costs; `model_costs` counts it and draws the tables."""

from __future__ import annotations

from pathlib import Path

from .command import click, command, start


@click.command()
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
