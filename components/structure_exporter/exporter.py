"""Writes a structure into a `MorphStructure` artifact (JSON, report, pictures, properties) and reads it back.

The weights of the search may lie beside it, for a retraining that starts from them; the structure does without.

The artifact's directory appears complete or not at all. Reading checks what a stale or foreign file could get wrong and
says which file it was.
"""

import dataclasses
import io
import os
import zipfile

import keras
import numpy as np
from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact

import morph_core as morph
from morph_core import report

from ..artifacts.staging import complete_or_absent

STRUCTURE_FILE = "structure.json"
REPORT_FILE = "report.html"
WEIGHTS_FILE = "weights.npz"


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

    def write(
        self, structure: morph.Structure, title: str = "Learned structure", trained: keras.Model | None = None
    ) -> None:
        """Fills the artifact's directory, all of it or nothing, and sets its custom properties.

        Args:
            structure: what to write.
            title: heading of the report.
            trained: a network of that structure whose weights are to lie beside it.
        """
        texts = {STRUCTURE_FILE: structure.to_json(), REPORT_FILE: report.html(structure, title=title)}
        files = {name: text.encode() for name, text in texts.items()} | dict(report.pictures(structure))
        if trained is not None:
            files[WEIGHTS_FILE] = _packed(trained)
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

    def read_weights(self, model: keras.Model) -> None:
        """Gives a network of the structure the weights that lie beside it.

        Args:
            model: as `morph_core.rebuild` makes it from the structure.

        Raises:
            MorphError: there are no weights, or they are not this network's.
        """
        path = os.path.join(self.artifact.uri, WEIGHTS_FILE)
        if not fileio.exists(path):
            raise morph.MorphError(
                f"warm_start: there are no weights at {path}. Have MorphTrainer write them with keep_weights=True, "
                "without expand_to: widened layers have channels that nobody trained. Or train from scratch, without "
                "warm_start."
            )
        with fileio.open(path, "rb") as file:
            content = file.read()
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                paths = stored["paths"].tolist()
                values = [stored[str(number)] for number in range(len(paths))]
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise morph.MorphError(
                f"The weights in {path} cannot be read ({error}). Restore the file, run MorphTrainer again, or train "
                "without warm_start."
            ) from error
        found = {name: value.shape for name, value in zip(paths, values, strict=True)}
        expected = {weight.path: tuple(weight.shape) for weight in model.weights}
        if list(found.items()) != list(expected.items()):
            differing = sorted(dict(found.items() ^ expected.items()))
            raise morph.MorphError(
                f"The weights in {path} are of another network: {', '.join(differing[:3]) or 'their order'} "
                "differ in name or shape. Use the module file and the hyperparameters of the search."
            )
        model.set_weights(values)

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


def _packed(model: keras.Model) -> bytes:
    """A model's weights in their order, as plain arrays named 0, 1, ... in NumPy's npz format, and their paths."""
    buffer = io.BytesIO()
    values = {str(number): value for number, value in enumerate(model.get_weights())}
    np.savez(buffer, paths=np.array([weight.path for weight in model.weights]), **values)
    return buffer.getvalue()


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


def custom_properties(artifact: Artifact) -> dict[str, str | int | float]:
    """The custom properties of an artifact that are text or numbers, as `set_custom_properties` takes them."""
    found = {}
    for name, value in artifact.mlmd_artifact.custom_properties.items():
        kind = value.WhichOneof("value")
        if kind in ("int_value", "double_value", "string_value"):
            found[name] = getattr(value, kind)
    return found
