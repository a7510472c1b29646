"""The demo: scikit-learn's handwritten digits through the whole pipeline, and a look at what came out.

1,797 real images of 8 x 8 pixels, split once and for all into train, eval (for Evaluator) and a holdout that no step of
the pipeline sees. Everything lies in one directory that `morph-tfx run` understands: data, configuration, module file.
After the run, the pushed SavedModel answers the holdout's serialized examples, next to the seed network trained for as
many epochs as the final model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morph_core import MorphError

from ..account import Say, change, duration, quieten
from ..config import PipelineConfig, load_config
from ..config.starter import template
from .result import RunResult
from .runner import run_pipeline

_SPLIT_SEED = 0
_SPLITS = {"train": 1077, "eval": 360, "holdout": 360}


@dataclass(frozen=True)
class Digits:
    """A split: `images` float32 (examples, 64) of 0 to 16, `labels` int64 (examples,)."""

    images: np.ndarray
    labels: np.ndarray

    def examples(self) -> list[bytes]:
        """The split as serialized tf.train.Examples."""
        import tensorflow as tf

        def example(image: np.ndarray, label: np.integer) -> bytes:
            feature = {
                "image": tf.train.Feature(float_list=tf.train.FloatList(value=image)),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)

        return [example(image, label) for image, label in zip(self.images, self.labels, strict=True)]


def load_digits() -> dict[str, Digits]:
    """scikit-learn's digits as `train`, `eval` and `holdout`, always split alike."""
    try:
        from sklearn.datasets import load_digits as load
    except ModuleNotFoundError as error:
        raise MorphError("The demo needs scikit-learn. Install it with: pip install 'morph-tfx[tfx]'") from error
    images, labels = map(np.asarray, load(return_X_y=True))
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(images))
    splits, start = {}, 0
    for name, size in _SPLITS.items():
        chosen = order[start : start + size]
        splits[name] = Digits(images[chosen].astype(np.float32), labels[chosen].astype(np.int64))
        start += size
    return splits


def prepare(directory: Path) -> Path:
    """Writes data, module file and configuration of the demo where they are missing; returns the configuration's path.

    Files that are there stay as they are, an edited configuration included, and so does the cache that depends on them.
    """
    import tensorflow as tf

    directory.mkdir(parents=True, exist_ok=True)
    for name, source in (("config.yaml", "digits.yaml"), ("module.py", "digits_module.py")):
        if not (directory / name).exists():
            (directory / name).write_text(template(source), encoding="utf-8")
    digits = load_digits()
    for split in ("train", "eval"):
        file = directory / "data" / split / "digits.tfrecord.gz"
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.parent.parent / f"{split}.partial"
        with tf.io.TFRecordWriter(str(partial), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            for example in digits[split].examples():
                writer.write(example)
        partial.rename(file)
    return directory / "config.yaml"


def run_demo(directory: Path, say: Say = print, verbose: bool = False) -> RunResult:
    """Prepares the directory, runs the pipeline in it and prints what came out."""
    if not verbose:
        quieten()
    start = time.monotonic()
    config = load_config(prepare(directory))
    say(f"Digits, module file and configuration are in {directory}; 'morph-tfx run --config' takes the last one too.")
    result = run_pipeline(config, say=say, verbose=verbose)
    digits = load_digits()
    rows = []
    if result.pushed_model is not None:
        seed = trained_seed(config, digits, directory / "seed.json", say)
        final = pushed_accuracy(result.pushed_model, digits["holdout"])
        label = f"accuracy, {len(digits['holdout'].labels)} held-out digits"
        rows.append((label, f"{seed.accuracy:.1%}", f"{final:.1%}", f"{100 * (final - seed.accuracy):+.1f} points"))
        if result.training_seconds is not None:
            seconds = result.training_seconds
            rows.append(
                ("time of all trainings", duration(seed.seconds), duration(seconds), change(seed.seconds, seconds))
            )

    from .summary import show_summary

    show_summary(result, config, rows)
    say(f"All in {duration(time.monotonic() - start)}.")
    return result


def pushed_accuracy(model_directory: str, holdout: Digits) -> float:
    """Accuracy of a SavedModel that answers serialized examples, the way a server would ask it."""
    import tensorflow as tf

    serve = tf.saved_model.load(model_directory).signatures["serving_default"]
    answers = serve(examples=tf.constant(holdout.examples()))["outputs"].numpy()
    return float(np.mean(answers.argmax(-1) == holdout.labels))


@dataclass(frozen=True)
class TrainedSeed:
    """The seed network, trained: `accuracy` on the holdout, and the `seconds` that its training took."""

    accuracy: float
    seconds: float


def trained_seed(config: PipelineConfig, digits: dict[str, Digits], cache: Path, say: Say = print) -> TrainedSeed:
    """Trains the seed network from scratch for as many epochs as the final model; what came of it is in `cache`."""
    key = _fingerprint(config)
    if cache.exists():
        known = json.loads(cache.read_text(encoding="utf-8"))
        if known.get("key") == key:
            say("The seed network was trained for comparison before.")
            return TrainedSeed(known["accuracy"], known["seconds"])
    say("Training the seed network for as many epochs, to compare with ...")
    model = module_of(config.module_file).build_model(config.hparams)

    def pixels(split: Digits) -> np.ndarray:
        return split.images.reshape(-1, 8, 8, 1) / 16.0

    train, holdout = digits["train"], digits["holdout"]
    length = config.final_training
    batch_size = length.batch_size
    epochs = length.epochs or max(1, round((length.steps or 0) * batch_size / len(train.labels)))
    start = time.monotonic()
    model.fit(pixels(train), train.labels, batch_size=batch_size, epochs=epochs, verbose=0)
    seconds = time.monotonic() - start
    answers = model.predict(pixels(holdout), verbose=0)
    seed = TrainedSeed(float(np.mean(answers.argmax(-1) == holdout.labels)), seconds)
    cache.write_text(json.dumps({"key": key, **asdict(seed)}), encoding="utf-8")
    return seed


def _fingerprint(config: PipelineConfig) -> str:
    """Changes whenever the seed's training would: with the module file, its arguments and the length."""
    settings = json.dumps([config.hparams, config.final_training.model_dump()], sort_keys=True)
    return hashlib.sha256(Path(config.module_file).read_bytes() + settings.encode()).hexdigest()


def module_of(file: str) -> Any:
    """The module in a Python file, imported."""
    spec = importlib.util.spec_from_file_location("demo_user_module", file)
    if spec is None or spec.loader is None:
        raise MorphError(f"module_file: {file} cannot be imported. Expected a .py file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
