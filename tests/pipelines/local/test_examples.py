"""What is missing in the data is found before anything runs."""

import gzip

import pytest
import tensorflow as tf

from morph_core import MorphError
from morph_tfx.pipelines.config import DataConfig
from morph_tfx.pipelines.local.examples import check_examples, required_by


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


def test_a_feature_to_slice_by_that_no_example_has_is_refused_with_those_they_have(data):
    check_examples(data, "label", slices=["x", "label"])
    with pytest.raises(MorphError, match=r"evaluate.slices: 'country' is not a feature .* They have: label, x\."):
        check_examples(data, "label", slices=["x", "country"])


def test_amounts_make_no_slices(tmp_path):
    csv = csv_of(tmp_path, train="x,plan,label\n1.5,a,1\n2,b,0\n", eval="x,plan,label\n3,a,1\n4.5,b,0\n")
    check_examples(csv, "label", slices=["plan", "label"])
    with pytest.raises(MorphError, match=r"evaluate.slices: feature 'x' holds numbers, and every different one"):
        check_examples(csv, "label", slices=["x"])


def test_a_csv_file_with_a_header_only_has_no_examples(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n")
    with pytest.raises(MorphError, match="hold no examples"):
        check_examples(DataConfig(format="csv", path=str(tmp_path), eval_fraction=0.2), "label")


def csv_of(tmp_path, **splits: str) -> DataConfig:
    """CSV files of these splits, and the section that names them."""
    for name, text in splits.items():
        (tmp_path / f"{name}.csv").write_text(text)
    patterns = {name: f"{name}.csv" for name in splits}
    return DataConfig(format="csv", path=str(tmp_path), splits=patterns)


SCHEMA = """
feature { name: "x" type: FLOAT shape { dim { size: 1 } } presence { min_fraction: 1 } }
feature { name: "maybe" type: FLOAT presence { min_fraction: 0.5 } }
feature { name: "label" type: BYTES shape { dim { size: 1 } } presence { min_fraction: 1 } }
"""


@pytest.fixture
def pushed(tmp_path) -> str:
    """A directory with two pushed models, of which the newer has the schema."""
    for version, schema in (("9", ""), ("10", SCHEMA)):
        (tmp_path / "pushed" / version / "assets.extra").mkdir(parents=True)
        (tmp_path / "pushed" / version / "assets.extra" / "schema.pbtxt").write_text(schema)
    return str(tmp_path / "pushed")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x,label\n1.5,a\n,b\n2.5,a\n",
            r"train.csv, line 3: the feature 'x' is empty\. The model that was pushed last",
        ),
        ("y,label\n1.5,a\n2.5,b\n", r"have no feature 'x', .* trained with \(numbers\)\. They have: label, y"),
        ("x,label\n1.5,a\nmuch,b\n", r"'x' .*holds text, but numbers .* line 3: 'much' is no number"),
        ("x,label\n1,a\n2,b\n", r"'x' .*holds whole numbers, but numbers .* written with decimals throughout"),
    ],
    ids=["empty cell", "missing column", "text", "whole numbers"],
)
def test_what_departs_from_the_pushed_models_schema_is_named(tmp_path, pushed, text, message):
    with pytest.raises(MorphError, match=message):
        check_examples(csv_of(tmp_path, train=text, eval=GOOD_CSV), "label", required=required_by(pushed))


def test_examples_like_those_of_the_pushed_model_are_taken(tmp_path, pushed):
    assert required_by(pushed) == {"x": "numbers", "label": "text"}
    data = csv_of(tmp_path, train=GOOD_CSV, eval=GOOD_CSV)
    assert check_examples(data, "label", required=required_by(pushed)) == []
    assert required_by(str(tmp_path / "nowhere")) == {}


def test_a_record_without_a_feature_of_the_pushed_model_is_named(data, tmp_path):
    write(tmp_path / "train" / "a", [example(label=1, x=2), example(label=2)])
    with pytest.raises(MorphError, match=r"a, record 2: the feature 'x' is empty"):
        check_examples(data, "label", required={"x": "whole numbers", "label": "whole numbers"})
    with pytest.raises(MorphError, match=r"have no feature 'y'"):
        check_examples(data, "label", required={"y": "numbers"})


GOOD_CSV = "x,label\n1.5,a\n2.5,b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,label\n1.5,a\n2.5,\n3.5,\n", r"eval.csv, line 3: the label is empty \('label'\)\. So it is in 2 rows"),
        ("x,label\n1.5,1\n2.5,NaN\n", r"eval.csv, line 3: the label is NaN"),
        ("x,label\n1.5,1\n2.5\n", r"eval.csv, line 3: the row has 1 cells, but the header 2 columns"),
        ("x,x,label\n1,1,1\n", r"eval.csv, line 1: 1 column names are there more than once: x"),
        ("\ufeffx,label\n1,1\n", r"eval.csv, line 1: the file begins with a byte order mark"),
        ("", r"eval.csv is empty"),
        ("x,label\na,a\nb,b\n", r"feature 'x' holds numbers in 'train', but text in 'eval'"),
    ],
    ids=["empty labels", "NaN", "short row", "double column", "byte order mark", "empty file", "another type"],
)
def test_a_row_of_a_csv_file_that_would_end_a_step_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(MorphError, match=message):
        check_examples(csv_of(tmp_path, train=GOOD_CSV, eval=text), "label")


