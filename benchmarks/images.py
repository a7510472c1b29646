"""The networks of `accuracy.py`, the images they learn and the recipe of their training.

DIR holds `cifar10_16x16_20k.npz`: 20,000 training and 5,000 test images of CIFAR-10 averaged to 16x16 pixels, as uint8
arrays x_train, y_train, x_test, y_test. The first 10,000 training images are trained on, the next 5,000 are the
validation split, by which choices are made.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import click
import keras
import numpy as np
from keras import layers

ROWS, BATCH = 10_000, 100
PEAK, FIRST, MOMENTUM, DECAY = 0.1, 0.01, 0.9, 5e-4


@dataclasses.dataclass(frozen=True)
class Network:
    """A seed, and how long each arm of the study trains it in all."""

    build: Callable[[], keras.Model]
    epochs: int


def load(folder: pathlib.Path, judged: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images to train on, their labels, and those to judge by: of the split "validation" or "test".

    Images are float32 of about zero mean and unit variance, (rows, 16, 16, 3).
    """
    path = folder / "cifar10_16x16_20k.npz"
    if not path.exists():
        raise click.ClickException(f"{path} is missing; the head of benchmarks/images.py says what it holds.")
    with np.load(path) as data:
        x, y = data["x_train"], data["y_train"].astype("int32")
        other = (x[ROWS : ROWS + 5000], y[ROWS : ROWS + 5000])
        if judged == "test":
            other = (data["x_test"], data["y_test"].astype("int32"))
        scale = lambda images: (images.astype("float32") / 255 - 0.47) / 0.25  # noqa: E731
        return scale(x[:ROWS]), y[:ROWS], scale(other[0]), other[1]


def plain(widths: Sequence[int]) -> keras.Model:
    """Six convolutions with BatchNormalization, pooling after every second."""
    image, x = _image()
    for index, width in enumerate(widths):
        x = layers.ReLU()(_convolution(x, width, f"conv{index + 1}"))
        if index % 2 and index < len(widths) - 1:
            x = layers.MaxPooling2D()(x)
    return _classifier(image, x)


def residual(widths: Sequence[int], blocks: int, pixels: int = 16) -> keras.Model:
    """A ResNet for CIFAR (He et al., 2015, section 4.2), of two convolutions a block, with projections at strides.

    Args:
        widths: of the stages; the first is also the stem's.
        blocks: of each stage.
        pixels: of the images, each way.
    """
    image, x = _image(pixels)
    x = layers.ReLU()(_convolution(x, widths[0], "stem"))
    for stage, width in enumerate(widths):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            name = f"s{stage + 1}b{block + 1}"
            y = layers.ReLU()(_convolution(x, width, f"{name}_a", strides=strides))
            y = _convolution(y, width, f"{name}_b")
            if strides > 1:
                x = _convolution(x, width, f"{name}_skip", size=1, strides=strides)
            x = layers.ReLU()(layers.Add()([x, y]))
    return _classifier(image, x)


def _image(pixels: int = 16) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    image = keras.Input((pixels, pixels, 3))
    flipped = layers.RandomFlip("horizontal", name="flip")(image)
    return image, layers.RandomTranslation(0.125, 0.125, name="shift")(flipped)


def _convolution(x: keras.KerasTensor, width: int, name: str, size: int = 3, strides: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(width, size, strides, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(momentum=0.95)(x)


def _classifier(image: keras.KerasTensor, x: keras.KerasTensor) -> keras.Model:
    return keras.Model(image, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)))


NETWORKS = {
    "front-heavy": Network(lambda: plain((48, 48, 32, 32, 16, 16)), 16),
    "well-shaped": Network(lambda: plain((16, 16, 32, 32, 64, 64)), 8),
    "equal widths": Network(lambda: plain((32, 32, 32, 32, 32, 32)), 8),
    "residual": Network(lambda: residual((32, 32, 32), 1), 8),
    "ResNet-20": Network(lambda: residual((16, 32, 64), 3), 16),
}


def train(
    model: keras.Model,
    data: tuple,
    epochs: int,
    batch: int = BATCH,
    verbose: int = 0,
    *,
    before: int = 0,
    until: int | None = None,
    **options: Any,
) -> None:
    """Train with SGD on one cosine schedule.

    Args:
        model: to compile and fit.
        data: as of `load`.
        epochs: of the whole schedule.
        batch: images in a step.
        verbose: as Keras has it.
        before: epochs of it that another model was trained for.
        until: the epoch of it to end after; the last by default.
        **options: more for `fit`.
    """
    rows = len(data[0]) // batch
    steps = epochs * rows
    rate = keras.optimizers.schedules.CosineDecay(FIRST, steps, warmup_target=PEAK, warmup_steps=steps // 20)
    optimizer = keras.optimizers.SGD(rate, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    optimizer.iterations.assign(before * rows)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(data[0], data[1], batch_size=batch, epochs=(until or epochs) - before, verbose=verbose, **options)


def accuracy(model: keras.Model, data: tuple) -> float:
    """The share of the images to judge by that are told right."""
    return float((model.predict(data[2], batch_size=500, verbose=0).argmax(-1) == data[3]).mean())
