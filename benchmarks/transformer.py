"""What a search is worth on transformers: accuracy at half of the FLOPs, against uniform widths, at equal epochs.

Two networks of layers that other people wrote (`keras_hub.layers.TransformerEncoder`), with random weights: a text
classifier as BERT, and a vision transformer. Their blocks are composite layers, which a search opens.

    python -m benchmarks.transformer --data DIR [--seeds 5] [--network NAME] [--output results.jsonl]

The text is the source of Python's own standard library: which of eight packages does a passage of 24 words come from?
Files are split into training, validation and test before they are cut into passages. DIR holds the images of
`benchmarks/images.py`, of which the last 2,000 training images are held out here. Choices belong to the validation
split (`--on validation`); the tables are of the test split. Finished runs are read back from the output file.
"""

from __future__ import annotations

import os
import pathlib
import re
import sysconfig
import time
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import keras_hub
import numpy as np
from keras import layers

import morph_core as morph
from benchmarks.tables import read, show, write

PACKAGES = ("asyncio", "email", "idlelib", "lib2to3", "multiprocessing", "tkinter", "unittest", "xml")
WORDS, VOCABULARY, PASSAGES = 24, 2000, 400
WIDTH, HEADS, HIDDEN, BLOCKS = 32, 4, 128, 2
TARGET, EPOCHS, BATCH = 0.5, 12, 64
ARMS = ("seed", "uniform", "search, then scratch", "in place")
SEARCH_PART = {"search, then scratch": 0.5, "in place": 0.25}
Split = tuple[np.ndarray, np.ndarray]


# --- data -------------------------------------------------------------------------------------------------------------


def passages() -> dict[str, Split]:
    """Passages of the standard library's source as numbers of words, and the package of each."""
    found: dict[str, tuple[list, list]] = {"train": ([], []), "validation": ([], []), "test": ([], [])}
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for label, package in enumerate(PACKAGES):
        files = sorted((library / package).rglob("*.py"))
        for place, file in enumerate(files):
            split = "test" if place % 5 == 3 else "validation" if place % 5 == 4 else "train"
            words = re.findall(r"[A-Za-z]+|[^\sA-Za-z]", file.read_text(errors="ignore"))
            for start in range(0, len(words) - WORDS, WORDS):
                found[split][0].append(words[start : start + WORDS])
                found[split][1].append(label)
    counts = Counter(word for passage in found["train"][0] for word in passage)
    number = {word: rank + 1 for rank, (word, _) in enumerate(counts.most_common(VOCABULARY - 1))}
    return {
        split: _balanced([[number.get(word, 0) for word in one] for one in x], y) for split, (x, y) in found.items()
    }


def _balanced(x: list[list[int]], y: list[int]) -> Split:
    """As many passages of each package, chosen by chance."""
    labels, rng = np.array(y), np.random.default_rng(0)
    each = min(PASSAGES, *(int((labels == label).sum()) for label in range(len(PACKAGES))))
    kept = np.concatenate(
        [rng.choice(np.flatnonzero(labels == label), each, replace=False) for label in range(len(PACKAGES))]
    )
    kept = rng.permutation(kept)
    return np.array(x, dtype="int32")[kept], labels[kept].astype("int32")


def images(folder: pathlib.Path) -> dict[str, Split]:
    """CIFAR-10 at 16x16 pixels: 4,000 images to train on, 2,000 to choose by, 5,000 to judge by."""
    with np.load(folder / "cifar10_16x16_20k.npz") as data:
        scale = lambda pixels: (pixels.astype("float32") / 255 - 0.47) / 0.25  # noqa: E731
        x, y = scale(data["x_train"]), data["y_train"].astype("int32")
        test = scale(data["x_test"]), data["y_test"].astype("int32")
    return {"train": (x[:4000], y[:4000]), "validation": (x[-2000:], y[-2000:]), "test": test}


# --- networks ---------------------------------------------------------------------------------------------------------


def classifier() -> keras.Model:
    """Words, blocks of attention, a mean over places."""
    words = keras.Input((WORDS,), dtype="int32")
    x = keras_hub.layers.TokenAndPositionEmbedding(VOCABULARY, WORDS, WIDTH)(words)
    return keras.Model(words, _encoded(x, len(PACKAGES)))


