"""A model card: a short Markdown page that travels with a model, and says what it is and where it came from.

It answers what somebody asks who finds the model years later: what data, what network, what it costs, how it was found,
how good it was. The headings follow Mitchell et al., "Model Cards for Model Reporting", 2019; what only people know
(what the model is for, and for whom not) stays theirs to write.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..structure.structure import MEASURED_LATENCY, Structure
from .page import goal_in_words
from .wording import FLOPS_NOTE, change, channel_counts, exact, label, layers_with_channels, measured_in_words

# Of the settings, what is long and stands in the report.
_LONG = ("frozen", "budget", MEASURED_LATENCY)

MOST_VALUES = 50
"""Values of one feature that a card has a row for: a feature with thousands of them is an identity, not a kind."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """What an evaluation found of the examples with one value of a feature.

    Attributes:
        feature: its name; "" where all examples are meant.
        value: of the feature; None for all examples, and where no example has the feature.
        metrics: by name.
        examples: how many there are; None where nobody counted.
    """

    feature: str
    value: str | int | float | None
    metrics: Mapping[str, float]
    examples: int | None = None


def card(
    structure: Structure,
    title: str = "Model card",
    data: Mapping[str, Any] | None = None,
    measured: Mapping[str, float] | None = None,
) -> str:
    """Writes the card of a network that was built from a structure.

    Args:
        structure: of the network.
        title: of the page, in one line.
        data: what is known of the data, by name, such as {"features": "image, label"}.
        measured: what was measured of the trained network, by name, such as {"val_accuracy": 0.97}.

    Returns:
        Markdown. Equal arguments give equal text.

    Example:
        >>> import keras, morph_core as morph
        >>> inputs = keras.Input((8,))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(16, name="hidden")(inputs)))
        >>> structure = morph.describe(morph.ChannelGraph.from_model(model), {"hidden": 4})
        >>> "| hidden | Dense | 16 | 4 |" in morph.report.card(structure)
        True
    """
    makers = layers_with_channels(structure.layers)
    counts = channel_counts(makers)
    goal = goal_in_words(structure)
    removed = structure.removed["layers"]
    parts = [f"# {_line(title)}"]
    if data:
        parts += ["## Data", _items(data)]
    parts += [
        "## Structure",
        f"{counts['now']} channels are left of the seed's {counts['seed']}. The seed is {structure.fingerprint}.",
        _table(
            ("layer", "kind", "seed", "now"),
            [(layer["name"], layer["kind"], layer["seed_width"], layer["width"] or "removed") for layer in makers],
        ),
    ]
    if removed:
        parts.append("Removed: " + ", ".join(map(_line, removed)) + ".")
    parts += [
        "## Costs",
        _table(
            ("cost", "before", "after", "change"),
            [
                (label(name), exact(pair["seed"]), exact(pair["structure"]), change(pair["seed"], pair["structure"]))
                for name, pair in structure.costs.items()
            ],
        ),
        FLOPS_NOTE,
        *([_line(latency)] if (latency := measured_in_words(structure)) else []),
        "## How it was searched",
        " ".join(text for text in (f"{goal['head']}.", goal["text"], goal["expansion"]) if text),
    ]
    settings = {name: value for name, value in structure.settings.items() if name not in _LONG and value is not None}
    if settings:
        parts.append(_items(settings))
    if measured:
        parts += ["## Measured", _table(("measure", "value"), [(name, f"{it:.6g}") for name, it in measured.items()])]
    return "\n\n".join(parts) + "\n"


def evaluated(slices: Sequence[Slice]) -> str:
    """The section of a card that says how good the model is on which examples.

    It stands by itself because a model is evaluated when its card is written already.

    Args:
        slices: in the order in which they are shown. Of a feature with many values, those with the most examples are.

    Returns:
        Markdown: a heading and a table.
    """
    names = list(dict.fromkeys(name for one in slices for name in one.metrics))
    rows, left_out = [], []
    for feature in dict.fromkeys(one.feature for one in slices):
        some = [one for one in slices if one.feature == feature]
        kept = {id(one) for one in sorted(some, key=lambda one: -(one.examples or 0))[:MOST_VALUES]}
        rows += [
            (
                _named(one),
                "" if one.examples is None else f"{one.examples:,}",
                *(f"{one.metrics[name]:.6g}" if name in one.metrics else "" for name in names),
            )
            for one in some
            if id(one) in kept
        ]
        if len(some) > MOST_VALUES:
            left_out.append(
                f"{_line(feature)} has {len(some) - MOST_VALUES:,} more values, each of at most as many examples."
            )
    return "\n\n".join(["## Evaluated", _table(("on", "examples", *names), rows), *left_out])


def _named(one: Slice) -> str:
    if not one.feature:
        return "all"
    return f"{one.feature}: no example has it" if one.value is None else f"{one.feature} = {one.value}"


def _items(facts: Mapping[str, Any]) -> str:
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        for name, value in facts.items()
    }
    return "\n".join(f"- {_line(name)}: {_line(text)}" for name, text in texts.items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_line(str(cell)) for cell in line) + " |" for line in lines)


def _line(text: str) -> str:
    """Text that stays in its line and its cell, and is no markup."""
    safe = " ".join(str(text).split())
    for mark in ("\\", "|", "<", "`", "[", "]"):
        safe = safe.replace(mark, f"\\{mark}")
    return safe
