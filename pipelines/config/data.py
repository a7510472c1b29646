"""Where the examples are, in which files, and how they are split for training and evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .location import Location
from .section import Section, expect_one
from .spans import braced, placeholders


class DataConfig(Section):
    """Where the examples are and how they are split into `train` and `eval`.

    File patterns may hold the placeholders of TFX's spans: of all the data that matches, the newest span is read.
    """

    format: Literal["tfrecord", "csv"] = Field(description="the files are 'tfrecord' (of tf.train.Example) or 'csv'")
    path: Location = Field(description="the directory that holds the files", examples=["data"])
    splits: dict[str, str] | None = Field(
        None,
        description="file patterns below 'path' for the splits 'train' and 'eval', both needed",
        examples=["{train: train/*, eval: eval/*}"],
    )
    eval_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="without 'splits': the fraction of all examples that becomes 'eval'",
        examples=[0.2],
    )
    pattern: str | None = Field(
        None,
        min_length=1,
        description="with 'eval_fraction': file pattern of all examples below 'path', by default every file there",
        examples=['"day-{YYYY}-{MM}-{DD}/*"'],
    )

    @model_validator(mode="after")
    def _one_way_to_split(self) -> DataConfig:
        if self.splits is not None and set(self.splits) != {"train", "eval"}:
            raise ValueError(
                f"'splits' names {', '.join(map(repr, sorted(self.splits))) or 'nothing'}; exactly 'train' and 'eval' "
                "are expected. For example: splits: {train: train/*, eval: eval/*}"
            )
        expect_one(self, {"splits": "file patterns", "eval_fraction": "split by hash"})
        if self.splits is not None and self.pattern is not None:
            raise ValueError("'pattern' goes with 'eval_fraction'; with 'splits' each split has a pattern of its own")
        return self

    @model_validator(mode="after")
    def _spans_make_sense(self) -> DataConfig:
        found = {name: placeholders(name, pattern) for name, pattern in self.patterns.items()}
        if len(set(map(frozenset, found.values()))) > 1:
            listed = "; ".join(f"{name}: {', '.join(map(braced, names)) or 'none'}" for name, names in found.items())
            raise ValueError(
                f"the splits have different placeholders ({listed}), so they would come from different spans. Give "
                "both the same, such as {train: train-{SPAN}/*, eval: eval-{SPAN}/*}"
            )
        return self

    @property
    def patterns(self) -> dict[str, str]:
        """File patterns below `path`, by split; one called `all` where the examples are split by hash."""
        return self.splits if self.splits is not None else {"all": self.pattern or "*"}

    @property
    def has_spans(self) -> bool:
        """Whether the newest of several spans is read."""
        return any("{" in pattern for pattern in self.patterns.values())