def vision_transformer() -> keras.Model:
    """Patches of 4x4 pixels, blocks of attention, a mean over places."""
    image = keras.Input((16, 16, 3))
    x = layers.Reshape((16, WIDTH))(layers.Conv2D(WIDTH, 4, strides=4, name="patches")(image))
    return keras.Model(image, _encoded(keras_hub.layers.PositionEmbedding(16)(x) + x, 10))


def _encoded(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    for index in range(BLOCKS):
        x = keras_hub.layers.TransformerEncoder(HIDDEN, HEADS, dropout=0.1, name=f"block{index + 1}")(x)
    return layers.Dense(classes, name="logits")(layers.GlobalAveragePooling1D()(x))


NETWORKS = {"text classifier": classifier, "vision transformer": vision_transformer}


# --- arms -------------------------------------------------------------------------------------------------------------


def train(model: keras.Model, data: Split, epochs: int, of_epochs: int | None = None) -> None:
    """Train with Adam on a cosine schedule that ends after `of_epochs`."""
    steps = (of_epochs or epochs) * -(-len(data[0]) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(1e-4, steps, warmup_target=2e-3, warmup_steps=steps // 10)
    model.compile(
        keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(*data, batch_size=BATCH, epochs=epochs, verbose=0)


def run(name: str, arm: str, seed: int, data: dict[str, Split], judged: str) -> dict:
    """One training of one arm."""
    keras.utils.set_random_seed(seed)
    model = NETWORKS[name]()
    graph = morph.ChannelGraph.from_model(model)
    started = time.process_time()
    if arm in SEARCH_PART:
        part = SEARCH_PART[arm]
        search = morph.StructureSearch(
            model, cost="flops", target=TARGET, search_fraction=part if arm == "in place" else 1.0
        )
        train(search, data["train"], EPOCHS if arm == "in place" else round(EPOCHS * part))
        structure = search.structure()
        if arm == "in place":
            student = search.result()
        else:
            keras.utils.set_random_seed(1000 + seed)
            student = morph.rebuild(NETWORKS[name](), structure)
            train(student, data["train"], EPOCHS - round(EPOCHS * part))
    else:
        structure = morph.describe(graph, {}) if arm == "seed" else morph.uniform(graph, "flops", target=TARGET)
        student = model if arm == "seed" else morph.rebuild(model, structure)
        train(student, data["train"], EPOCHS)
    x, y = data[judged]
    return {
        "accuracy": float((student.predict(x, batch_size=500, verbose=0).argmax(-1) == y).mean()),
        "flops": graph.cost("flops", structure) / graph.cost("flops"),
        "params": student.count_params(),
        "widths": dict(structure.widths),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


@click.command()
@click.option("--data", "folder", required=True, type=click.Path(path_type=pathlib.Path), help="Folder of the images.")
@click.option("--seeds", default=5, show_default=True, help="Trainings of each arm.")
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these networks.")
@click.option("--on", "judged", default="test", show_default=True, type=click.Choice(["validation", "test"]))
@click.option("--output", default="build/transformer.jsonl", show_default=True, type=click.Path(path_type=pathlib.Path))
def main(folder: pathlib.Path, seeds: int, names: tuple[str, ...], judged: str, output: pathlib.Path) -> None:
    """Train every arm on every network with every seed, and print means and their 95 % intervals."""
    done = read(output)
    known = {(row["network"], row["arm"], row["seed"], row["on"]) for row in done}
    for name in names or NETWORKS:
        data = passages() if name == "text classifier" else images(folder)
        for seed in range(seeds):
            for arm in ARMS:
                if (name, arm, seed, judged) in known:
                    continue
                row = {"network": name, "arm": arm, "seed": seed, "on": judged, **run(name, arm, seed, data, judged)}
                done.append(row)
                write(output, row)
                click.echo(f"seed {seed}, {name}, {arm}: {row['accuracy']:.3f}, {row['cpu_seconds']} s", err=True)
    title = f"Accuracy ({judged}) at {TARGET:.0%} of the FLOPs, {EPOCHS} epochs in all"
    show(title, [row for row in done if row["on"] == judged], NETWORKS, ARMS)


if __name__ == "__main__":
    main()
