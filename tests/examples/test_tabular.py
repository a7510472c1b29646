"""A table from one configuration file: what the README says to type, and what the pushed model answers to raw rows."""

import csv
import json
import math
import re

import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

import morph_core as morph
from morph_tfx.pipelines import load_config
from tests.examples.copies import Copy, copied

LEAST_AUC = 0.75  # on rows that the pipeline has not seen; chance is 0.5
BUDGET = 0.4  # of the seed's parameters
# Embeddings of 8 numbers for 8, 16 and 8 strings; layers of 64, 64 and 1 units, with biases, on 3 x 8 + 4 columns.
SEED_PARAMETERS = (8 + 16 + 8) * 8 + (3 * 8 + 4 + 1) * 64 + (64 + 1) * 64 + (64 + 1)
ROW = {
    "plan": [b"basic"], "country": [b"AT"], "payment": [b"card"],
    "months": [12], "support_calls": [1], "monthly_fee": [9.0], "days_since_login": [5.0],
}  # fmt: skip


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Copy:
    return copied("tabular", tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def printed(example) -> dict[str, str]:
    """What each command of the README printed, by its second word."""
    return {command.split()[1]: example.run(command) for command in example.commands}


@pytest.fixture(scope="module")
def answer(printed, example):
    """answer(row) asks the pushed SavedModel for the chance that this subscriber leaves."""
    [model] = (example.directory / "serving").iterdir()
    serve = tf.saved_model.load(str(model)).signatures["serving_default"]

    def feature(values: list) -> tf.train.Feature:
        if not values:
            return tf.train.Feature()
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def ask(row: dict[str, list]) -> float:
        features = tf.train.Features(feature={name: feature(values) for name, values in row.items()})
        serialized = tf.train.Example(features=features).SerializeToString()
        return float(serve(examples=tf.constant([serialized]))["outputs"][0, 0])

    return ask


def test_configuration_table_and_network_speak_of_the_same_columns(tmp_path):
    example = copied("tabular", tmp_path)
    assert example.commands[0] == "python make_data.py"
    example.run(example.commands[0])
    config = load_config(example.directory / "config.yaml")
    module = example.module("module")
    [file] = (example.directory / "data").iterdir()
    with open(file, newline="", encoding="utf-8") as lines:
        columns = set(next(csv.reader(lines)))
    assert columns == {*module.NUMBERS, *module.STRINGS, module.LABEL} == {*ROW, config.label}
    graph = morph.ChannelGraph.from_model(module.build_model(config.hparams))
    assert graph.cost("params") == SEED_PARAMETERS
    assert config.target == BUDGET


@pytest.mark.thorough
def test_the_client_tells_who_will_leave_from_raw_rows(printed, example):
    with open(example.directory / "new.csv", newline="", encoding="utf-8") as lines:
        left = [int(row["left"]) for row in csv.DictReader(lines)]
    chances = re.findall(r"^row \d+: leaves with (\d+)%$", printed["ask.py"], re.MULTILINE)
    assert len(chances) == len(left) == 500
    assert roc_auc_score(left, [int(chance) for chance in chances]) > LEAST_AUC


@pytest.mark.thorough
def test_the_structure_keeps_to_its_budget_embeddings_included(printed):
    [file] = re.findall(r"^structure +(\S+)$", printed["run"], re.MULTILINE)
    with open(file, encoding="utf-8") as text:
        structure = json.load(text)
    costs = structure["costs"]["params"]
    assert costs["seed"] == SEED_PARAMETERS
    assert costs["structure"] <= BUDGET * SEED_PARAMETERS
    assert {"plan_embedding", "country_embedding", "payment_embedding"} <= set(structure["groups"])


@pytest.mark.thorough
def test_a_string_that_was_never_seen_and_a_missing_value_are_answered(answer):
    known = answer(ROW)
    unknown = answer({**ROW, "country": [b"nowhere"]})
    missing = answer({**ROW, "days_since_login": []})
    assert all(math.isfinite(chance) and 0 < chance < 1 for chance in (known, unknown, missing))
    assert answer({**ROW, "country": [b"somewhere else"]}) == pytest.approx(unknown), "all strangers share an embedding"


@pytest.mark.thorough
def test_what_makes_people_leave_in_the_data_does_so_in_the_model(answer):
    assert answer({**ROW, "payment": [b"voucher"]}) > answer(ROW)
    assert answer({**ROW, "months": [70]}) < answer({**ROW, "months": [2]})
