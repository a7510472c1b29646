"""What a search would otherwise ignore in silence or find out when it is over, checked when it is made."""

from __future__ import annotations

import random

import keras

from ..errors import MorphError
from ..structure.rebuild import rebuilt_at
from .plan import Plan

_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")


def check_plain_steps(model: keras.Model) -> None:
    """Raise when a seed trains in a way of its own: a search runs its layers, not its steps."""
    for name in _STEPS:
        if name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name):
            raise MorphError(
                f"Model '{model.name}' ({type(model).__name__}) has a {name} of its own, which a search would not run: "
                "it trains the model's layers with its own step. Say what is special by add_loss in a layer, or by the "
                "loss and metrics given to search.compile, and search keras.Model(model.inputs, model.outputs)."
            )


def check_rebuildable(model: keras.Model, plan: Plan) -> None:
    """Rebuild the network once, at three of the smallest widths that it may get, and forget it: failures come now.

    Raises:
        MorphError: a layer cannot be made anew, or not be called at other widths.
    """
    graph = plan.budget.graph
    widths = graph.seed_widths.copy()
    for group, rungs in enumerate(plan.choices.ladders):
        if plan.gate.learns[group]:
            # Unequal ones: groups that are taken for independent must be.
            widths[group] = rungs[min(group % 3, len(rungs) - 1)]
    # Initializers draw their seeds here; a search must not change what comes after it.
    state = random.getstate()
    try:
        rebuilt_at(model, graph, widths, graph.survivors(widths > 0))
    finally:
        random.setstate(state)
