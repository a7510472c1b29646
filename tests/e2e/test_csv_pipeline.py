"""Somebody else's data: a table in CSV files, a network without BatchNormalization, the command line."""

import csv
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from sklearn.datasets import load_wine

from morph_tfx.pipelines.commands.cli import cli
from morph_tfx.pipelines.commands.command import HELD_BACK
from tests.e2e.workers import Workers

pytestmark = pytest.mark.thorough

MODULE = '''
"""178 wines, 6 measurements each, 3 kinds."""
import keras
import tensorflow_transform as tft
from tfx_bsl.public import tfxio

LABEL = "kind"
MEASUREMENTS = [f"m{number}" for number in range(6)]


def preprocessing_fn(inputs):
    return {LABEL: inputs[LABEL], **{name: tft.scale_to_z_score(inputs[name]) for name in MEASUREMENTS}}


def input_fn(file_pattern, data_accessor, spec, batch_size):
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1, label_key=LABEL)
    return data_accessor.tf_dataset_factory(file_pattern, options, spec.transformed_metadata.schema)


def build_model(hparams):
    inputs = {name: keras.Input((1,), name=name) for name in MEASUREMENTS}
    x = keras.layers.Concatenate()(list(inputs.values()))
    for number in range(2):
        x = keras.layers.Dense(hparams["width"], activation="relu", name=f"dense{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="kind_of_wine")(x))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
'''
CONFIG = """
name: wine
data: {format: csv, path: data, eval_fraction: 0.3}
module_file: module.py
label: kind
hparams: {width: 32}
cost: params
target: 0.5
gate: logistic_sigmoid
search: {steps: 200, batch_size: 32}
retrain: {steps: 150, batch_size: 32}
evaluate: {metric: SparseCategoricalAccuracy, lower_bound: 0.8}
"""


