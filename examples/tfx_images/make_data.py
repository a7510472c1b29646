"""Writes scikit-learn's handwritten digits as a data set of PNG images: python make_data.py

    data/train/, data/eval/     TFRecords of tf.train.Examples with "image" (PNG bytes) and "label" (0 to 9)
    data/new/                   PNG files that the pipeline never sees; a name starts with the label

Nothing is downloaded. For data of your own, write the same two features; the images may be PNG or JPEG, of any size.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

SPLITS = {"train": 800, "eval": 200, "new": 100}


def png(image: np.ndarray) -> bytes:
    """An image of 0 to 16, as scikit-learn has it, in PNG format."""
    pixels = (image * (255 / 16)).round().astype(np.uint8)
    return tf.io.encode_png(pixels[:, :, np.newaxis]).numpy()


def example(image: bytes, label: int) -> bytes:
    """A serialized tf.train.Example."""
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes handwritten digits as a data set of PNG images.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the directory to write into (default: data)")
    data = parser.parse_args().data
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.RandomState(0).permutation(len(images))
    for split, size in SPLITS.items():
        chosen, order = order[:size], order[size:]
        pairs = [(png(images[index].reshape(8, 8)), int(labels[index])) for index in chosen]
        (data / split).mkdir(parents=True, exist_ok=True)
        if split == "new":
            for number, (image, label) in enumerate(pairs):
                (data / split / f"{label}-{number:03}.png").write_bytes(image)
            continue
        with tf.io.TFRecordWriter(str(data / split / "digits.tfrecord.gz"), "GZIP") as writer:
            for image, label in pairs:
                writer.write(example(image, label))
    print(f"Wrote {', '.join(f'{size} images to {data / split}' for split, size in SPLITS.items())}.")


if __name__ == "__main__":
    main()
