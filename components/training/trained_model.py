"""The `Model` artifact that a training ends with: the SavedModel, what it carries, and what its properties say.

Both components that train to the end write it here, so that whatever stands behind them in a pipeline need not know
which of them it was. The SavedModel answers clients and takes what they send; who wants the network alone, for a
device, makes it again from the user's module, the structure and the weights:

```
Format-Serving/                               the SavedModel, which Pusher copies
Format-Serving/assets.extra/structure.json    the structure, with what else a pushed model carries (`model_assets`)
Network/weights.npz                           the trained network's weights (`weights`), which are not pushed
```
"""

import os
from collections.abc import Mapping
from typing import Any

import keras
from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

import morph_core as morph

from ..artifacts import model_assets, weights
from ..artifacts.inside import read_inside
from ..artifacts.properties import set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..artifacts.structure_properties import cost_properties, goal_properties
from . import serving, user_module
from .inputs import Spec

WEIGHTS_FILE = "Network/weights.npz"


def write(
    artifact: Artifact,
    model: keras.Model,
    signatures: Mapping[str, serving.Signature],
    structure: morph.Structure,
    structure_uri: str,
    spec: Spec,
    results: Mapping[str, float],
    trained_on: str = "",
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
        trained_on: what the SavedModel is to say of its training (`model_assets.TRAINED_ON_FILE`).
    """
    measured = {name: value for name, value in results.items() if name.startswith("val_")}
    with complete_or_absent(artifact.uri) as directory:
        saved_model = path_utils.serving_model_dir(directory)
        serving.export(model, signatures, saved_model)
        model_assets.write(saved_model, structure, spec, measured, trained_on)
        _write_weights(model, os.path.join(directory, WEIGHTS_FILE))
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


def load_network(model: str, module_file: str, hparams: Mapping[str, Any] | None = None) -> keras.Model:
    """The trained network inside a `Model` artifact, as an ordinary Keras model: to fine-tune, export or look at.

    It takes what Transform makes, where there is one, and knows nothing of it. `network.save("network.keras")` writes
    it as one file.

    ```python
    network = load_network("pipeline_root/flowers/Retrainer/model/7", "module.py", {"width": 32})
    network.fit(features, labels)
    ```

    Args:
        model: URI of the artifact, which Retrainer or MorphTrainer with `finish="in_place"` wrote; of what Pusher
            copies the weights are no part.
        module_file: path of the Python file with `build_model`.
        hparams: what `build_model` was called with in the training.

    Returns:
        The network with its weights, compiled as `build_model` compiles the seed.

    Raises:
        MorphError: the model carries no structure or no weights, or they are not of this network.
    """
    seed = user_module.load({"module_file": module_file}).seed(hparams or {})
    network, _ = read_network(model, seed)
    network.compile(**morph.compile_arguments(seed))
    return network


def read_network(uri: str, seed: keras.Model) -> tuple[keras.Model, morph.Structure]:
    """The trained network of a `Model` that `write` filled, as Keras has it, and its structure.

    It is built by the user's own code, and numbers are all that is read: neither code nor a pickle.

    Args:
        uri: of the `Model`.
        seed: what the user's module builds, with the hyperparameters of the training.

    Raises:
        MorphError: the model carries no structure or no weights, or they are not of this network.
    """
    saved_model = path_utils.serving_model_path(uri)
    text = model_assets.read(saved_model, model_assets.STRUCTURE_FILE)
    path = os.path.join(uri, WEIGHTS_FILE)
    missing = [
        name
        for name, there in ((model_assets.STRUCTURE_FILE, text is not None), (WEIGHTS_FILE, fileio.exists(path)))
        if not there
    ]
    if text is None or missing:
        raise morph.MorphError(
            f"The network of the model in {uri} cannot be made again: it carries no "
            f"{' and no '.join(missing)}. Expected the output 'model' of a Retrainer or of a MorphTrainer with "
            "finish='in_place'; train it again if it is one of an earlier version."
        )
    structure = morph.Structure.from_json(text, source=os.path.join(saved_model, model_assets.STRUCTURE_FILE))
    network = morph.rebuild(seed, structure, weights="fresh")
    content = read_inside(uri, WEIGHTS_FILE, weights.most_bytes(network))
    assert content is not None  # as found above
    weights.unpack_into(network, content, path, "train the model again")
    return network, structure


def _write_weights(model: keras.Model, path: str) -> None:
    fileio.makedirs(os.path.dirname(path))
    with fileio.open(path, "wb") as file:
        file.write(weights.packed(model))
