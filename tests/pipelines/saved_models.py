"""The smallest SavedModel that a server takes, for tests of what becomes of models and not of what they answer."""

import pathlib

import tensorflow as tf


class _Doubled(tf.Module):
    def __init__(self):
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="examples")])
    def __call__(self, examples):
        return {"outputs": self.factor * examples}


def save(directory: pathlib.Path, version: str = "") -> pathlib.Path:
    """Saves one; `version` becomes the text of a file in it."""
    doubled = _Doubled()
    tf.saved_model.save(doubled, str(directory), signatures={"serving_default": doubled.__call__})
    (directory / "version").write_text(version)
    return directory


def truncate(file: pathlib.Path) -> None:
    """What a copy that was cut off leaves."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
