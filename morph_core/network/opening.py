"""Opening composite layers: a layer whose `call` runs other layers becomes those calls, one flat list of them.

A transformer's block is one layer to Keras, and what happens inside is Python code. But that code runs as well on
symbolic tensors, on which every Keras layer and operation leaves a record. So the network is run once more, on symbolic
inputs, and while it runs each composite layer answers the question for its output's shape by running its own `call`.
Keras sets the stage for each of them as it always does (types, masks, whether this is training); what they run is
recorded, level by level, down to layers that have a rule or belong to Keras. The seed is left as it was.

Three things would be missed by the record alone:

*Weights.* Code may use a weight directly (`x * self.gamma`). While the network runs, the attributes that hold weights
hold symbolic tensors instead, so that all that is computed with them is recorded, too.

*Sizes.* Code may ask for sizes that a symbolic input does not know, such as that of the batch. The network is then run
at two or three sizes, and numbers that differ between these runs are written as what they are of the sizes.

*Training.* The first run is one at inference and the others are of training. A layer that runs other things in training
stays closed, but for losses that it adds then: what leads to them is followed as well, and a `TrainingLoss` adds them.

Code may also have a way of its own for the backend at hand, which no symbolic tensor can go. Then it is run once more,
as if by no backend that it knows, and goes the way of all others.

What cannot be opened stays closed, with the reason: then the layer is one call, as it is in Keras' own record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from .merging import Merger, Opened
from .recording import Run, Sizes, needed, run_at
from .trace import input_structure


def open_network(model: keras.Model, is_leaf: Callable[[Any], bool]) -> Opened:
    """Open the composite layers of a model, to any depth; the model is left untouched.

    Args:
        model: functional or Sequential.
        is_leaf: whether a layer is to stay as it is, since it is known what it does.
    """
    keep_closed: dict[int, str] = {}
    sizes = _sample_sizes(model)
    while True:
        # The first run is one at inference, all others are runs of training.
        runs = [run_at(model, is_leaf, keep_closed, one, place > 0) for place, one in enumerate(sizes)]
        if refused := _closed_at_times(runs) or _held_by_closed(runs[0]):
            keep_closed.update(refused)
            continue
        taken = list(sizes)
        if any(run.losses for run in runs):
            # What leads to a loss is there in training only, and is needed at all sizes.
            runs.append(run_at(model, is_leaf, keep_closed, sizes[0], True))
            taken.append(sizes[0])
        opened = Merger(model, runs, taken).merge()
        if isinstance(opened, Opened):
            return opened
        keep_closed.update(opened)


def _closed_at_times(runs: list[Run]) -> dict[int, str]:
    """Layers that stayed closed in some of the runs, by id, and why; of those inside each other the innermost."""
    closed = {key: found for run in runs for key, found in run.closed.items()}
    some = {key: found for key, found in closed.items() if any(key not in run.closed for run in runs)}
    return {
        key: reason
        for key, (layer, reason) in some.items()
        if not any(id(one) in some for one in layer._flatten_layers(include_self=False))
    }


def _held_by_closed(run: Run) -> dict[int, str]:
    """Layers that were opened though one that stays closed holds them, too, by id: a network has one of each."""
    opened = {id(step.owner) for step in needed(run, run.outputs)}
    return {
        id(inner): f"layer '{layer.name}', which stays closed, holds it, too"
        for layer, _ in run.closed.values()
        for inner in layer._flatten_layers(include_self=False)
        if id(inner) in opened and inner.variables
    }


def _sample_sizes(model: Any) -> list[Sizes]:
    shapes = [tensor.shape for tensor in keras.tree.flatten(input_structure(model))]
    unknown = [shape for shape in shapes if None in shape[1:]]
    if not unknown:
        return [Sizes(11, None), Sizes(13, None)]
    one, two = (13, 17) if max(map(len, unknown)) < 4 else (224, 256)
    return [Sizes(11, one), Sizes(19, one), Sizes(11, two)]
