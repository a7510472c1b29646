"""The Frontier component: trained networks with their evaluations go in, a report and the model to push come out.

TFX components have a fixed list of inputs, and Kubeflow's jobs have exactly one producer for each, so a branch is three
inputs with a number in their names: `model_0`, `evaluation_0`, `structure_0`, and so on. Those that a pipeline does not
need stay away.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from morph_core import MorphError

from ..structure_exporter import MorphStructure
from .artifact import MorphFrontier
from .executor import Executor

MOST_BRANCHES = 41
"""Twenty budgets, learned and uniform, and the seed."""


@dataclass(frozen=True)
class Branch:
    """One trained network.

    Attributes:
        label: what the report calls it, such as "learned 25 %".
        kind: how its widths came about; only learned networks can be chosen.
        model: channel of its `Model`.
        evaluation: channel of its `ModelEvaluation`, by Evaluator, with its validation result.
        structure: channel of its `MorphStructure`.
    """

    label: str
    kind: Literal["learned", "uniform", "seed"]
    model: types.BaseChannel
    evaluation: types.BaseChannel
    structure: types.BaseChannel


def _inputs() -> dict[str, ChannelParameter]:
    kinds = {
        "model": standard_artifacts.Model,
        "evaluation": standard_artifacts.ModelEvaluation,
        "structure": MorphStructure,
    }
    return {
        f"{name}_{number}": ChannelParameter(type=kind, optional=True)
        for number in range(MOST_BRANCHES)
        for name, kind in kinds.items()
    }


class FrontierSpec(ComponentSpec):
    """Inputs, outputs and parameters of `Frontier`."""

    PARAMETERS: ClassVar = {
        "branches": ExecutionParameter(type=str),
        "cost": ExecutionParameter(type=str),
        "higher_is_better": ExecutionParameter(type=int),
        "min_accuracy": ExecutionParameter(type=float, optional=True),
        "max_cost": ExecutionParameter(type=float, optional=True),
        "max_behind_uniform": ExecutionParameter(type=float, optional=True),
    }
    INPUTS: ClassVar = _inputs()
    OUTPUTS: ClassVar = {
        "frontier": ChannelParameter(type=MorphFrontier),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Frontier(base_component.BaseComponent):
    """Compares trained networks and chooses one of the learned ones.

    ```python
    frontier = Frontier([Branch("learned 50 %", "learned", model, evaluation, structure), ...], min_accuracy=0.9)
    pusher = tfx.components.Pusher(
        model=frontier.outputs["model"], model_blessing=frontier.outputs["blessing"], push_destination=...
    )
    ```

    Outputs:

    - `frontier`: a `MorphFrontier`, the report.
    - `model`: a copy of the chosen model; empty when none was chosen.
    - `blessing`: whether one was. It says so of the chosen branch's model.
    """

    SPEC_CLASS = FrontierSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        branches: Sequence[Branch],
        cost: str = "flops",
        *,
        higher_is_better: bool = True,
        min_accuracy: float | None = None,
        max_cost: float | None = None,
        max_behind_uniform: float | None = None,
    ):
        """Constructs the component.

        Args:
            branches: the networks. Each evaluation holds one metric, besides the number of examples.
            cost: what is compared; every structure has counted it.
            higher_is_better: False when the metric is a loss.
            min_accuracy: choose the smallest learned network whose metric reaches this (a loss: stays at or below it).
            max_cost: or: choose the best learned network that costs at most this fraction of the seed.
            max_behind_uniform: by how much the metric of a uniform network of its cost may be better; 0 or more.
                Without it, by one standard error of the learned network's evaluation, and by any amount where that is
                not known, as for a loss.

        Raises:
            MorphError: no or too many branches, not exactly one of min_accuracy and max_cost, or a bound below 0.
        """
        if not 1 <= len(branches) <= MOST_BRANCHES:
            raise MorphError(f"Frontier compares 1 to {MOST_BRANCHES} networks; received {len(branches)}.")
        if (min_accuracy is None) == (max_cost is None):
            got = "neither" if min_accuracy is None else "both"
            raise MorphError(f"Frontier needs exactly one of min_accuracy and max_cost; received {got}.")
        if max_behind_uniform is not None and not max_behind_uniform >= 0:
            raise MorphError(f"Frontier: max_behind_uniform is {max_behind_uniform}; expected a number of at least 0.")
        channels = {
            f"{name}_{number}": getattr(branch, name)
            for number, branch in enumerate(branches)
            for name in ("model", "evaluation", "structure")
        }
        spec = FrontierSpec(
            **channels,
            branches=json.dumps([{"label": branch.label, "kind": branch.kind} for branch in branches]),
            cost=cost,
            higher_is_better=int(higher_is_better),
            min_accuracy=None if min_accuracy is None else float(min_accuracy),
            max_cost=None if max_cost is None else float(max_cost),
            max_behind_uniform=None if max_behind_uniform is None else float(max_behind_uniform),
            frontier=types.Channel(type=MorphFrontier),
            model=types.Channel(type=standard_artifacts.Model),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
        super().__init__(spec=spec)
