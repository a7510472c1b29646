"""Writes a structure into a `MorphStructure` artifact (JSON, report, pictures, properties) and reads it back.

The artifact's directory appears complete or not at all. Reading checks what a stale or foreign file could get wrong and
says which file it was.
"""

import dataclasses
import os

import keras
from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact

import morph_core as morph
from morph_core import report

from ..staging import complete_or_absent

STRUCTURE_FILE = "structure.json"
REPORT_FILE = "report.html"


@dataclasses.dataclass(frozen=True)
class StructureExporter:
    """The door to one `MorphStructure` artifact.

    ```python
    StructureExporter(artifact).write(search.structure())
    structure = StructureExporter(artifact).read()
    ```

    Args:
        artifact: the `MorphStructure`; only its URI is read, its custom properties are set by `write`.
    """

    artifact: Artifact

    @property
    def structure_path(self) -> str:
        """Where `structure.json` lies."""
        return os.path.join(self.artifact.uri, STRUCTURE_FILE)

    @property
    def report_path(self) -> str:
        """Where `report.html` lies."""
        return os.path.join(self.artifact.uri, REPORT_FILE)

    def write(self, structure: morph.Structure, title: str = "Learned structure") -> None:
        """Fills the artifact's directory, all of it or nothing, and sets its custom properties.

        Args:
            structure: what to write.
            title: heading of the report.
        """
        texts = {STRUCTURE_FILE: structure.to_json(), REPORT_FILE: report.html(structure, title=title)}
        files = {name: text.encode() for name, text in texts.items()} | dict(report.pictures(structure))
        with complete_or_absent(self.artifact.uri) as directory:
            for name, content in files.items():
                with fileio.open(os.path.join(directory, name), "wb") as file:
                    file.write(content)
        self._describe(structure)

    def read(self, graph: morph.ChannelGraph | None = None) -> morph.Structure:
        """Reads the structure back.

        Args:
            graph: when given, the structure must belong to this graph's network.

        Returns:
            The structure.

        Raises:
            MorphError: the file is missing or is no structure, or it belongs to another network.
        """
        path = self.structure_path
        if not fileio.exists(path):
            raise morph.MorphError(
                f"There is no structure at {path}. A MorphStructure artifact holds a {STRUCTURE_FILE}, as MorphTrainer "
                "writes it; check the artifact's URI, or run MorphTrainer again if the file was deleted."
            )
        with fileio.open(path, "rb") as file:
            content = file.read()
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise morph.MorphError(
                f"{path} is not a text file ({error}), so it is no structure. Restore it, or run MorphTrainer again."
            ) from error
        structure = morph.Structure.from_json(text, source=path)
        if graph is not None and structure.fingerprint != graph.fingerprint:
            raise morph.MorphError(
                f"The structure in {path} belongs to another network: it was found on {structure.fingerprint}, but "
                f"build_model gives {graph.fingerprint}. Use the module file and the hyperparameters that the "
                "structure was found with, or search for a structure of this network."
            )
        return structure

    def _describe(self, structure: morph.Structure) -> None:
        properties: dict[str, str | int | float] = {
            "fingerprint": structure.fingerprint,
            "schema_version": structure.schema_version,
            "layers_removed": len(structure.removed["layers"]),
            "keras_version": keras.__version__,
            "morph_version": morph.__version__,
            **goal_properties(structure),
            **cost_properties(structure),
        }
        set_custom_properties(self.artifact, properties)


def goal_properties(structure: morph.Structure) -> dict[str, str | float]:
    """What was asked of the search, as flat names: `cost`, `target` (or `budget`, `strength`), `gate`, `expand_to`.

    With several costs they are `target_flops`, `target_params`, and so on.
    """
    properties: dict[str, str | float] = {}
    for name, value in structure.goal.items():
        if isinstance(value, dict):
            properties |= {f"{name}_{cost}": float(amount) for cost, amount in value.items()}
        elif value is not None:
            properties[name] = value if isinstance(value, str) else float(value)
    if "gate" in structure.settings:
        properties["gate"] = str(structure.settings["gate"])
    expanded_to = structure.settings.get("expanded_to")
    if expanded_to is not None:
        # The executor expands to the same fraction of every cost.
        properties["expand_to"] = float(min(expanded_to.values()) if isinstance(expanded_to, dict) else expanded_to)
    return properties


def cost_properties(structure: morph.Structure) -> dict[str, float]:
    """The costs of seed and structure as flat names: `flops_seed`, `flops_structure`, `flops_fraction`, and so on."""
    properties = {}
    for name, cost in structure.costs.items():
        properties[f"{name}_seed"] = float(cost["seed"])
        properties[f"{name}_structure"] = float(cost["structure"])
        properties[f"{name}_fraction"] = float(cost["structure"] / cost["seed"])
    return properties


def set_custom_properties(artifact: Artifact, properties: dict[str, str | int | float]) -> None:
    """Sets each property with the type that its value has."""
    for name, value in properties.items():
        if isinstance(value, str):
            artifact.set_string_custom_property(name, value)
        elif isinstance(value, int):
            artifact.set_int_custom_property(name, value)
        else:
            artifact.set_float_custom_property(name, value)
