"""What is missing in the data is found before anything runs."""

import gzip

import pytest
import tensorflow as tf

from morph_core import MorphError
from morph_tfx.pipelines.config import DataConfig
from morph_tfx.pipelines.local.examples import check_examples


def example(**features: int) -> bytes:
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value])) for name, value in features.items()
            }
        )
    ).SerializeToString()


def write(path, records: list[bytes], compression: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "train" / "a", [example(label=1, x=2)])
    write(tmp_path / "eval" / "a", [], "GZIP")
    write(tmp_path / "eval" / "b", [example(label=1, x=2)], "GZIP")
    return DataConfig(format="tfrecord", path=str(tmp_path), splits={"train": "train/*", "eval": "eval/*"})


def test_plain_and_gzipped_records_are_read(data):
    check_examples(data, "label")


def test_a_label_that_no_example_has_is_refused_with_those_they_have(data):
    with pytest.raises(MorphError, match=r"label: 'lable' is not a feature .* They have: label, x\."):
        check_examples(data, "lable")


def test_an_empty_split_is_named(data, tmp_path):
    (tmp_path / "eval" / "b").unlink()
    with pytest.raises(MorphError, match=r"data.splits.eval: the 1 file.* hold no examples"):
        check_examples(data, "label")


def test_a_split_without_files_is_named(data, tmp_path):
    (tmp_path / "train" / "a").unlink()
    with pytest.raises(MorphError, match=r"data.splits.train: no file matches .*train/\*"):
        check_examples(data, "label")


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(MorphError, match=r"data.path: .*nowhere is not a directory"):
        check_examples(DataConfig(format="csv", path=str(tmp_path / "nowhere"), eval_fraction=0.2), "label")


@pytest.mark.parametrize(
    "content",
    [b"name,label\n1,2\n3,4\n", gzip.compress(b"name,label\n1,2\n"), b"\x00" * 40],
    ids=["CSV", "compressed CSV", "zeros"],
)
def test_a_file_that_is_no_tfrecord_is_named(data, tmp_path, content):
    (tmp_path / "train" / "a").write_bytes(content)
    with pytest.raises(MorphError, match=r"train/a does not hold serialized tf.train.Examples"):
        check_examples(data, "label")


def test_csv_columns_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n1,2\n")
    csv = DataConfig(format="csv", path=str(tmp_path), eval_fraction=0.2)
    check_examples(csv, "label")
    with pytest.raises(MorphError, match="They have: label, x"):
        check_examples(csv, "y")


def test_a_csv_file_with_a_header_only_has_no_examples(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n")
    with pytest.raises(MorphError, match="hold no examples"):
        check_examples(DataConfig(format="csv", path=str(tmp_path), eval_fraction=0.2), "label")


def test_remote_data_is_left_to_the_pipeline():
    check_examples(DataConfig(format="csv", path="gs://bucket/data", eval_fraction=0.2), "label")
