"""The demo's data: real, split once and for all, and written once."""

import numpy as np
import pytest
import tensorflow as tf

from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.local import demo


@pytest.fixture(scope="module")
def digits():
    return demo.load_digits()


def test_every_digit_is_in_exactly_one_split(digits):
    from sklearn.datasets import load_digits

    images, _ = load_digits(return_X_y=True)
    together = np.concatenate([split.images for split in digits.values()])
    assert [len(split.labels) for split in digits.values()] == [1077, 360, 360]
    assert sorted(map(tuple, together)) == sorted(map(tuple, images.astype(np.float32)))


def test_every_split_holds_every_digit(digits):
    for split in digits.values():
        assert set(split.labels) == set(range(10))


def test_the_files_hold_the_split_and_are_written_once(digits, tmp_path):
    config = load_config(demo.prepare(tmp_path))
    file = tmp_path / "data" / "train" / "digits.tfrecord.gz"
    records = list(tf.data.TFRecordDataset(str(file), compression_type="GZIP").as_numpy_iterator())
    assert records == digits["train"].examples()
    example = tf.train.Example.FromString(records[0])
    assert list(example.features.feature["image"].float_list.value) == list(digits["train"].images[0])
    assert list(example.features.feature["label"].int64_list.value) == [digits["train"].labels[0]]
    written = file.stat().st_mtime_ns
    demo.prepare(tmp_path)
    assert file.stat().st_mtime_ns == written  # ImportExampleGen's cache looks at the time
    assert config.data.path == str(tmp_path / "data")


def test_an_edited_configuration_stays(tmp_path):
    path = demo.prepare(tmp_path)
    path.write_text(path.read_text().replace("cycles: 2", "cycles: 1"))
    assert load_config(demo.prepare(tmp_path)).cycles == 1


def test_the_seed_is_trained_once(digits, tmp_path, monkeypatch):
    config = load_config(demo.prepare(tmp_path))
    short = config.model_copy(
        update={"hparams": {"widths": [4, 4]}, "retrain": config.retrain.model_copy(update={"epochs": 1})}
    )
    said: list[str] = []
    first = demo.trained_seed(short, digits, tmp_path / "seed.json", said.append)
    assert 0 <= first.accuracy <= 1 and first.seconds > 0
    assert demo.trained_seed(short, digits, tmp_path / "seed.json", said.append) == first
    assert len([line for line in said if line.startswith("Training")]) == 1
    longer = short.model_copy(update={"retrain": short.retrain.model_copy(update={"epochs": 2})})
    demo.trained_seed(longer, digits, tmp_path / "seed.json", said.append)
    assert len([line for line in said if line.startswith("Training")]) == 2
