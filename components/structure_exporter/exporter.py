"""Writes a structure into a `MorphStructure` artifact (JSON, report, pictures, properties) and reads it back.

The weights of the search may lie beside it, for a retraining that starts from them; the structure does without.

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

from ..artifacts import weights
from ..artifacts.inside import read_inside, text_inside
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..artifacts.structure_properties import cost_properties, goal_properties

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
            files[WEIGHTS_FILE] = weights.packed(trained)
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
            MorphError: the file is missing, leads out of the artifact or is no structure, or it belongs to another
                network.
        """
        path = self.structure_path
        text = text_inside(self.artifact.uri, STRUCTURE_FILE)
        if text is None:
            raise morph.MorphError(
                f"There is no structure at {path}. A MorphStructure artifact holds a {STRUCTURE_FILE}, as MorphTrainer "
                "writes it; check the artifact's URI, or run MorphTrainer again if the file was deleted."
            )
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
        content = read_inside(self.artifact.uri, WEIGHTS_FILE, weights.most_bytes(model))
        if content is None:
            raise morph.MorphError(
                f"warm_start: there are no weights at {path}. Have MorphTrainer write them with keep_weights=True, "
                "without expand_to: widened layers have channels that nobody trained. Or train from scratch, without "
                "warm_start."
            )
        weights.unpack_into(model, content, path, "run MorphTrainer again, or train without warm_start")

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
