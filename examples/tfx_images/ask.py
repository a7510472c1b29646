"""Asks the pushed model what is on some images: python ask.py data/new/*.png

This is a client of the SavedModel, in plain TensorFlow: neither TFX nor morph-tfx is imported, nor the module file.
"""

import argparse
from pathlib import Path

import tensorflow as tf


def example(image: bytes) -> bytes:
    """What the model takes: a serialized tf.train.Example with the bytes of the file as they are."""
    feature = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description="Asks the newest pushed model what is on some images.")
    parser.add_argument("images", type=Path, nargs="+", help="PNG or JPEG files")
    parser.add_argument("--serving", type=Path, default=Path("output/serving"), help="where models are pushed to")
    options = parser.parse_args()
    newest = max(options.serving.iterdir(), key=lambda version: int(version.name))
    serve = tf.saved_model.load(str(newest)).signatures["serving_default"]
    answers = serve(examples=tf.constant([example(image.read_bytes()) for image in options.images]))["outputs"].numpy()
    for image, probabilities in zip(options.images, answers, strict=True):
        print(f"{image.name}: {probabilities.argmax()} ({probabilities.max():.0%})")


if __name__ == "__main__":
    main()