def test_csv_files_of_a_split_have_the_same_header(tmp_path):
    (tmp_path / "a.csv").write_text("x,label\n1,2\n")
    (tmp_path / "b.csv").write_text("label,x\n1,2\n")
    with pytest.raises(MorphError, match=r"b.csv, line 1: the header is label, x, but that of .*a.csv is x, label"):
        check_examples(DataConfig(format="csv", path=str(tmp_path), eval_fraction=0.2), "label")


def test_a_text_in_a_column_of_numbers_is_told_with_its_line(tmp_path):
    told = check_examples(csv_of(tmp_path, train="x,label\n1,a\nn/a,b\n", eval="x,label\nn/a,a\n1,b\n"), "label")
    assert len(told) == 1
    assert "train.csv, line 3: 'n/a' is no number, so the whole column 'x' is read as text" in told[0]


def test_odd_labels_and_too_large_batches_are_told(tmp_path):
    data = csv_of(tmp_path, train="x,label\n1.5,a\n2.5,a\n", eval="x,label\n1.5,b\n2.5,a\n")
    told = check_examples(data, "label", {"search.batch_size": 2, "retrain.batch_size": 3})
    assert told[0].startswith("All 2 examples of split 'train' have the same 'label', 'a'")
    assert told[1].startswith("1 labels are in split 'eval' and not in 'train', so nothing learns them: b")
    assert told[2].startswith("retrain.batch_size is 3, and there are 2 examples to train on")
    assert len(told) == 3


def test_nothing_is_told_of_good_examples(tmp_path, data):
    assert check_examples(csv_of(tmp_path, train=GOOD_CSV, eval=GOOD_CSV), "label", {"search.batch_size": 2}) == []


def test_a_feature_that_no_csv_file_has_is_named_with_the_line_that_asks_for_it(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        'AGE = "age"\n\n\ndef preprocessing_fn(inputs):\n    known = "y" in inputs and inputs["y"]\n'
        '    return {"x": inputs["x"], "age": inputs[AGE]}\n'
    )
    data = csv_of(tmp_path, train=GOOD_CSV, eval=GOOD_CSV)
    with pytest.raises(MorphError, match=r"module.py, line 6: preprocessing_fn asks for the feature 'age'.*label, x\."):
        check_examples(data, "label", preprocessing_file=str(module))


def float_example(**features: float) -> bytes:
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()
            }
        )
    ).SerializeToString()


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([example(label=1, x=2), example(x=2), example(x=2)], r"a, record 2: the record has no label .*in 2 rows"),
        ([example(label=1), float_example(label=1)], r"a, record 2: feature 'label' holds numbers, but whole numbers"),
        ([example(label=1), b"no example"], r"a, record 2: it is no tf.train.Example"),
        ([float_example(label=1), float_example(label=float("nan"))], r"a, record 2: the label is NaN"),
    ],
    ids=["no label", "another type", "no example", "NaN"],
)
def test_a_record_that_would_end_a_step_is_named(data, tmp_path, records, message):
    write(tmp_path / "train" / "a", records)
    with pytest.raises(MorphError, match=message):
        check_examples(data, "label")


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_damaged_file_is_named_with_the_first_record_that_is_lost(data, tmp_path, compression):
    file = tmp_path / "train" / "a"
    write(file, [example(label=number, x=number) for number in range(3000)], compression)
    whole = file.read_bytes()
    file.write_bytes(whole[:-7] if not compression else whole[: len(whole) // 2])
    with pytest.raises(MorphError, match=r"train/a is damaged: \d+ records are whole, record \d+ is not") as caught:
        check_examples(data, "label")
    if not compression:
        assert "2999 records are whole, record 3000 is not" in str(caught.value)


def image_example(image: bytes) -> bytes:
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[len(image) % 2])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.mark.parametrize("damage", [lambda image: image[:-20], lambda image: b"", lambda image: b"?" + image[1:]])
def test_an_image_that_does_not_decode_is_named(data, tmp_path, damage):
    pixels = tf.constant([[[number % 256] * 3 for number in range(row, row + 9)] for row in range(9)], tf.uint8)
    png, jpeg = tf.io.encode_png(pixels).numpy(), tf.io.encode_jpeg(pixels).numpy()
    write(tmp_path / "train" / "a", [image_example(png), image_example(jpeg), image_example(png + b"more")])
    write(tmp_path / "eval" / "b", [image_example(png), image_example(jpeg)], "GZIP")
    check_examples(data, "label")
    write(tmp_path / "train" / "a", [image_example(png), image_example(jpeg), image_example(damage(png))])
    with pytest.raises(MorphError, match=r"train/a, record 3: feature 'image' holds images, and .* does not decode"):
        check_examples(data, "label")


def test_remote_data_is_left_to_the_pipeline():
    check_examples(DataConfig(format="csv", path="gs://bucket/data", eval_fraction=0.2), "label")
