"""What the core costs itself: CPU time to trace a network and count its costs, and to rebuild it, as medians.

Every network is built once and measured several times. For the rebuild, building the same network anew from
keras.applications is measured in turn with it, so that a busy machine slows both: the ratio is what counts. CPU time is
that of this process, all threads.

    python -m benchmarks.core [--repeats 5]
"""

from __future__ import annotations

import functools
import gc
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import keras_hub
from rich.console import Console
from rich.table import Table

import morph_core as morph

CURVE = ("ResNet50", "ResNet101", "ResNet152")
LARGEST = ("ConvNeXtXLarge", "DenseNet201", "EfficientNetV2L", "NASNetLarge")
BERT = "BERT base"
# CPU seconds.
TARGETS = {"ResNet101": 0.3, BERT: 1.0} | dict.fromkeys(LARGEST, 2.0)
REBUILD_TARGET = 1.5


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Measurements of each, of which the median is shown.")
def main(repeats: int) -> None:
    """Measures and prints tables."""
    console = Console()
    table = Table(title="CPU seconds to trace a network and to count its FLOPs and parameters", title_justify="left")
    for column in ("network", "calls", "groups", "trace", "count", "both", "ms/call", "target"):
        table.add_column(column, no_wrap=True, justify="left" if column == "network" else "right")
    missed = []
    for name in (*CURVE, *LARGEST, BERT):
        row, seconds = _traced(name, repeats)
        table.add_row(*row)
        if seconds > TARGETS.get(name, seconds):
            missed.append(name)
    console.print(table)
    console.print(f"targets missed by: {', '.join(missed)}" if missed else "all targets met")
    console.print(_rebuilt("ResNet50", repeats), soft_wrap=True, highlight=False)


def bert_base(tokens: int = 128) -> keras.Model:
    """BERT base as keras-hub makes it, whose twelve blocks are composite layers, on texts of a known length."""
    backbone = keras_hub.models.BertBackbone(30522, 12, 12, 768, 3072)
    inputs = {name: keras.Input((tokens,), dtype=one.dtype, name=name) for name, one in backbone.input.items()}
    return keras.Model(inputs, backbone(inputs))


def _traced(name: str, repeats: int) -> tuple[list[str], float]:
    """A row of medians, and the CPU seconds that tracing and counting take together."""
    model = bert_base() if name == BERT else getattr(keras.applications, name)(weights=None)
    tracing, counting = [], []
    for _ in range(repeats):
        # What `ChannelGraph.from_model` calls when it does not remember the model.
        graph, seconds = _cpu(functools.partial(morph.ChannelGraph._found, model))
        tracing.append(seconds)
        counting.append(_cpu(lambda graph=graph: (graph.cost("flops"), graph.cost("params")))[1])
    both = statistics.median(a + b for a, b in zip(tracing, counting, strict=True))
    calls = len(graph.trace.calls)
    medians = (statistics.median(tracing), statistics.median(counting), both)
    keras.backend.clear_session()
    row = [name, str(calls), str(len(graph.groups)), *(f"{seconds:.3f}" for seconds in medians)]
    return [*row, f"{1e3 * both / calls:.2f}", f"{TARGETS[name]:g}" if name in TARGETS else ""], both


def _rebuilt(name: str, repeats: int) -> str:
    """A line: the median ratio of a rebuild, at full width and at half, to building from keras.applications."""
    build = functools.partial(getattr(keras.applications, name), weights=None)
    model = build()
    graph = morph.ChannelGraph.from_model(model)
    full = morph.describe(graph, {})
    half = morph.describe(graph, {group.name: group.size // 2 for group in graph.groups if group.prunable})
    ratios: dict[str, list[float]] = {"fresh": [], "inherit": [], "half": []}
    for _ in range(repeats):
        built = _cpu(build)[1]
        ratios["fresh"].append(_cpu(functools.partial(morph.rebuild, model, full))[1] / built)
        ratios["inherit"].append(_cpu(functools.partial(morph.rebuild, model, full, weights="inherit"))[1] / built)
        ratios["half"].append(_cpu(functools.partial(morph.rebuild, model, half))[1] / built)
    shown = {key: statistics.median(values) for key, values in ratios.items()}
    verdict = "met" if shown["fresh"] <= REBUILD_TARGET else "MISSED"
    return (
        f"rebuild({name}) to building it from keras.applications, median of {repeats} pairs: "
        f"{shown['fresh']:.2f} at full width (target {REBUILD_TARGET:g}: {verdict}), "
        f"{shown['inherit']:.2f} with inherited weights, {shown['half']:.2f} at half width"
    )


def _cpu(work: Callable) -> tuple:
    """What the work returns, and the CPU seconds it took."""
    gc.collect()
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


if __name__ == "__main__":
    main()
