"""The exported model's signatures: serialized `tf.Example`s in, the model's outputs out, preprocessing included.

The default needs nothing from the user. Each input of the model is a feature of the same name, after the Transform
graph or, without one, in the schema. Of the raw features only those are asked for on which an input depends; that is
how the label falls away, without anybody naming it. All of this is settled before training, so that a model that could
not be exported is not trained.

Where labels are text, the answers carry the names of the classes beside the outputs (`all_classes`, and
`predicted_class` for the likeliest), from the vocabulary that made numbers of them.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.saved import saved_transform_io_v2
from tensorflow_transform.tf_metadata import schema_utils

from morph_core import MorphError
from morph_core.network.trace import input_structure

from ..artifacts.saved_model_graph import threat_in
from .labels import LABEL_CLASSES
from .user_module import UserModule

DEFAULT = "serving_default"
RAW_TENSORS, TRANSFORMED_TENSORS = "raw_tensors", "transformed_tensors"

Features = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Signature:
    """One entry point of the exported model.

    Attributes:
        function: of tensors, returning a dict of tensors.
        inputs: the `tf.TensorSpec`s of its arguments.
        resources: TensorFlow objects that the function uses besides the model (vocabulary tables), to be saved with it.
    """

    function: Callable[..., Any]
    inputs: list[Any]
    resources: tuple[Any, ...] = ()


def signatures(model: keras.Model, spec: Any, module: UserModule) -> dict[str, Signature]:
    """The model's signatures: the user's own, and ours for the names that the user's do not cover.

    Args:
        model: built, with named inputs.
        spec: a `tft.TFTransformOutput`, or a schema.
        module: the user's; its `signatures` may be None.

    Raises:
        MorphError: an input of the model is no feature and the user gives no `serving_default`, or a signature fails.
    """
    own = _user_signatures(model, spec, module)
    transformed = isinstance(spec, tft.TFTransformOutput)
    # What the model itself takes, which is also what a Retrainer asks a teacher. No signature takes sparse tensors.
    plain = TRANSFORMED_TENSORS if transformed else RAW_TENSORS
    if plain not in own and not (transformed and any(tensor.sparse for tensor in model.inputs)):
        own[plain] = _tensors(model)
    if DEFAULT not in own:
        own[DEFAULT] = _after_transform(model, spec, module) if transformed else _parsed(model, spec, module)
    for name, entry in own.items():
        _trace(name, entry, module)
    return own


def export(model: keras.Model, entries: Mapping[str, Signature], directory: str) -> None:
    """Writes a SavedModel.

    Args:
        model: trained.
        entries: by name; with `serving_default`.
        directory: to write into; made when it does not exist.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, entry in entries.items():
        for resource in entry.resources:
            archive.track(resource)
        archive.add_endpoint(name, entry.function, input_signature=entry.inputs)
    archive.write_out(directory, verbose=False)


