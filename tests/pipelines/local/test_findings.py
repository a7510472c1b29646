"""What the account says about a finished step, from artifacts as TFX leaves them."""

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import standard_artifacts

from morph_tfx.components import MorphStructure
from morph_tfx.pipelines.config import DataConfig
from morph_tfx.pipelines.local.findings import findings

PLAIN = DataConfig(format="csv", path="/data", splits={"train": "train/*", "eval": "eval/*"})
SPANS = DataConfig(format="csv", path="/data", eval_fraction=0.2, pattern="{SPAN}/*")
DAYS = DataConfig(format="csv", path="/data", eval_fraction=0.2, pattern="{YYYY}-{MM}-{DD}/*")


@pytest.mark.parametrize(
    ("data", "expected"), [(PLAIN, []), (SPANS, ["the newest span: 20000"]), (DAYS, ["the newest span: 2024-10-04"])]
)
def test_the_span_that_was_read_is_told_where_there_are_spans(data, expected):
    examples = standard_artifacts.Examples()
    examples.set_int_custom_property("span", 20000)  # days after 1970-01-01
    assert findings("ImportExampleGen", {"examples": [examples]}, data) == expected


def test_where_examples_depart_from_the_schema_is_told(tmp_path):
    anomalies = standard_artifacts.ExampleAnomalies()
    anomalies.uri = str(tmp_path)
    anomalies.split_names = '["train", "eval"]'
    for split, names in (("train", "abcde"), ("eval", "")):
        found = anomalies_pb2.Anomalies()
        for name in names:
            found.anomaly_info[name].description = f"Column {name} is new."
        (tmp_path / f"Split-{split}").mkdir()
        (tmp_path / f"Split-{split}" / "SchemaDiff.pb").write_bytes(found.SerializeToString())
    [line] = findings("ExampleValidator", {"anomalies": [anomalies]}, PLAIN)
    assert line == (
        "'train' departs from the schema: a: Column a is new. b: Column b is new. c: Column c is new. (and 2 more)"
    )


def test_whether_there_is_a_baseline_is_told():
    found = {"model": [standard_artifacts.Model()], "model_blessing": [standard_artifacts.ModelBlessing()]}
    assert findings("LatestBlessedModel", found, PLAIN) == ["an earlier blessed model to compare with"]
    assert findings("LatestBlessedModel", {"model": []}, PLAIN) == ["no earlier blessed model to compare with"]


def test_what_is_retrained_is_told_with_its_costs_its_date_and_its_place():
    structure, pushed = MorphStructure(), standard_artifacts.PushedModel()
    structure.uri = "/root/MorphTrainer-1/structure/6"
    structure.set_float_custom_property("flops_fraction", 0.4981)
    structure.set_float_custom_property("latency:v100_fraction", 0.7)
    pushed.set_string_custom_property("pushed_destination", "/serving/17")
    for artifact in (structure, pushed):
        artifact.mlmd_artifact.create_time_since_epoch = 1_700_000_000_000
    lines = findings("PushedStructure", {"structure": [structure], "pushed_model": [pushed]}, PLAIN)
    assert lines[0].startswith("the structure to retrain: 49.8% of the seed's flops, from 2023-11-1")
    assert lines[0].endswith(", /root/MorphTrainer-1/structure/6")
    assert lines[1].startswith("pushed on 2023-11-1")
    assert lines[1].endswith(" to /serving/17")
    assert findings("MorphTrainer-1", {"structure": [structure]}, PLAIN) == []
