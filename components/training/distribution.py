"""Spreads a training run over the devices of a machine or over several machines, and sets its precision.

Nothing happens by default. `custom_config["distribution"]` names a `tf.distribute` strategy: "mirrored" (the GPUs of
one machine), "multi_worker_mirrored" (machines that each run the component and know each other by the environment
variable TF_CONFIG) or "tpu". The model is built, searched and trained inside `training_scope`; the batch size stays
that of one step, whatever the number of devices. `custom_config["mixed_precision"]` computes in bfloat16, which keeps
float32's range and so needs no scaling of the loss; what is left behind by a run is float32 again.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging
from tfx.types.artifact import Artifact

from morph_core import MorphError

STRATEGIES = {
    "mirrored": "the GPUs of one machine, or the 'devices' that are listed",
    "multi_worker_mirrored": "several machines, each running the component with TF_CONFIG set",
    "tpu": "the TPU of this machine",
}
_MIXED = "mixed_bfloat16"


def check(config: Mapping[str, Any]) -> None:
    """Raises MorphError when `distribution` or `mixed_precision` of a `custom_config` has a wrong value."""
    mixed = config.get("mixed_precision")
    if mixed not in (None, True, False):
        raise MorphError(f"custom_config['mixed_precision'] is {mixed!r}; expected true or false.")
    asked = config.get("distribution")
    if asked is None:
        return
    known = ", ".join(f"{name!r} ({meaning})" for name, meaning in STRATEGIES.items())
    example = "For example: {'strategy': 'mirrored'}"
    if not isinstance(asked, Mapping) or set(asked) - {"strategy", "devices"}:
        raise MorphError(
            f"custom_config['distribution'] is {asked!r}; expected a dict with 'strategy' and maybe 'devices'. "
            f"{example}."
        )
    strategy, devices = asked.get("strategy"), asked.get("devices")
    if strategy not in STRATEGIES:
        raise MorphError(f"custom_config['distribution'] has the strategy {strategy!r}; expected one of {known}.")
    if devices is None:
        return
    if strategy != "mirrored":
        raise MorphError(
            f"custom_config['distribution'] lists devices for the strategy {strategy!r}, which finds its own. Only "
            "'mirrored' takes 'devices'."
        )
    named = isinstance(devices, Sequence) and not isinstance(devices, str) and all(isinstance(d, str) for d in devices)
    if not named or not devices or len(set(devices)) < len(devices):
        raise MorphError(
            f"custom_config['distribution'] has the devices {devices!r}; expected a list of different names such as "
            "['GPU:0', 'GPU:1'], or none for every GPU."
        )


@contextlib.contextmanager
def training_scope(config: Mapping[str, Any], output_dict: Mapping[str, list[Artifact]]) -> Iterator[None]:
    """The block builds and trains its models as `custom_config` asks; afterwards everything is as before.

    Of several machines all run the same block, and one writes its results: for the others, the outputs' URIs lead into
    a scratch directory meanwhile. A build_model must not call keras.utils.clear_session, which would end the scope.

    Args:
        config: the component's `custom_config`.
        output_dict: of the component.

    Raises:
        MorphError: the strategy or a device is not there.
    """
    check(config)
    keras.utils.clear_session()  # what earlier steps in this process built is not needed any more
    _grow_gpu_memory()
    asked = config.get("distribution")
    policy = keras.config.dtype_policy()
    with contextlib.ExitStack() as stack:
        if asked is not None:
            strategy = _strategy(asked["strategy"], tuple(asked.get("devices") or ()))
            replicas = strategy.num_replicas_in_sync
            print(f"distribution: {asked['strategy']}, {replicas} replicas share each batch", flush=True)
            stack.enter_context(strategy.scope())
            if not _writes(strategy):
                stack.enter_context(_elsewhere(output_dict))
        if config.get("mixed_precision"):
            keras.config.set_dtype_policy(_MIXED)
            stack.callback(keras.config.set_dtype_policy, policy)
        yield


def shared_by_record(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, to be divided among machines by its elements: there may be fewer files than machines."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def prepare(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Makes `fit` work on several machines, which Keras 3 (3.12 and 3.15 alike) does not do by itself.

    `fit` wants to see a batch to build metrics and optimizer, and fails on one that is spread over machines: built
    here, from a batch of this machine, there is nothing left to build. It also fails to reduce what a step returns.

    Args:
        model: compiled, and built inside `training_scope`.
        dataset: batches of (features, labels, ...).
    """
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    inside: Any = model
    inside._symbolic_build(data_batch=next(iter(dataset)))
    # Keras keeps track of what is set on a model; these are no layers and no weights.
    object.__setattr__(model, "_maybe_symbolic_build", lambda *_, **__: None)
    for name in ("train_step", "test_step"):
        object.__setattr__(model, name, _as_batches_of_one(getattr(model, name)))