def _trace(name: str, entry: Signature, module: UserModule) -> None:
    """Runs a signature's Python once, without data: what fails here would fail after the training."""
    try:
        traced = tf.function(entry.function, autograph=False).get_concrete_function(*entry.inputs)
    except (ValueError, TypeError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise MorphError(
            f"The serving signature {name!r} cannot be made: {type(error).__name__}: {error} Its arguments are "
            f"{entry.inputs}. Correct signatures(model, spec) in {module.source}, or write one there with this name."
        ) from error
    if (threat := threat_in(traced.graph.as_graph_def())) is not None:
        raise MorphError(
            f"The serving signature {name!r} cannot be exported: {threat}. A model that does so is refused wherever it "
            f"is loaded, to be retrained or compared with. Correct signatures(model, spec) in {module.source}: what it "
            "needs has to come with the request, or be an asset."
        )


def _user_signatures(model: keras.Model, spec: Any, module: UserModule) -> dict[str, Signature]:
    if module.signatures is None:
        return {}
    given = module.signatures(model, spec)
    entries = {}
    for name, pair in given.items() if isinstance(given, Mapping) else [("", given)]:
        if not name or not isinstance(pair, tuple) or len(pair) != 2 or not callable(pair[0]):
            raise MorphError(
                f"signatures in {module.source} returned {pair!r} for {name!r}; expected a dict {{name: (function, "
                "input_signature)}, such as {'serving_default': (serve, [tf.TensorSpec([None], tf.string, "
                "name='examples')])}."
            )
        function, inputs = pair
        entries[name] = Signature(function, list(inputs), _closed_over(function))
    return entries


def _closed_over(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The TensorFlow objects that a user's function refers to; a SavedModel must be told of the tables among them."""
    plain = inspect.unwrap(getattr(function, "python_function", function))
    if not inspect.isfunction(plain):
        return ()
    used = inspect.getclosurevars(plain)
    values = (*used.nonlocals.values(), *used.globals.values())
    return tuple(value for value in values if isinstance(value, tf.__internal__.tracking.Trackable))


def _after_transform(model: keras.Model, spec: tft.TFTransformOutput, module: UserModule) -> Signature:
    """`examples` -> parse -> Transform graph -> model."""
    loader = saved_transform_io_v2.SavedModelLoader(spec.transform_savedmodel_dir)
    features = spec.transformed_feature_spec()
    names = _input_features(model, features, "transformed features", module)
    raw = _needed(spec.raw_feature_spec(), loader, set(names.values()))
    classes = _classes(spec, model)

    def serve(examples):
        transformed = loader.apply_transform_model(tf.io.parse_example(examples, raw))
        answers = _outputs(model, {name: _fitted(transformed[feature], name, model) for name, feature in names.items()})
        return {**answers, **_named(answers, classes)}

    # The loader is no TensorFlow object itself; what it loaded is, and holds the vocabulary tables.
    return Signature(serve, [tf.TensorSpec([None], tf.string, name="examples")], (loader._imported,))


def _classes(spec: tft.TFTransformOutput, model: keras.Model) -> list[bytes]:
    """The names of the model's classes, in the order of their numbers; none where the labels are numbers themselves."""
    if len(model.outputs) != 1 or isinstance(model.output, dict) or len(model.outputs[0].shape) != 2:
        return []
    if spec.vocabulary_file_by_name(LABEL_CLASSES) is None:
        return []
    return spec.vocabulary_by_name(LABEL_CLASSES)


def _named(answers: dict[str, Any], classes: list[bytes]) -> dict[str, Any]:
    """What tells clients, and Evaluator, which class each output is of: the classes' names, and that of the likeliest.

    `all_classes` is TensorFlow Model Analysis's word; by it labels that are text are compared with the outputs.
    """
    if not classes:
        return {}
    outputs = answers["outputs"]
    width = outputs.shape[-1]
    # A network may have more outputs than there are classes. With one output, that is the second class's.
    names = tf.constant(classes + [b""] * (width - len(classes)))
    named = {"all_classes": tf.tile(names[tf.newaxis], tf.stack([tf.shape(outputs)[0], 1]))}
    if width > 1:
        named["predicted_class"] = tf.gather(names, tf.argmax(outputs, axis=-1))
    return named


def _parsed(model: keras.Model, schema: schema_pb2.Schema, module: UserModule) -> Signature:
    """`examples` -> parse by the schema -> model."""
    features = schema_utils.schema_as_feature_spec(schema).feature_spec
    names = _input_features(model, features, "features of the schema", module)
    raw = {feature: features[feature] for feature in names.values()}

    def serve(examples):
        parsed = tf.io.parse_example(examples, raw)
        return _outputs(model, {name: _fitted(parsed[feature], name, model) for name, feature in names.items()})

    return Signature(serve, [tf.TensorSpec([None], tf.string, name="examples")])


def _tensors(model: keras.Model) -> Signature:
    """The model's own inputs, by name."""
    inputs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]
    names = [tensor.name for tensor in model.inputs]

    def serve(*tensors):
        return _outputs(model, dict(zip(names, tensors, strict=True)))

    return Signature(serve, inputs)


def _input_features(model: keras.Model, features: Features, kind: str, module: UserModule) -> dict[str, str]:
    """Which feature feeds which input: that of its name or, for one input and one fitting feature, that one."""
    inputs = {tensor.name: tensor for tensor in model.inputs}
    missing = [name for name in inputs if name not in features]
    if not missing:
        return {name: name for name in inputs}
    if len(inputs) == 1:
        (tensor,) = inputs.values()
        fitting = [name for name, feature in features.items() if _fits(feature, tensor)]
        if len(fitting) == 1:
            return {tensor.name: fitting[0]}
    raise MorphError(
        f"No serving signature can be made: the model's input {missing[0]!r} is none of the {kind} "
        f"({', '.join(sorted(features))}). Give the input the feature's name in build_model of {module.source}, "
        f"such as keras.Input(..., name={sorted(features)[0]!r}), or write signatures(model, spec) in that module."
    )


def _fits(feature: Any, tensor: Any) -> bool:
    shape = getattr(feature, "shape", None)
    given, taken = tf.as_dtype(feature.dtype), tf.as_dtype(tensor.dtype)
    same_kind = given.is_floating == taken.is_floating and (given == tf.string) == (taken == tf.string)
    return shape is not None and same_kind and tf.TensorShape(shape).num_elements() == _elements(tensor)


def _elements(tensor: Any) -> int | None:
    return tf.TensorShape(tensor.shape[1:]).num_elements()


def _needed(raw: Features, loader: Any, wanted: set[str]) -> dict[str, Any]:
    """The raw features on which the wanted transformed ones depend: those without which the graph cannot give them."""
    needed = {}
    for name, feature in raw.items():
        others = {other: spec for other, spec in raw.items() if other != name}
        if not others or not wanted <= _available(others, loader):
            needed[name] = feature
    return needed


def _available(raw: Features, loader: Any) -> set[str]:
    """The transformed features that the graph can give from these raw ones; traced, not run."""
    available = set()

    def apply(examples):
        transformed = loader.apply_transform_model(tf.io.parse_example(examples, raw))
        available.update(transformed)
        return tf.shape(examples)

    tf.function(apply, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.string))
    return available


def _fitted(value: Any, name: str, model: keras.Model) -> Any:
    """A feature as the model's input takes it: dense, of its dtype and, when its size is known, of its shape."""
    tensor = next(tensor for tensor in model.inputs if tensor.name == name)
    if isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    elif isinstance(value, tf.SparseTensor) and not tensor.sparse:
        value = tf.sparse.to_dense(value)
    if isinstance(value, tf.Tensor) and _elements(tensor) is not None:
        value = tf.reshape(value, [-1, *tensor.shape[1:]])
    return value if value.dtype.name == tensor.dtype else tf.cast(value, tensor.dtype)


def _outputs(model: keras.Model, inputs: dict[str, Any]) -> dict[str, Any]:
    # In the structure that the model was made with (a tensor, a list, a dict); Keras takes others, but warns of them.
    structured = keras.tree.map_structure(lambda tensor: inputs[tensor.name], input_structure(model))
    results = model(structured, training=False)
    if isinstance(results, dict):
        return results
    flat = tf.nest.flatten(results)
    if len(flat) == 1:
        return {"outputs": flat[0]}
    return dict(zip(model.output_names, flat, strict=True))
