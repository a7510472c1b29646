"""What a finished run left: what became of each step, and where its results lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config import is_uri

if TYPE_CHECKING:
    from tfx.types import Artifact


@dataclass(frozen=True)
class Step:
    """What became of one node: `outputs` maps output names to artifacts, as recorded in ML metadata."""

    node_id: str
    state: Literal["ran", "cached", "looked up"]
    seconds: float
    outputs: Mapping[str, Sequence[Artifact]]


@dataclass(frozen=True)
class Reference:
    """A network that was trained to compare with: the directories of its structure and of TFMA's results."""

    structure: Path
    evaluation: Path


@dataclass(frozen=True)
class RunResult:
    """The steps of a finished run, and where its results lie.

    A retraining that was left out, because nothing has changed, has no steps; `last` is then what the run before came
    to, as `outcome` writes it.
    """

    steps: tuple[Step, ...]
    seconds: float
    last: Mapping[str, Any] | None = None

    def step(self, node_id: str) -> Step:
        return next(step for step in self.steps if step.node_id == node_id)

    @property
    def structures(self) -> tuple[Path, ...]:
        """The artifact directories of the structures that were found or retrained, each with its structure.json."""
        from morph_tfx.components import MorphStructure

        own = [step for step in self.steps if step.node_id not in self._of_references]
        found = [artifact for step in own for artifacts in step.outputs.values() for artifact in artifacts]
        return tuple(Path(artifact.uri) for artifact in found if artifact.type_name == MorphStructure.TYPE_NAME)

    @property
    def compared(self) -> bool:
        """Whether the run compared several networks: budgets, or ways to train one of them."""
        return any(step.node_id == "Frontier" for step in self.steps)

    @property
    def frontier(self) -> Path:
        """The artifact directory of the comparison of several networks: frontier.json and report.html are inside."""
        return Path(self.step("Frontier").outputs["frontier"][0].uri)

    @property
    def training_seconds(self) -> float | None:
        """What all trainings took, searches included; None where one ran in several processes, or none is known.

        Networks that are there to compare with do not count, except where several are compared by their budgets.
        """
        from morph_tfx.components.training.loop import TRAINING_SECONDS

        own = [step for step in self.steps if step.node_id not in self._of_references]
        runs = [run for step in own for run in step.outputs.get("model_run", ())]
        known = [run.get_float_custom_property(TRAINING_SECONDS) for run in runs]
        return sum(known) if known and all(known) else None

    @property
    def references(self) -> dict[str, Reference]:
        """The networks that were trained to compare with, by what the steps call them: "uniform-50" and "seed".

        Empty without `compare`; a comparison of budgets is in `frontier`.
        """
        if self.compared:
            return {}
        widths = [step for step in self.steps if step.node_id.startswith("UniformWidths-")]
        names = [step.node_id.partition("-")[2] for step in widths]
        return {
            name: Reference(
                Path(step.outputs["structure"][0].uri),
                Path(self.step(f"Evaluator-{name}").outputs["evaluation"][0].uri),
            )
            for name, step in zip(names, widths, strict=True)
        }

    @property
    def _of_references(self) -> set[str]:
        """The node ids of the steps of `references`."""
        return {f"{kind}-{name}" for name in self.references for kind in ("UniformWidths", "Retrainer", "Evaluator")}

    @property
    def blessed(self) -> bool:
        """Whether Evaluator found the model good enough."""
        return self.step("Evaluator").outputs["blessing"][0].get_int_custom_property("blessed") == 1

    @property
    def evaluation(self) -> Path:
        """The directory with TFMA's results."""
        return Path(self.step("Evaluator").outputs["evaluation"][0].uri)

    @property
    def pushed_model(self) -> str | None:
        """The directory of the pushed SavedModel, or None when the model was held back, or was taken back since."""
        if self.last is not None:
            return self.last["pushed_model"]
        return None if self.rolled_back is not None else self._pushed_to

    @property
    def rolled_back(self) -> str | None:
        """Where the model was pushed by an earlier run, when it was deleted there since: the push is in the cache."""
        if self.last is not None or self._pushed_to is None or is_uri(self._pushed_to):
            return None
        return None if os.path.isdir(self._pushed_to) else self._pushed_to

    @property
    def _pushed_to(self) -> str | None:
        """What metadata says of the push, this run's or that of an earlier one in the cache."""
        pushed = self.step("Pusher").outputs["pushed_model"][0]
        if pushed.get_int_custom_property("pushed") != 1:
            return None
        return pushed.get_string_custom_property("pushed_destination")

    @property
    def cached(self) -> bool:
        """Whether no step had to do any work."""
        return all(step.state != "ran" for step in self.steps)
