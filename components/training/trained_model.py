"""The `Model` artifact that a training ends with: the SavedModel, what it carries, and what its properties say.

Both components that train to the end write it here, so that whatever stands behind them in a pipeline need not know
which of them it was.
"""

from collections.abc import Mapping

import keras
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

import morph_core as morph

from ..artifacts import model_assets
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..artifacts.structure_properties import cost_properties, goal_properties
from . import serving
from .inputs import Spec


def write(
    artifact: Artifact,
    model: keras.Model,
    signatures: Mapping[str, serving.Signature],
    structure: morph.Structure,
    structure_uri: str,
    spec: Spec,
    results: Mapping[str, float],
) -> None:
    """Fills the artifact's directory, all of it or nothing, and sets its custom properties.

    Args:
        artifact: the `Model`.
        model: trained.
        signatures: of that model, as `serving.signatures` makes them.
        structure: that the model was built with.
        structure_uri: of the `MorphStructure` artifact that holds it.
        spec: of the examples that the model was trained on.
        results: the last epoch's values; those on the evaluation split (`val_...`) become properties.
    """
    measured = {name: value for name, value in results.items() if name.startswith("val_")}
    with complete_or_absent(artifact.uri) as directory:
        saved_model = path_utils.serving_model_dir(directory)
        serving.export(model, signatures, saved_model)
        model_assets.write(saved_model, structure, spec, measured)
    set_custom_properties(
        artifact,
        {
            "structure_fingerprint": structure.fingerprint,
            "structure_uri": structure_uri,
            **goal_properties(structure),
            **cost_properties(structure),
            **measured,
        },
    )
