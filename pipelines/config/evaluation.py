"""When a model is good enough to be pushed, and which one is pushed where several budgets are compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .section import Section, expect_one


class EvaluateConfig(Section):
    """When a retrained model is good enough to be pushed."""

    metric: str = Field(
        "SparseCategoricalAccuracy",
        pattern=r"^[A-Z]\w+$",
        description="class name of a Keras or TFMA metric",
        examples=["SparseCategoricalAccuracy"],
    )
    lower_bound: float | None = Field(None, description="push only if the metric is at least this", examples=[0.8])
    upper_bound: float | None = Field(
        None, description="for a metric where less is better: push only if it is at most this", examples=[0.1]
    )
    max_drop: float = Field(
        0.0,
        ge=0,
        description="how much worse than the latest blessed model the metric may be, absolute",
        examples=[0.01],
    )
    slices: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="features of the raw examples: the model's card has the metric for each of their values, too",
        examples=["[country]"],
    )

    @model_validator(mode="after")
    def _different_slices(self) -> EvaluateConfig:
        if len(set(self.slices)) < len(self.slices):
            raise ValueError(
                f"slices: {', '.join(self.slices)}: different features are expected. Name each of them once"
            )
        return self

    @model_validator(mode="after")
    def _one_bound(self) -> EvaluateConfig:
        bounds = {"lower_bound": "more is better", "upper_bound": "less is better"}
        expect_one(self, bounds, example="lower_bound: 0.8")
        return self

    @property
    def higher_is_better(self) -> bool:
        return self.lower_bound is not None


class ChooseConfig(Section):
    """Which of several learned networks is pushed."""

    min_accuracy: float | None = Field(
        None,
        description="push the smallest whose metric is at least this (with evaluate.upper_bound: at most)",
        examples=[0.9],
    )
    max_cost: float | None = Field(
        None, gt=0, le=1, description="push the best that costs at most this fraction of the seed", examples=[0.5]
    )
    max_behind_uniform: float | None = Field(
        None,
        ge=0,
        description="how much better a uniform network of its cost may be, absolute; by default one standard error of "
        "the evaluation",
        examples=[0.005],
    )

    @model_validator(mode="after")
    def _one_rule(self) -> ChooseConfig:
        expect_one(self, {"min_accuracy": "", "max_cost": ""}, example="choose: {min_accuracy: 0.9}")
        return self
