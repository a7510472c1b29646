"""Which networks of keras-hub and keras.applications the library can prune, and how much of them: a row for each.

    python -m benchmarks.coverage [NAME ...]

Backbones and task models of keras-hub are made small; networks of keras.applications have the size that they are
published in. All have random weights and are called, on the CPU, on inputs of known shape, as a user would call them.
Needs keras-hub 0.25.1 beside the library; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import morph_core as morph
from benchmarks.hub import application_names, batch_for, names, network, on_known_inputs, task_names
from benchmarks.watched import watched_flops
from morph_core.arrays import weight_of
from morph_core.network.agreement import largest_difference


@dataclasses.dataclass
class Row:
    """What is known of one network.

    Attributes:
        parameters: of the network.
        calls: of layers and operations, composite layers opened.
        seconds: of processor time, from the model to its channels and FLOPs.
        closed: why layers could not be opened, by their path.
        groups: that can be pruned.
        prunable: share of the parameters outside of embeddings that are in weights of which channels can go.
        counted: FLOPs by the library over FLOPs that TensorFlow was watched to spend; 1 is right.
        uncounted: share of the parameters in layers whose work is not known.
        whole: how far the rebuilt network of full width is from the seed, relative to the largest output.
        masks: the worst of three random structures, rebuilt against masked.
        pruned_count: as `counted`, for the rebuilt network of half of the channels.
        loaded: how far the rebuilt network is from itself, saved and loaded.
        error: what failed, and at which stage.
    """

    name: str
    parameters: int = 0
    calls: int = 0
    seconds: float = math.nan
    closed: dict[str, str] = dataclasses.field(default_factory=dict)
    groups: int = 0
    prunable: float = math.nan
    counted: float = math.nan
    uncounted: float = math.nan
    whole: float = math.nan
    masks: float = math.nan
    pruned_count: float = math.nan
    loaded: float = math.nan
    error: str = ""


def prunable_share(graph: morph.ChannelGraph) -> float:
    """Of the parameters outside of embeddings, the share in weights along whose axes some channel can go."""
    total, prunable, seen = 0, 0, set()
    for call, rule, axes in zip(graph.trace.calls, graph.rules, graph.axes, strict=True):
        if (
            "embedding" in f"{call.name} {call.kind}".lower()
            or id(call.layer) in seen
            or not isinstance(call.layer, keras.Layer)
        ):
            continue
        seen.add(id(call.layer))
        total += call.layer.count_params()
        for path, follows in rule.weights.items():
            weight: Any = weight_of(call.layer, path)
            units = [axes[name] for name in follows if name in axes]
            if weight is not None and any(graph.prunable[graph.group_of[one[one >= 0]]].any() for one in units):
                prunable += math.prod(weight.shape)
    return prunable / max(total, 1)


def random_structure(graph: morph.ChannelGraph, share: float, seed: int) -> morph.Structure:
    """A share of the channels of each group that can be pruned, by chance, and at least one."""
    rng = np.random.default_rng(seed)
    alive = {
        group.name: sorted(rng.choice(group.size, max(1, round(share * group.size)), replace=False).tolist())
        for group in graph.groups
        if group.prunable
    }
    return morph.describe(graph, {name: len(kept) for name, kept in alive.items()}, alive)


def watched(model: keras.Model) -> int:
    """FLOPs that TensorFlow spends on one example."""
    example = batch_for(model, count=1)
    return sum(watched_flops(lambda: model(example, training=False)).values())


def examine(name: str) -> Row:
    """Everything about one network."""
    row = Row(name)
    stage = "made"
    try:
        model = on_known_inputs(network(name))
        row.parameters = model.count_params()
        inputs = batch_for(model)
        expected = model(inputs, training=False)
        stage = "followed"
        start = time.process_time()
        graph = morph.ChannelGraph.from_model(model)
        flops = graph.cost("flops")
        row.seconds = time.process_time() - start
        row.calls = len(graph.trace.calls)
        row.closed = dict(note.split(" stays closed: ", 1) for note in graph.notes if " stays closed: " in note)
        row.groups, row.prunable = int(graph.prunable.sum()), prunable_share(graph)
        row.uncounted = sum(layer.share for layer in graph.uncounted.values())
        row.counted = flops / watched(model)
        stage = "rebuilt"
        whole = morph.rebuild(model, random_structure(graph, 1.0, 0), weights="inherit")
        row.whole = largest_difference(expected, whole(inputs, training=False))
        stage = "pruned"
        structures = [random_structure(graph, 0.5, seed) for seed in range(3)]
        row.masks = max(morph.verify(model, structure, inputs) for structure in structures)
        student = morph.rebuild(model, structures[0], weights="inherit")
        row.pruned_count = graph.cost("flops", structures[0]) / watched(student)
        stage = "saved and loaded"
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "student.keras")
            student.save(path)
            again = keras.models.load_model(path)(inputs, training=False)
        row.loaded = largest_difference(student(inputs, training=False), again)
    except Exception as error:  # noqa: BLE001 -- a table of what works needs the rows of what does not
        row.error = f"not {stage}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args().names or [*names(), *task_names(), *application_names()]
    titles = (
        "network, parameters, calls, CPU s, groups, prunable, FLOPs against watched, uncounted, whole, at masks, "
        "pruned FLOPs against watched, loaded, what is closed or failed"
    ).split(", ")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name in chosen:
        row = examine(name)
        closed = "; ".join(f"{path}: {reason}" for path, reason in row.closed.items())
        print(
            f"| {row.name} | {row.parameters} | {row.calls} | {row.seconds:.2f} | {row.groups} | {row.prunable:.2f} | "
            f"{row.counted:.4f} | {row.uncounted:.3f} | {row.whole:.0e} | {row.masks:.0e} | {row.pruned_count:.4f} | "
            f"{row.loaded:.0e} | {row.error} {closed} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
