"""The literature's setting: ResNet-20 and ResNet-56 on all of CIFAR-10, at half of the multiply-adds.

    python -m benchmarks.cifar [--data DIR] [--network ResNet-56] [--epochs 200] [--seeds 3] [--rows 50000]

Made for a GPU, where a run of ResNet-56 takes hours; `--rows` and `--epochs` make it small enough to see on a CPU that
it works. DIR holds `cifar10_jpeg.npz` (JPEG files end to end: header, train_bytes, train_end, y_train, and the same of
the test split); without it Keras downloads the images.

Recipe: SGD with Nesterov's momentum 0.9, peak learning rate 0.1 on one cosine, weight decay 5e-4 apart from the
gradient, batch 128, images mirrored and shifted by up to four pixels. Arms: the seed; one run in place, of as many
epochs in all; and one run in place that begins with the trained seed's weights, which is how most papers prune, at
twice the epochs. Accuracy is that after the last epoch, on the test split, which nothing is chosen by.

Published, with base accuracies of 93.5 to 93.7 % for ResNet-56 at about half of the multiply-adds: DepGraph 93.77 %
(93.46 % without sparse training; Fang et al., arXiv 2301.12900, the best epoch on the test split), ResRep 93.71 % (Ding
et al., arXiv 2007.03260).
"""

from __future__ import annotations

import io
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np

import morph_core as morph
from benchmarks.images import accuracy, residual, train
from benchmarks.tables import read, show, write

NETWORKS = {"ResNet-20": 3, "ResNet-56": 9}
ARMS = ("seed", "in place", "trained, then in place")
TARGET, PART, BATCH = 0.5, 0.25, 128
MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.245, 0.243, 0.261)


def load(folder: pathlib.Path | None, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images (rows, 32, 32, 3) and labels, and those of the test split; a fifth as many rows of it at most."""
    if folder is None:
        (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
    else:
        with np.load(folder / "cifar10_jpeg.npz") as archive:
            x, y = _decoded(archive, "train", rows)
            x_test, y_test = _decoded(archive, "test", rows // 5)
    scale = lambda images: ((images / 255 - MEAN) / DEVIATION).astype("float32")  # noqa: E731
    test = slice(max(rows // 5, 10))
    return scale(x[:rows]), y[:rows].astype("int32").ravel(), scale(x_test[test]), y_test[test].astype("int32").ravel()


def _decoded(archive: np.lib.npyio.NpzFile, split: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    header, body = archive["header"].tobytes(), archive[f"{split}_bytes"].tobytes()
    ends = archive[f"{split}_end"][:rows]
    starts = np.concatenate([[0], ends[:-1]])
    files = (io.BytesIO(header + body[start:end]) for start, end in zip(starts, ends, strict=True))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]), archive[f"y_{split}"][:rows]


def run(name: str, seed: int, data: tuple, epochs: int) -> list[dict]:
    """All arms with one seed; the last goes on with the trained weights of the first."""
    rows = []
    keras.utils.set_random_seed(seed)
    trained = residual((16, 32, 64), NETWORKS[name], pixels=32)
    initial = trained.get_weights()
    graph = morph.ChannelGraph.from_model(trained)
    for arm in ARMS:
        started = time.process_time()
        left = dict.fromkeys(("flops", "params"), 1.0)
        if arm == "seed":
            train(trained, data, epochs, BATCH, verbose=2)
            small = trained
        else:
            keras.utils.set_random_seed(seed)
            model = residual((16, 32, 64), NETWORKS[name], pixels=32)
            model.set_weights(initial if arm == "in place" else trained.get_weights())
            search = morph.StructureSearch(model, target=TARGET, search_fraction=PART)
            train(search, data, epochs, BATCH, verbose=2)
            small, structure = search.result(), search.structure()
            left = {cost: graph.cost(cost, structure) / graph.cost(cost) for cost in left}
        seconds = round(time.process_time() - started, 1)
        rows.append({"arm": arm, "accuracy": accuracy(small, data), **left, "cpu_seconds": seconds})
    return rows


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=pathlib.Path), help="Folder of cifar10_jpeg.npz.")
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these networks.")
@click.option("--epochs", default=200, show_default=True, help="Of each arm.")
@click.option("--seeds", default=3, show_default=True, help="Trainings of each arm.")
@click.option("--rows", default=50_000, show_default=True, help="Training images.")
@click.option("--mixed-precision", is_flag=True, help="Compute in bfloat16.")
@click.option("--output", default="build/cifar.jsonl", show_default=True, type=click.Path(path_type=pathlib.Path))
def main(
    folder: pathlib.Path | None,
    names: tuple[str, ...],
    epochs: int,
    seeds: int,
    rows: int,
    mixed_precision: bool,
    output: pathlib.Path,
) -> None:
    """Train every arm with every seed that is not in the output file yet, and print the table."""
    if mixed_precision:
        keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    data, done = load(folder, rows), read(output)
    how = {"epochs": epochs, "rows": rows, "mixed_precision": mixed_precision}
    known = {(row["network"], row["seed"]) for row in done if how.items() <= row.items() and row["arm"] == ARMS[-1]}
    for name in names or NETWORKS:
        for seed in range(seeds):
            if (name, seed) not in known:
                for row in run(name, seed, data, epochs):
                    done.append({"network": name, "seed": seed, **how, **row})
                    write(output, done[-1])
                    click.echo(f"{name}, seed {seed}, {row['arm']}: {row['accuracy']:.4f}", err=True)
    rows_of_these = [row for row in done if how.items() <= row.items()]
    show(f"CIFAR-10, {rows:,} images, {epochs} epochs", rows_of_these, names or NETWORKS, ARMS, against="seed")


if __name__ == "__main__":
    main()
