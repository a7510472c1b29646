"""The result of a search: how wide every layer is, as a value that survives JSON and makes a network from its seed.

A structure belongs to one seed network, known by the fingerprint of its graph. It says for each group of channels how
many are left and, unless it was expanded, which. Everything else in it (layers, costs, trajectory) is there to be read:
the widths of the groups alone determine the network.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MorphError
from ..files import json_of, read_text, write_whole
from .reading import checked

if TYPE_CHECKING:  # reading a structure takes no Keras
    from ..network.graph import ChannelGraph

SCHEMA_VERSION = 1
MEASURED_LATENCY = "measured_latency"
"""The setting of what `morph_core.measure` found: "predicted_ms", "measured_ms", "seed_ms", "repeatability", "on"."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """Widths learned for a seed network. Its fields are those of the JSON file.

    Attributes:
        fingerprint: of the seed's graph, "sha256:...".
        groups: for each prunable group its "seed_width", "width", and "alive": the indices of the channels kept, or
            None when the widths do not come from the seed's own channels (after `expand`).
        layers: in topological order, each layer that makes channels or multiplies: "name", "kind", "group" (None when
            fixed), "seed_width", "width" (0 when removed) and "costs": for each cost [seed, now].
        removed: "layers" that are gone, and the "branches" they formed: lists of layers that vanished together.
        costs: for each cost, of the "seed" and of this "structure".
        goal: what the search was asked for: "cost", and "target" (fraction), "budget" (absolute) or "strength"; with
            several costs "target" or "budget" alone, holding an amount for each cost.
        settings: of the search and of `expand`. "budget" tells which limit the search's structure was nearest to
            ("binding"), how much of it was "left", and where that is more than one per cent why ("granularity").
            "uncounted" names layers whose work is not known: "kind", "share" of the parameters, "reason".
            "measured_latency" is what the clock said, see `MEASURED_LATENCY`.
        trajectory: of the search: "step", "cost" and "target" (fractions of the seed's cost), "alive", "loss". With
            several costs, "cost" and "target" are those furthest over their schedule, and "cost_NAME" and
            "target_NAME" those of each.
        schema_version: of this format.
    """

    fingerprint: str
    groups: dict[str, dict[str, Any]]
    layers: list[dict[str, Any]]
    removed: dict[str, list[Any]]
    costs: dict[str, dict[str, float]]
    goal: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    trajectory: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def widths(self) -> dict[str, int]:
        """Channels of every layer that has a width, by layer name; 0 for a removed layer."""
        return {layer["name"]: layer["width"] for layer in self.layers}

    @property
    def limits(self) -> dict[str, float]:
        """What the search was allowed of each cost, as fractions of the seed's; none for a search with a strength."""
        for name in ("target", "budget"):
            given = self.goal.get(name)
            if given is None:
                continue
            amounts = given if isinstance(given, dict) else {str(self.goal.get("cost")): given}
            if name == "target":
                return {cost: float(amount) for cost, amount in amounts.items()}
            seeds = {cost: self.costs[cost]["seed"] for cost in amounts if cost in self.costs}
            return {cost: float(amounts[cost]) / seed for cost, seed in seeds.items() if seed}
        return {}

    def widths_in(self, graph: ChannelGraph) -> np.ndarray:
        """Channels of every group of `graph`: int array (groups,); 0 for removed groups.

        Raises:
            MorphError: the structure belongs to another network.
        """
        self.check_belongs_to(graph)
        return np.array([self.groups[group.name]["width"] if group.prunable else group.size for group in graph.groups])

    def check_belongs_to(self, graph: ChannelGraph) -> None:
        """Raise a MorphError unless this is a structure of that network."""
        if self.fingerprint != graph.fingerprint:
            raise MorphError(
                f"The structure was made for another network (fingerprint {self.fingerprint[:19]}...) than model "
                f"'{graph.name}' (fingerprint {graph.fingerprint[:19]}...). Use the build_model, the hyperparameters "
                "and the input shape that the search was run with, or search again for this network."
            )
        expected = {group.name: group.size for group in graph.groups if group.prunable}
        if {name: entry["seed_width"] for name, entry in self.groups.items()} != expected:
            raise MorphError(
                f"The structure's groups are not those of model '{graph.name}', although its fingerprint is: the file "
                "was changed by hand, or a rule was added since. Search again."
            )

    def to_json(self) -> str:
        """The structure as JSON text, the same for equal structures."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "text") -> Structure:
        """Read a structure.

        Args:
            text: what `to_json` wrote.
            source: where the text came from, for messages.

        Raises:
            MorphError: the text is not a structure; the message names the field.
        """
        try:
            data = json_of(text)
        except ValueError as error:
            raise MorphError(
                f"Structure file {source} is not valid JSON ({error}). It may have been cut short: copy it again, or "
                "take the artifact of another run."
            ) from error
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**checked(data, source, names, SCHEMA_VERSION))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the structure to a file, whole or not at all.

        Raises:
            MorphError: the file cannot be written.
        """
        write_whole(pathlib.Path(path), self.to_json().encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Structure:
        """Read a structure from a file.

        Raises:
            MorphError: there is no such file, or it is not a structure.
        """
        try:
            text = read_text(path)
        except (OSError, ValueError) as error:
            raise MorphError(
                f"Structure file {path} cannot be read ({error}). Give the path of a structure.json."
            ) from error
        return cls.from_json(text, source=str(path))
