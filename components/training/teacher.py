"""A trained model as teacher of a Retrainer: a SavedModel, of which one signature takes what the network takes.

Nothing of it is made by Keras: a SavedModel is a graph with its weights, and asking it runs no Python of the
artifact's. The signature is found by the names, types and shapes of its inputs, so any SavedModel will do that has one.
MorphTrainer and Retrainer write one beside `serving_default`, which reads serialized examples: `raw_tensors` or, after
Transform, `transformed_tensors`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from morph_core import MorphError
from morph_core.network.trace import pack_outputs, standardize_inputs
from morph_core.search.distill import Answers

from ..artifacts.saved_model import threat_of


def read(artifact: Artifact, student: keras.Model) -> Answers:
    """Loads a teacher, for `morph_core.search.distill`.

    Args:
        artifact: a `Model`, or one whose URI is that of a pushed SavedModel.
        student: the network that it is to teach.

    Raises:
        MorphError: there is no SavedModel, TensorFlow cannot load it, or it has no signature with the inputs and
            outputs of the student.
    """
    place = _place(artifact.uri)
    if (threat := threat_of(place)) is not None:
        raise MorphError(
            f"The teacher in {place} is not loaded: {threat}. Give the model of a Trainer, a MorphTrainer or a "
            "Retrainer, or export this one anew."
        )
    try:
        loaded: Any = tf.saved_model.load(place)
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise MorphError(
            f"The teacher in {place} cannot be loaded as a SavedModel ({type(error).__name__}: {error}). Give the "
            "model of a Trainer, a MorphTrainer or a Retrainer, or an importer of a pushed model."
        ) from error
    wanted = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in student.inputs}
    for signature in loaded.signatures.values():
        names = _matched(wanted, signature.structured_input_signature[1])
        if names is not None:
            return _Teacher(loaded, signature, names, _outputs(signature, student, place), student)
    offered = {name: _told(entry.structured_input_signature[1]) for name, entry in loaded.signatures.items()}
    raise MorphError(
        f"The teacher in {place} has no signature that takes what the network takes, {_told(wanted)}: it has "
        f"{offered}. Give a model that MorphTrainer or Retrainer wrote from the same module file, or one exported with "
        "such a signature, as model.export(...) of Keras makes it."
    )


class _Teacher:
    """Asks a signature."""

    def __init__(
        self, loaded: Any, signature: Any, inputs: Mapping[str, str], outputs: Sequence[str], student: keras.Model
    ) -> None:
        self._loaded = loaded  # the signature lives no longer than what it was loaded with
        self._signature, self._inputs, self._outputs, self._student = signature, inputs, outputs, student

    def __call__(self, x: Any) -> Sequence[Any]:
        specs = self._signature.structured_input_signature[1]
        tensors = standardize_inputs(self._student, x)
        given = {
            self._inputs[symbol.name]: tf.cast(tensor, specs[self._inputs[symbol.name]].dtype)
            for symbol, tensor in zip(self._student.inputs, tensors, strict=True)
        }
        answers = self._signature(**given)
        return [answers[name] for name in self._outputs]


def _place(uri: str) -> str:
    """The SavedModel of a `Model` artifact, or the one that lies at the URI itself, as a pushed one does."""
    places = [path_utils.serving_model_path(uri), uri]
    found = [place for place in places if tf.saved_model.contains_saved_model(place)]
    if not found:
        raise MorphError(
            f"There is no SavedModel in {places[0]} or {uri}, so there is no teacher. Check the artifact's URI, or run "
            "the component again that made it, if its files were deleted."
        )
    return found[0]


def _matched(wanted: Mapping[str, tf.TensorSpec], offered: Mapping[str, tf.TensorSpec]) -> dict[str, str] | None:
    """For each input of the student the signature's argument: that of its name or, of one, the one. None: no match."""
    if len(wanted) != len(offered):
        return None
    names = {name: name for name in wanted}
    if len(wanted) == 1:
        names = dict(zip(wanted, offered, strict=True))
    for name, spec in wanted.items():
        other = offered.get(names[name])
        if other is None or other.dtype != spec.dtype or not other.shape.is_compatible_with(spec.shape):
            return None
    return names


def _outputs(signature: Any, student: keras.Model, place: str) -> list[str]:
    """The names of a signature's outputs, in the order of the student's."""
    offered = signature.structured_outputs
    structure = pack_outputs(student, list(range(len(student.outputs))))
    if isinstance(structure, dict):
        names = sorted(structure, key=structure.__getitem__)
    elif len(student.outputs) == 1 and len(offered) == 1:
        names = list(offered)
    else:
        names = list(student.output_names)
    wanted = dict(zip(names, student.outputs, strict=True))
    fits = set(wanted) == set(offered) and all(
        offered[name].shape.is_compatible_with(tensor.shape) for name, tensor in wanted.items()
    )
    if not fits:
        expected = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        received = {name: tuple(spec.shape) for name, spec in offered.items()}
        raise MorphError(
            f"The teacher in {place} gives the outputs {received}, but the network that it is to teach gives "
            f"{expected}. Give a model with the same outputs, by the same names."
        )
    return names


def _told(specs: Mapping[str, tf.TensorSpec]) -> str:
    return ", ".join(f"{name}: {spec.dtype.name} {tuple(spec.shape)}" for name, spec in specs.items())
