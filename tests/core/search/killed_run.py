"""One attempt at a search with checkpoints, which kills itself at a given point; prints the structure if it gets there.

    python killed_run.py DIRECTORY EPOCH BATCH          dies after this batch of this epoch, counted from 0
    python killed_run.py DIRECTORY --while-writing N    dies when half of the checkpoint after epoch N is on disk
    python killed_run.py DIRECTORY                      lives

A program of its own, run by test_checkpoint.py. Every epoch that begins is noted in DIRECTORY/../epochs.
"""

import contextlib
import os
import pathlib
import signal
import sys

import keras
import numpy as np
from keras import layers

import morph_core as morph
from morph_core.search.checkpoint import Directory

EPOCHS, STEPS = 12, 3
X = np.random.default_rng(0).normal(size=(32 * STEPS, 8)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")


def die():
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


class DieAt(keras.callbacks.Callback):
    def __init__(self, directory, epoch, batch):
        super().__init__()
        self.notes, self.point = pathlib.Path(directory).parent / "epochs", (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        with self.notes.open("a") as file:
            file.write(f"{epoch}\n")

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.point:
            die()


class DieWhileWriting(Directory):
    def __init__(self, directory, epoch):
        super().__init__(directory)
        self.epoch = epoch

    @contextlib.contextmanager
    def writing(self, name):
        with super().writing(name) as file:
            yield file
            if self.epoch is not None and name == f"epoch-{self.epoch:06}.npz":
                file.truncate(file.tell() // 2)
                file.flush()
                die()


def small():
    """A network with random numbers of its own; on PyTorch, Dropout without a seed takes those of the whole process."""
    start = x = keras.Input((8,))
    for name in ("one", "two"):
        x = layers.Dropout(0.2, seed=1)(layers.Dense(12, activation="relu", name=name)(x))
    return keras.Model(start, layers.Dense(2, name="head")(x))


def searched(checkpoint, seed=0, callbacks=(), gate="logistic_sigmoid", search_fraction=1.0):
    """The search and its history. Once there is a checkpoint the seed must not matter."""
    keras.utils.set_random_seed(seed)
    search = morph.StructureSearch(small(), target=0.4, gate=gate, search_fraction=search_fraction)
    search.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit = {"batch_size": 32, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    return search, search.fit(X, Y, **fit, callbacks=list(callbacks), checkpoint=checkpoint)


if __name__ == "__main__":
    place, *where = sys.argv[1:]
    writing = int(where[1]) if where[:1] == ["--while-writing"] else None
    epoch, batch = (-1, -1) if writing or not where else map(int, where)
    seed = os.getpid() if any(pathlib.Path(place).glob("*.npz")) else 0
    search, _ = searched(DieWhileWriting(place, writing), seed=seed, callbacks=[DieAt(place, epoch, batch)])
    print(search.structure().to_json())
