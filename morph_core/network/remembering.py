"""What was found about a model, remembered with it: to follow channels through a network takes up to seconds.

A functional model's wiring stays as it is, but its layers are ordinary objects, and rules can be registered. So what is
remembered holds only as long as every attribute of every layer is the object that it was, and every rule, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from .rules import RULES
from .trace import function_of

Found = TypeVar("Found")
_ATTRIBUTE = "_morph_remembered"


@dataclasses.dataclass(frozen=True, eq=False)
class _Remembered:
    """Something found, with what it depends on."""

    found: Any
    depends_on: list[Any]


def remembered(model: keras.Model, find: Callable[[], Found]) -> Found:
    """What `find` finds about a model, as it was found before if nothing has changed since.

    Raises:
        MorphError: the model is subclassed or not built.
    """
    # On the functional graph behind a model, which a Sequential makes anew when a layer is added.
    held = vars(function_of(model))
    known = held.get(_ATTRIBUTE)
    if known is not None and _alike(known.depends_on, _dependencies(model)):
        return known.found
    found = find()
    # Past Keras, which keeps an account of the attributes that are set.
    held[_ATTRIBUTE] = _Remembered(found, _dependencies(model))
    return found


def _dependencies(model: Any) -> list[Any]:
    """All objects that what is found may depend on, in a fixed order."""
    found: list[Any] = [model.name, *RULES, *RULES.values()]
    for layer in model._flatten_layers(include_self=False):
        found += (layer, *vars(layer), *vars(layer).values())
    return found


def _alike(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
