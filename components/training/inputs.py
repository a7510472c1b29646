"""What both trainers read before they train: the module, the hyperparameters, the data, and how many steps to take.

Everything a user can have got wrong is looked at here, before the first training step: a split that is missing or
empty, an `input_fn` that yields nothing, features or labels that do not fit the model. Each ends in one message.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from absl import logging
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.trainer import fn_args_utils
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.proto import trainer_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, proto_utils

from morph_core import MorphError

from . import distribution, user_module
from . import labels as label_checks
from .custom_config import check_custom_config, custom_config_of

DEFAULT_EPOCHS = 10
DEFAULT_BATCH_SIZE = 32
# Of a training that is measured in steps, so many batches are looked at before: an epoch of it may be very long.
_LOOKED_AT = 100

Spec = tft.TFTransformOutput | schema_pb2.Schema


@dataclasses.dataclass(frozen=True)
class TrainingInputs:
    """Everything a training run needs besides the model.

    Attributes:
        module: the user's functions.
        hparams: for `build_model`.
        spec: the `tft.TFTransformOutput`, or the schema where there is no Transform.
        train: batches of the training split, without end.
        evaluation: batches of the evaluation split, one pass.
        epochs: how often to validate.
        steps_per_epoch: training steps between two validations.
        epoch_is_pass: whether these are one pass over the training split.
        cycle: what to show as the cycle, such as "1/2"; may be empty.
        batch_size: examples per step.
        labels: what was seen of the labels of the "training" and the "evaluation" split.
    """

    module: user_module.UserModule
    hparams: dict[str, Any]
    spec: Spec
    train: tf.data.Dataset
    evaluation: tf.data.Dataset
    epochs: int
    steps_per_epoch: int
    epoch_is_pass: bool
    cycle: str
    batch_size: int
    labels: Mapping[str, label_checks.Labels]

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.epochs * self.steps_per_epoch

    def check_labels(self, model: keras.Model) -> None:
        """Looks whether the labels are numbers that the model's loss takes, and tells what else is odd about them.

        Args:
            model: compiled, as the user's module makes it.

        Raises:
            MorphError: a label is no number, or is of a class that the model has no output for.
        """
        label_checks.check(self.labels, model, self.module.source)
        for remark in label_checks.remarks(self.labels, self.batch_size, self.steps):
            print(f"Note: {remark}", flush=True)

    def check_fit(self, model: keras.Model) -> None:
        """Sends one batch of each split through the model, so that a mismatch ends here and not in the first step.

        Raises:
            MorphError: a split yields no batch, or the model cannot take its features.
        """
        for split, dataset in (("training", self.train), ("evaluation", self.evaluation)):
            batch = next(iter(dataset), None)
            if batch is None:
                raise MorphError(
                    f"input_fn in {self.module.source} yields no batch for the {split} split, although the split has "
                    "examples. Look for a filter that drops everything, or drop_final_batch=True with a "
                    "batch_size above the number of examples."
                )
            try:
                model(batch[0], training=False)
            except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
                wanted = {tensor.name: (tuple(tensor.shape), tensor.dtype) for tensor in model.inputs}
                received = tf.nest.map_structure(lambda x: (tuple(x.shape), x.dtype.name), batch[0])
                raise MorphError(
                    f"The features of input_fn in {self.module.source} do not fit the model of build_model: the "
                    f"model takes {wanted}, the first {split} batch has {received}. Make names, shapes and dtypes "
                    f"agree. ({error})"
                ) from error


def read(input_dict: Mapping[str, list[Artifact]], exec_properties: Mapping[str, Any]) -> TrainingInputs:
    """Reads and checks what a component was given.

    Args:
        input_dict: with `examples`, and `transform_graph` or `schema`, maybe `hyperparameters`.
        exec_properties: with `train_args`, `eval_args`, `custom_config`, and `module_path` or `module_file`.

    Raises:
        MorphError: something in them cannot be used; the message says what.
    """
    given = _given(input_dict, exec_properties, ("train_args", "eval_args"))
    module, files, config = given.module, given.files, given.config
    batch_size = config.get("batch_size") or DEFAULT_BATCH_SIZE
    train, evaluation = (
        distribution.shared_by_record(given.dataset(split, batch_size, training=training))
        for split, training in ((files.train_files, True), (files.eval_files, False))
    )
    label_checks.check_are_numbers(train, module.source)
    if files.eval_steps:
        evaluation = evaluation.take(files.eval_steps)
    elif _is_endless(evaluation):
        raise _endless(module, "evaluation", "eval_args=EvalArgs(num_steps=...)")
    labels = _labels(module, train, evaluation, files.train_steps)
    epochs, steps_per_epoch = _steps(labels["training"].batches, files.train_steps, config.get("epochs"))
    return TrainingInputs(
        module=module,
        hparams=given.hparams,
        spec=given.spec,
        train=train.repeat(),
        evaluation=evaluation,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        epoch_is_pass=not files.train_steps,
        cycle=str(config.get("cycle") or ""),
        batch_size=batch_size,
        labels=labels,
    )


def read_evaluation(
    input_dict: Mapping[str, list[Artifact]], exec_properties: Mapping[str, Any], batch_size: int = DEFAULT_BATCH_SIZE
) -> tuple[user_module.UserModule, dict[str, Any], tf.data.Dataset]:
    """Reads what a component needs that trains nothing: the module, the hyperparameters, and examples to try.

    Args:
        input_dict: as `read` takes it.
        exec_properties: with `eval_args`, `custom_config`, and `module_path` or `module_file`.
        batch_size: of the dataset.

    Returns:
        The user's functions, what `build_model` is to be called with, and batches of (features, label) of the
        evaluation split.

    Raises:
        MorphError: something in them cannot be used; the message says what.
    """
    # TFX wants to know both splits.
    properties = {**exec_properties, "train_args": exec_properties["eval_args"]}
    given = _given(input_dict, properties, ("eval_args",))
    return given.module, given.hparams, given.dataset(given.files.eval_files, batch_size, training=False)


@dataclasses.dataclass(frozen=True)
class _Given:
    """What a component was given, looked at, and no split read yet."""

    module: user_module.UserModule
    hparams: dict[str, Any]
    config: dict[str, Any]
    files: fn_args_utils.FnArgs
    spec: Spec

    def dataset(self, split: list[str], batch_size: int, *, training: bool) -> tf.data.Dataset:
        return self.module.dataset(split, self.files.data_accessor, self.spec, batch_size, training=training)


def _given(
    input_dict: Mapping[str, list[Artifact]], exec_properties: Mapping[str, Any], roles: Iterable[str]
) -> _Given:
    config = custom_config_of(exec_properties)
    check_custom_config(config)
    module = user_module.load(exec_properties)
    hparams = {**(config.get("hparams") or {}), **_tuned(input_dict.get("hyperparameters"))}
    messages = {"train_args": trainer_pb2.TrainArgs, "eval_args": trainer_pb2.EvalArgs}
    for role in roles:
        message = messages[role]()
        proto_utils.json_to_proto(exec_properties[role], message)
        for split in message.splits or [role.removesuffix("_args")]:
            _check_split(input_dict["examples"], split, role)
    files = fn_args_utils.get_common_fn_args(dict(input_dict), dict(exec_properties))
    return _Given(module, hparams, config, files, _spec(files))


def _spec(files: fn_args_utils.FnArgs) -> Spec:
    if files.transform_graph_path:
        return tft.TFTransformOutput(files.transform_graph_path)
    if files.schema_path:
        return io_utils.parse_pbtxt_file(files.schema_path, schema_pb2.Schema())
    raise MorphError(
        "Neither a transform_graph nor a schema arrived, so the examples cannot be parsed. Connect one of them to the "
        "component."
    )


def _tuned(artifacts: list[Artifact] | None) -> dict[str, Any]:
    """The values of a Tuner's best hyperparameters: KerasTuner's JSON, `{"space": [...], "values": {...}}`."""
    if not artifacts:
        return {}
    path = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(artifacts))
    try:
        values = json.loads(io_utils.read_string_file(path))["values"]
        return dict(values)
    except (ValueError, KeyError, TypeError) as error:
        raise MorphError(
            f"The hyperparameters in {path} cannot be read ({type(error).__name__}: {error}). Expected the file "
            "that TFX's Tuner writes, KerasTuner's JSON with an object \"values\"."
        ) from error


def _check_split(examples: Iterable[Artifact], split: str, role: str) -> None:
    """Raises MorphError when a split is not there or has no example."""
    for artifact in examples:
        known = artifact_utils.decode_split_names(artifact.split_names)
        if split not in known:
            raise MorphError(
                f"The examples at {artifact.uri} have no split {split!r}; they have {', '.join(known) or 'none'}. "
                f"Name one of them in {role}.splits, or make the split in the example generator."
            )
    patterns = examples_utils.get_split_file_patterns(list(examples), split)
    paths = [str(path) for pattern in patterns for path in fileio.glob(pattern)]
    readable = all(examples_utils.get_file_format(artifact) == "tfrecords_gzip" for artifact in examples)
    # A file of zero records still has a compression header, so only reading tells. Other formats: check_fit finds out.
    if not paths or (readable and not _has_record(paths)):
        where = ", ".join(patterns)
        raise MorphError(
            f"Split {split!r} of the examples holds no example ({len(paths)} files in {where}). Training needs at "
            "least one in each split of train_args and eval_args; check the example generator's split, or name "
            f"another in {role}.splits."
        )


def _has_record(paths: list[str]) -> bool:
    for path in paths:
        records = tf.data.TFRecordDataset(path, compression_type="GZIP" if path.endswith(".gz") else "")
        try:
            if next(iter(records), None) is not None:
                return True
        except tf.errors.DataLossError as error:
            raise MorphError(f"{path} is damaged: {error.message}. Run the example generator again.") from error
    return False


def _is_endless(dataset: tf.data.Dataset) -> bool:
    return int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY


def _endless(module: user_module.UserModule, split: str, instead: str) -> MorphError:
    return MorphError(
        f"input_fn in {module.source} gives a {split} dataset that never ends, so there is no telling when one "
        f"pass is over. Read the data once (num_epochs=1 in tfxio.TensorFlowDatasetOptions), or give {instead}."
    )


def _labels(
    module: user_module.UserModule, train: tf.data.Dataset, evaluation: tf.data.Dataset, num_steps: int | None
) -> dict[str, label_checks.Labels]:
    """What one pass over each split shows of its labels; of a training in steps, at the beginning of the split."""
    if num_steps:
        train, evaluation = train.take(min(num_steps, _LOOKED_AT)), evaluation.take(_LOOKED_AT)
    elif _is_endless(train):
        raise _endless(module, "training", "train_args=TrainArgs(num_steps=...)")
    logging.info("Reading the splits once to look at their labels and to count batches.")
    return {"training": label_checks.seen_in(train), "evaluation": label_checks.seen_in(evaluation)}


def _steps(batches: int, num_steps: int | None, epochs: int | None) -> tuple[int, int]:
    """How many epochs of how many steps; known from the start, for the search's schedule and the time left.

    `num_steps` is a total, cut into `epochs` equal parts, rounded up. Without it an epoch is one pass over the data.
    """
    if num_steps:
        parts = min(epochs or DEFAULT_EPOCHS, num_steps)
        return parts, math.ceil(num_steps / parts)
    return epochs or DEFAULT_EPOCHS, max(batches, 1)