@pytest.fixture
def config_file(tmp_path) -> Path:
    (tmp_path / "module.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    measurements, kinds = load_wine(return_X_y=True)
    with open(tmp_path / "data" / "wine.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"m{number}" for number in range(6)), "kind"])
        for row, kind in zip(measurements[:, [0, 1, 6, 9, 10, 12]], kinds, strict=True):
            # Decimals throughout, so that every measurement is read as a float.
            writer.writerow([*(f"{value:.4f}" for value in row), kind])
    return tmp_path / "config.yaml"


def test_run_takes_csv_in_two_processes_a_step_and_prints_what_came_out(config_file):
    beam = "beam: {runner: direct, workers: 2, in_process: [Evaluator]}\n"
    config_file.write_text(CONFIG.replace("lower_bound: 0.8", "lower_bound: 0.8, slices: [kind]") + beam)
    with Workers() as workers:
        done = CliRunner().invoke(cli, ["run", "--config", str(config_file)])
    assert done.exit_code == 0, done.output
    # CsvExampleGen, StatisticsGen and Transform have two each, which end with the step.
    assert len(workers.seen) == 6
    assert "[1/10] CsvExampleGen" in done.output
    row = re.search(r"│ parameters +│ +([\d,]+) │ +([\d,]+) │", done.output)
    assert row is not None, done.output
    seed, final = (int(text.replace(",", "")) for text in row.groups())
    assert seed == 6 * 32 + 32 + 32 * 32 + 32 + 32 * 3 + 3
    assert final <= 0.5 * seed
    pushed = re.search(r"^pushed +(\S+)$", done.output, re.MULTILINE)
    assert pushed is not None, done.output
    assert (Path(pushed.group(1)) / "saved_model.pb").exists()
    evaluation = re.search(r"^evaluation +sparse_categorical_accuracy ([\d.]+) on (\d+)", done.output, re.MULTILINE)
    assert evaluation is not None, done.output
    card = (Path(pushed.group(1)) / "assets.extra" / "MODEL_CARD.md").read_text()
    rows = re.findall(r"^\| (all|kind = \d) \| (\d+) \| ([\d.]+) \|$", card, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["all", "kind = 0", "kind = 1", "kind = 2"]
    (_, count, value), *kinds = rows
    assert count == evaluation.group(2) and float(value) == pytest.approx(float(evaluation.group(1)), abs=1e-4)
    assert sum(int(count) for _, count, _ in kinds) == int(count)
    right = sum(int(count) * float(value) for _, count, value in kinds)
    assert right / int(count) == pytest.approx(float(value), abs=1e-4)
    report = re.search(r"^report +(\S+)$", done.output, re.MULTILINE)
    assert report is not None
    assert Path(report.group(1)).exists()


def test_in_one_run_there_is_no_retrainer_and_what_was_pushed_can_be_retrained(config_file):
    # Of 49 wines, two models of the same worth differ by a few: the second need not be as good as the first here.
    config_file.write_text(CONFIG.replace("0.8}", "0.8, max_drop: 0.2}") + "finish: in_place\n")
    done = CliRunner().invoke(cli, ["run", "--config", str(config_file)])
    assert done.exit_code == 0, done.output
    about = "cycle 1 of 1: shrink to 50% of the seed's params, train what is left to the end"
    assert f"[6/9] MorphTrainer-1 ({about})" in done.output
    assert "Retrainer" not in done.output
    row = re.search(r"│ parameters +│ +([\d,]+) │ +([\d,]+) │", done.output)
    pushed = re.search(r"^pushed +(\S+)$", done.output, re.MULTILINE)
    report = re.search(r"^report +(\S+)$", done.output, re.MULTILINE)
    assert row and pushed and report, done.output
    seed, final = (int(text.replace(",", "")) for text in row.groups())
    assert final <= 0.5 * seed
    variables = tf.saved_model.load(pushed.group(1)).variables
    assert sum(int(np.prod(variable.shape)) for variable in variables) == final
    assert Path(report.group(1)).is_relative_to(config_file.parent / "pipeline_root" / "MorphTrainer-1")
    assert re.search(r"^evaluation +sparse_categorical_accuracy [01]", done.output, re.MULTILINE)

    again = CliRunner().invoke(cli, ["run", "--config", str(config_file)])
    assert "nothing has changed, so every step came from the cache" in again.output
    anew = CliRunner().invoke(cli, ["run", "--pipeline", "retrain", "--config", str(config_file)])
    assert anew.exit_code == 0, anew.output
    assert re.search(rf"pushed on .* to {pushed.group(1)}", anew.output), anew.output
    assert "Retrainer" in anew.output


def test_of_both_trainings_the_better_model_is_pushed_and_the_verdict_says_by_how_much(config_file):
    config_file.write_text(CONFIG.replace("0.8}", "0.6}") + "finish: both\n")
    done = CliRunner().invoke(cli, ["run", "--config", str(config_file)])
    assert done.exit_code == 0, done.output
    rows = re.findall(r"│ (in place|from scratch) .*│ +(\d\.\d{4}) │", done.output)
    scores = {name: float(score) for name, score in rows}
    assert set(scores) == {"in place", "from scratch"}, done.output
    chosen = re.search(r"^Chosen: (in place|from scratch), .* is (\d\.\d{4}) worse\.$", done.output, re.MULTILINE)
    assert chosen is not None, done.output
    assert scores[chosen.group(1)] == max(scores.values())
    assert float(chosen.group(2)) == pytest.approx(max(scores.values()) - min(scores.values()), abs=2e-4)
    pushed = re.search(r"^pushed +(\S+)$", done.output, re.MULTILINE)
    assert pushed is not None, done.output
    assert (Path(pushed.group(1)) / "saved_model.pb").exists()
    card = (Path(pushed.group(1)) / "assets.extra" / "MODEL_CARD.md").read_text()
    [evaluated] = re.findall(r"^\| all \| \d+ \| ([\d.]+) \|$", card, re.MULTILINE)
    assert float(evaluated) == pytest.approx(scores[chosen.group(1)], abs=1e-4)
    again = CliRunner().invoke(cli, ["run", "--config", str(config_file)])
    assert "nothing has changed, so every step came from the cache" in again.output
    # A change makes two new candidates, which have the pushed model as their baseline.
    config_file.write_text(config_file.read_text().replace("retrain: {steps: 150", "retrain: {steps: 180"))
    changed = CliRunner().invoke(cli, ["run", "--config", str(config_file)])
    assert changed.exit_code in (0, HELD_BACK), changed.output
    assert "an earlier blessed model to compare with" in changed.output
    assert re.search(r"^(Chosen|Nothing was chosen): ", changed.output, re.MULTILINE), changed.output


def test_labels_of_text_are_learned_evaluated_and_served_by_their_names(config_file):
    """The same wines, called by names; the module file knows nothing of it, and hands the label on as it is."""
    table = config_file.parent / "data" / "wine.csv"
    names = {"0": "barolo", "1": "grignolino", "2": "barbera"}
    rows = list(csv.reader(table.read_text().splitlines()))
    for row in rows[1:]:
        row[-1] = names[row[-1]]
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    done = CliRunner().invoke(cli, ["run", "--config", str(config_file)])
    assert done.exit_code == 0, done.output
    pushed = re.search(r"^pushed +(\S+)$", done.output, re.MULTILINE)
    assert pushed is not None, done.output
    measured = re.search(r"^evaluation +sparse_categorical_accuracy ([\d.]+)", done.output, re.MULTILINE)
    assert measured is not None and float(measured.group(1)) > 0.8
    features = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    name: tf.train.Feature(float_list=tf.train.FloatList(value=[float(cell)]))
                    for name, cell in zip(rows[0][:-1], row[:-1], strict=True)
                }
            )
        ).SerializeToString()
        for row in rows[1:]
    ]
    answers = tf.saved_model.load(pushed.group(1)).signatures["serving_default"](examples=tf.constant(features))
    assert {name.decode() for name in answers["all_classes"].numpy()[0]} == set(names.values())
    right = [name.decode() == row[-1] for name, row in zip(answers["predicted_class"].numpy(), rows[1:], strict=True)]
    assert np.mean(right) > 0.8
