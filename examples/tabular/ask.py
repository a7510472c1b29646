"""Asks the pushed model who will leave: python ask.py new.csv

This is a client of the SavedModel, in plain TensorFlow: neither TFX nor morph-tfx is imported, nor the module file.
"""

import argparse
import csv
from pathlib import Path

import tensorflow as tf

# The columns with numbers, by what ExampleGen took them for; all others hold strings.
INTEGERS = {"months", "support_calls"}
FLOATS = {"monthly_fee", "days_since_login"}
LABEL = "left"


def feature(name: str, text: str) -> tf.train.Feature:
    """One value of a row; an empty one is missing."""
    if not text:
        return tf.train.Feature()
    if name in INTEGERS:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(text)]))
    if name in FLOATS:
        return tf.train.Feature(float_list=tf.train.FloatList(value=[float(text)]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))


def example(row: dict[str, str]) -> bytes:
    """What the model takes: a serialized tf.train.Example with the raw columns."""
    features = {name: feature(name, text) for name, text in row.items() if name != LABEL}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def main() -> None:
    parser = argparse.ArgumentParser(description="Asks the newest pushed model who will leave.")
    parser.add_argument("rows", type=Path, help="a CSV file with the columns of the training data")
    parser.add_argument("--serving", type=Path, default=Path("serving"), help="where models are pushed to")
    options = parser.parse_args()
    with open(options.rows, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    newest = max(options.serving.iterdir(), key=lambda version: int(version.name))
    serve = tf.saved_model.load(str(newest)).signatures["serving_default"]
    answers = serve(examples=tf.constant([example(row) for row in rows]))["outputs"].numpy()
    for number, chance in enumerate(answers[:, 0], 1):
        print(f"row {number}: leaves with {chance:.0%}")


if __name__ == "__main__":
    main()
