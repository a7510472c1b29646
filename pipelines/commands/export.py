"""`morph-tfx export`: a model as the file that a device runs, compared with the model before it is kept."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from .command import click, command, start


@click.command()
@click.argument("model")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The file to write: .tflite or .onnx.")
@click.option(
    "--examples",
    required=True,
    type=click.Path(path_type=Path),
    help="A .npz file of real inputs: x, or an array under the name of each input. Labels, if any, are y.",
)
@click.option(
    "--format",
    type=click.Choice(["litert", "litert-float16", "litert-dynamic", "litert-int8", "onnx"]),
    help="By default litert or onnx in float32, as the output's name says. litert-float16 and litert-dynamic hold "
    "smaller weights, litert-int8 computes in whole numbers.",
)
@click.option("--batch-size", default=1, show_default=True, help="That the file is made for; ONNX takes any.")
@click.option(
    "--tolerance", type=float, help="How far outputs may be off, as a share of the largest; else the format's."
)
@click.option("--keep-slower", is_flag=True, help="Keep the file even if it is slower than the model here.")
@command
def export(
    model: str,
    output: Path,
    examples: Path,
    format: str | None,
    batch_size: int,
    tolerance: float | None,
    keep_slower: bool,
) -> None:
    """Write MODEL, a saved .keras file, for a device.

    The file is run on the examples beside the model, and both are timed on this machine. One that answers otherwise, or
    is slower, is not kept.
    """
    start(verbose=False)
    import morph_core as morph

    from .model_costs import load_model

    network = load_model(model, None)
    inputs, labels = _read(examples, network)
    done = morph.export(
        network,
        output,
        inputs,
        format=format or ("onnx" if output.suffix == ".onnx" else "litert"),
        labels=labels,
        batch_size=batch_size,
        tolerance=tolerance,
        keep_slower=keep_slower,
    )
    theirs, ours = done.milliseconds
    click.echo(f"Compared on {done.examples} examples: outputs differ by {done.difference:.2g} of the largest at most.")
    if done.accuracy is not None:
        click.echo(f"Accuracy: {done.accuracy[0]:.1%}, of the model {done.accuracy[1]:.1%}.")
    click.echo(f"Size: {done.size:,} bytes. Latency here: {theirs:.3g} ms a batch, of the model {ours:.3g} ms.")
    if done.problem:
        raise morph.MorphError(f"{output} was not written: {done.problem}.")
    click.echo(f"Wrote {done.path}")


def _read(path: Path, network: Any) -> tuple[Any, Any]:
    """Inputs as the model takes them, and labels where there are any."""
    import numpy as np

    import morph_core as morph

    names = [tensor.name for tensor in network.inputs]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise morph.MorphError(
            f"{path} cannot be read as examples ({error}). Write it with numpy.savez(path, x=inputs, y=labels)."
        ) from error
    labels = arrays.pop("y", None)
    if len(names) == 1 and len(arrays) == 1:
        return next(iter(arrays.values())), labels
    missing = [name for name in names if name not in arrays]
    if missing:
        raise morph.MorphError(
            f"{path} has the arrays {', '.join(arrays) or 'none'}, but no input {', '.join(missing)}. Write one "
            "array for each input, under its name, and labels under y."
        )
    return [arrays[name] for name in names], labels
