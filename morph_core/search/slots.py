"""The state of an optimizer, handed on to the optimizer of a smaller network: each slot is cut as its variable was.

Momentum, running squares, averages and accumulated gradients lie beside each weight, in its shape; the count of steps,
the learning rate and the loss scale are single numbers. An optimizer that knows anything else cannot be cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from ..arrays import as_numpy
from ..errors import MorphError
from ..structure.rebuild import Part
from .optimizer import SplitOptimizer


@dataclasses.dataclass(frozen=True)
class _State:
    """What one optimizer knows, by the names of its attributes.

    Attributes:
        numbers: single numbers.
        slots: (attribute, rank of the trainable variable) -> the slot of that variable.
        trained: the trainable variables.
    """

    numbers: dict[str, Any]
    slots: dict[tuple[str, int], Any]
    trained: Sequence[Any]


def check_sliceable(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises MorphError where the state of a built optimizer has a part that cannot be cut with the channels."""
    for each in _nested(optimizer):
        _state_of(each)


def hand_on(
    optimizer: keras.optimizers.Optimizer, heir: keras.optimizers.Optimizer, parts: Iterable[Part]
) -> keras.optimizers.Optimizer:
    """Gives an optimizer the state of another one.

    Args:
        optimizer: of the search; what it keeps for gates stays behind.
        heir: of the same settings, built for the smaller network.
        parts: what the variables of that network are parts of.

    Returns:
        `heir`.

    Raises:
        MorphError: a slot cannot be cut.
    """
    origin = {id(part.variable): part for part in parts}
    for old, new in zip(_nested(optimizer), _nested(heir), strict=True):
        mine, theirs = _state_of(old), _state_of(new)
        for name, number in theirs.numbers.items():
            number.assign(as_numpy(mine.numbers[name]))
        rank_of = {id(variable): rank for rank, variable in enumerate(mine.trained)}
        for (name, rank), slot in theirs.slots.items():
            part = origin[id(theirs.trained[rank])]
            slot.assign(part.cut(as_numpy(mine.slots[name, rank_of[id(part.whole)]])))
    return heir


def _nested(optimizer: Any) -> Iterator[Any]:
    """The optimizer and those inside it, as that of a LossScaleOptimizer; the gates' is none of them."""
    while isinstance(optimizer, SplitOptimizer):
        optimizer = optimizer.inner
    yield optimizer
    for value in list(vars(optimizer).values()):
        if isinstance(value, keras.optimizers.Optimizer):
            yield from _nested(value)


def _state_of(optimizer: Any) -> _State:
    """What an optimizer knows, that of optimizers inside it left out."""
    trained = list(optimizer._trainable_variables)
    foreign = {id(variable) for variable in trained}
    numbers: dict[str, Any] = {}
    slots: dict[tuple[str, int], Any] = {}
    for name, value in vars(optimizer).items():
        if isinstance(value, keras.Variable):
            numbers[name] = value
        elif name != "_variables":
            for rank, slot in _ranked(value, trained):
                if isinstance(slot, keras.Variable) and id(slot) not in foreign:
                    slots[name, rank] = slot
    _check_whole(optimizer, numbers, slots, trained)
    return _State(numbers, slots, trained)


def _ranked(value: Any, trained: Sequence[Any]) -> list[tuple[int, Any]]:
    """The entries of a list with one for each trainable variable, or of a dict by their paths, with their ranks."""
    if isinstance(value, Mapping):
        return [(rank, value[variable.path]) for rank, variable in enumerate(trained) if variable.path in value]
    if isinstance(value, (list, tuple)) and len(value) == len(trained):
        return list(enumerate(value))
    return []


def _check_whole(
    optimizer: Any, numbers: Mapping[str, Any], slots: Mapping[tuple[str, int], Any], trained: Sequence[Any]
) -> None:
    who = f"Optimizer '{optimizer.name}' ({type(optimizer).__name__})"
    hint = (
        "Its state cannot be cut with the channels, so training cannot go on within the same fit. Compile with an "
        "optimizer that keeps its state in the shape of each weight (SGD, Adam, AdamW, RMSprop, ...), or search with "
        'search_fraction=1.0 and train morph.rebuild(model, search.structure(), weights="inherit") by itself.'
    )
    for name, number in numbers.items():
        if len(number.shape):
            raise MorphError(
                f"{who} keeps '{name}' of shape {tuple(number.shape)}, which belongs to no single weight. {hint}"
            )
    for (name, rank), slot in slots.items():
        if tuple(slot.shape) != tuple(trained[rank].shape):
            raise MorphError(
                f"{who} keeps '{name}' of shape {tuple(slot.shape)} for weight '{trained[rank].path}' of shape "
                f"{tuple(trained[rank].shape)}. {hint}"
            )
    known = {id(variable) for variable in [*numbers.values(), *slots.values()]}
    for variable in optimizer._variables:
        if id(variable) not in known:
            raise MorphError(
                f"{who} keeps variable '{variable.path}' of shape {tuple(variable.shape)}, and nothing tells which "
                f"weight it belongs to. {hint}"
            )