def _as_batches_of_one(step: Any) -> Any:
    # Keras takes the mean over machines of what a step returns along its first axis, which a number has not.
    def numbers_with_an_axis(data: Any) -> Any:
        return tf.nest.map_structure(lambda value: tf.expand_dims(value, 0), step(data))

    return numbers_with_an_axis


def to_float32(model: keras.Model) -> None:
    """Lets a trained model compute in float32, as its weights are: for exporting it, and to compare it exactly."""
    for layer in model._flatten_layers():  # pyright: ignore[reportAttributeAccessIssue]
        if layer.dtype_policy.name == _MIXED:
            layer.dtype_policy = "float32"


@functools.cache
def _strategy(name: str, devices: tuple[str, ...]) -> Any:
    """The strategy; one for the whole process, since TensorFlow cannot tell apart the exchanges of two."""
    if name == "multi_worker_mirrored":
        if not os.environ.get("TF_CONFIG"):
            raise MorphError(
                "distribution: 'multi_worker_mirrored' finds the other machines through the environment variable "
                "TF_CONFIG, which is not set. Set it on every machine, or use 'mirrored' for the GPUs of one."
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
            return tf.distribute.TPUStrategy(resolver)
        except (ValueError, tf.errors.OpError) as error:
            raise MorphError(
                f"distribution: 'tpu' found no TPU that this TensorFlow can use ({str(error).splitlines()[0]}). It "
                "needs a machine with one and the package tensorflow-tpu in the place of tensorflow."
            ) from error
    there = [f"{device.device_type}:{device.name.rsplit(':', 1)[1]}" for device in tf.config.list_logical_devices()]
    for device in devices:
        if device.upper().removeprefix("/").removeprefix("DEVICE:") not in there:
            raise MorphError(
                f"distribution: there is no device {device!r} on this machine; there are {', '.join(there)}. List some "
                "of these, or leave 'devices' out for every GPU."
            )
    return tf.distribute.MirroredStrategy(list(devices) or None)


def _writes(strategy: Any) -> bool:
    """Whether this process is the one of several that writes results."""
    resolver = strategy.cluster_resolver
    if resolver is None or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_type == "worker" and not resolver.task_id)


@contextlib.contextmanager
def _elsewhere(output_dict: Mapping[str, list[Artifact]]) -> Iterator[None]:
    before = [(artifact, artifact.uri) for artifacts in output_dict.values() for artifact in artifacts]
    with tempfile.TemporaryDirectory(prefix="morph-tfx-worker-") as scratch:
        for number, (artifact, _) in enumerate(before):
            artifact.uri = os.path.join(scratch, str(number))
        try:
            yield
        finally:
            for artifact, uri in before:
                artifact.uri = uri


def _grow_gpu_memory() -> None:
    """Lets TensorFlow take a GPU's memory as it needs it, so that the step before, or after, has some."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:  # TensorFlow runs already
            logging.warning("The memory of %s cannot be set to grow any more: %s", gpu.name, error)
