"""What the files of one split hold, as a look at each of their rows found it; the same for every format."""

from __future__ import annotations

import dataclasses
import math

from morph_core import MorphError

MOST_LABELS = 1000
"""Different labels that are remembered: more of them are no classes, but numbers to be estimated."""

WHOLE, NUMBERS, TEXT = "whole numbers", "numbers", "text"


@dataclasses.dataclass
class Contents:
    """What is in one split.

    Attributes:
        examples: how many there are.
        kinds: what each feature holds, by name: "whole numbers", "numbers" or "text"; a feature that is empty
            everywhere has no entry.
        features: the names of all.
        labels: the different labels, at most `MOST_LABELS` of them.
        remarks: what a person should know, one sentence each.
    """

    examples: int = 0
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    features: list[str] = dataclasses.field(default_factory=list)
    labels: set[str | int | float] = dataclasses.field(default_factory=set)
    remarks: list[str] = dataclasses.field(default_factory=list)

    def remember(self, label: str | int | float) -> None:
        """Adds a label to those that were seen."""
        if len(self.labels) < MOST_LABELS:
            self.labels.add(label)


@dataclasses.dataclass
class Unusable:
    """Rows that cannot be used: how many, and where the first of them is.

    Attributes:
        what: is wrong with them, as in "the label is empty ('kind')".
        advice: what to do about it, a sentence.
        first: place of the first, as in "data/a.csv, line 17"; empty where there is none.
        count: of all.
    """

    what: str
    advice: str
    first: str = ""
    count: int = 0

    def add(self, place: str) -> None:
        """One more row."""
        self.first = self.first or place
        self.count += 1

    def refuse(self) -> None:
        """Raises MorphError where there is such a row."""
        if self.count:
            more = f" So it is in {self.count} rows." if self.count > 1 else ""
            raise MorphError(f"data: {self.first}: {self.what}.{more} {self.advice}")


def without_label(what: str, label: str) -> Unusable:
    """Rows from which nothing can be learned, because `what` is wrong with their label."""
    advice = "Every example needs a label to learn from: fill it in, or take the row out."
    return Unusable(f"{what} ({label!r})", advice)


def without_feature(name: str) -> Unusable:
    """Rows that lack a feature which the model that was pushed last was trained with in every example."""
    advice = (
        "The model that was pushed last was trained with it in every example, and its network takes no other: fill it "
        "in, take the row out, or search anew."
    )
    return Unusable(f"the feature {name!r} is empty", advice)


def is_no_number(label: str | float) -> bool:
    """Whether a label says that there is none: NaN, as a number or as text."""
    if isinstance(label, str):
        return label.strip().lower() in ("nan", "+nan", "-nan")
    return math.isnan(label)
