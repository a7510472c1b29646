"""Searches under `tf.distribute.MirroredStrategy` on two halves of a CPU, beside the same on one; prints JSON.

A program of its own, which test_citizen.py runs, since TensorFlow divides a CPU only before it is first used.
"""

import contextlib
import json

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402

import morph_core as morph  # noqa: E402
from morph_core.arrays import as_numpy  # noqa: E402
from morph_core.search import narrowing  # noqa: E402

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
TWO = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def small(normalised: bool) -> keras.Model:
    start = x = keras.Input((8,))
    for name in ("one", "two"):
        x = layers.Dense(12, use_bias=not normalised, name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x) if normalised else x)
    return keras.Model(start, layers.Dense(2, name="head")(x))


def searched(gate: str, strategy: tf.distribute.Strategy | None, inside: bool) -> dict:
    """What a search ends with; without `inside` only its seed is made in the strategy's scope."""
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model, optimizer = small(gate == "gamma"), keras.optimizers.SGD(0.05)
    with strategy.scope() if strategy and inside else contextlib.nullcontext():
        search = morph.StructureSearch(model, target=0.5, gate=gate)
        search.compile(optimizer if inside else "sgd", LOSS)
    losses = search.fit(X, Y, batch_size=48, epochs=2, shuffle=False, verbose=0).history["loss"]
    structure = search.structure()
    return {
        "replicas": search.distribute_strategy.num_replicas_in_sync,
        "share": structure.costs["flops"]["structure"] / structure.costs["flops"]["seed"],
        "losses": losses,
        "means": search._gate.optimizer.means(search._gate.trainable[0]).tolist() if gate == "fisher" else [],
    }


def moved_per_price() -> list[float]:
    """How far a step of 1 moves the kernel of each channel by its price alone, in units of the price."""
    with TWO.scope():
        model = small(False)
        search = morph.StructureSearch(model, cost="params", strength=1e-3, gate="group_lasso")
        search.compile(keras.optimizers.SGD(1.0), lambda _, outputs: 0.0 * keras.ops.sum(outputs, axis=-1))
    search.update(0.5)
    kernel = model.get_layer("one").kernel
    before, price = as_numpy(kernel), as_numpy(search._switches.prices)[:12]
    search.fit(X, Y, batch_size=96, epochs=1, verbose=0)
    return (np.linalg.norm(as_numpy(kernel) - before, axis=0) / price).tolist()


def in_one_piece(strategy: tf.distribute.Strategy | None, taught: bool = False, target: float = 0.5) -> dict:
    """What a run that is cut in the middle ends with; after the cut it may have a teacher, of weights of its own."""
    networks = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: networks.append(watch.model))
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        teacher = small(False) if taught else None
        search = morph.StructureSearch(small(False), target=target, search_fraction=0.5, distill=teacher)
        search.compile(keras.optimizers.SGD(0.05, momentum=0.9), LOSS)
    epochs = 4 if target == 0.5 else 8
    history = search.fit(X, Y, batch_size=48, epochs=epochs, shuffle=False, verbose=0, callbacks=[watch])
    result = search.result()
    return {
        "replicas": result.distribute_strategy.num_replicas_in_sync,
        "widths": [layer.units for layer in result.layers if isinstance(layer, layers.Dense)],
        "losses": history.history["loss"],
        "networks": len({id(network) for network in networks}),
        "iterations": int(as_numpy(result.optimizer.iterations)),
    }


found = {gate: searched(gate, TWO, inside=gate != "gamma") for gate in sorted(morph.GATES)}
found = {"two": found, "one": searched("fisher", None, inside=True), "moved": moved_per_price()}
found["cut"] = [in_one_piece(TWO), in_one_piece(None)]
found["taught"] = [in_one_piece(TWO, taught=True), in_one_piece(None, taught=True)]
narrowing._STEPS_SAVED = 0.0
found["narrowed"] = [in_one_piece(TWO, target=0.25), in_one_piece(None, target=0.25)]
print(json.dumps(found))
