"""Data that comes in spans: one search, then two retrainings of what it found, one pushed and one held back.

Every span is another sample of scikit-learn's digits. In the third, somebody mixed up the labels of the training split.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

import morph_core as morph
from morph_tfx.pipelines.config import PipelineConfig, load_config
from morph_tfx.pipelines.config.starter import template
from morph_tfx.pipelines.local import demo
from morph_tfx.pipelines.local.result import RunResult
from morph_tfx.pipelines.local.runner import run_pipeline

pytestmark = pytest.mark.thorough

LEAST_ACCURACY = 0.8  # of a pushed model on held-out digits, after this short training; chance is 0.1
CONFIG = {
    "name": "digits",
    "data": {
        "format": "tfrecord",
        "path": "data",
        "splits": {"train": "span-{SPAN:2}/train/*", "eval": "span-{SPAN:2}/eval/*"},
    },
    "module_file": "module.py",
    "label": "label",
    "hparams": {"widths": [8, 16], "learning_rate": 0.005},
    "target": 0.6,
    "search": {"epochs": 6, "batch_size": 64},
    "retrain": {"epochs": 12, "batch_size": 64},
    "evaluate": {"metric": "SparseCategoricalAccuracy", "lower_bound": 0.5, "max_drop": 0.08},
}


def write_span(directory: Path, span: int, mixed_up: bool = False) -> None:
    """A sample of 900 digits to train on and one of 250 to evaluate on; both differ from span to span."""
    digits, random = demo.load_digits(), np.random.RandomState(span)
    for split, size in (("train", 900), ("eval", 250)):
        chosen = random.permutation(len(digits[split].labels))[:size]
        labels = digits[split].labels[chosen]
        if mixed_up and split == "train":  # threes and eights, fours and nines
            labels = np.array([0, 1, 2, 8, 9, 5, 6, 7, 3, 4])[labels]
        file = directory / f"span-{span:02}" / split / "digits.tfrecord"
        file.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(file)) as writer:
            for example in demo.Digits(digits[split].images[chosen], labels).examples():
                writer.write(example)


def configured(directory: Path, name: str = "config.yaml", **settings: object) -> PipelineConfig:
    (directory / name).write_text(yaml.safe_dump({**CONFIG, **settings}))
    return load_config(directory / name)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("spans")
    (directory / "module.py").write_text(template("digits_module.py"))
    write_span(directory / "data", 1)
    return directory


@pytest.fixture(scope="module")
def config(directory) -> PipelineConfig:
    return configured(directory)


class Told:
    """A run with its account."""

    def __init__(self, config: PipelineConfig, pipeline: str):
        lines: list[str] = []
        self.result: RunResult = run_pipeline(config, say=lines.append, pipeline=pipeline)
        self.text = "\n".join(lines)


@pytest.fixture(scope="module")
def searched(config) -> Told:
    return Told(config, "morph")


@pytest.fixture(scope="module")
def retrained(config, searched, directory) -> Told:
    write_span(directory / "data", 2)
    return Told(config, "retrain")


@pytest.fixture(scope="module")
def held_back(config, retrained, directory) -> Told:
    write_span(directory / "data", 3, mixed_up=True)
    return Told(config, "retrain")


def test_without_a_pushed_model_there_is_nothing_to_retrain(directory):
    fresh = configured(directory, "fresh.yaml", metadata="fresh/metadata.sqlite", pipeline_root="fresh")
    message = (
        r"nothing to retrain: .*fresh/metadata.sqlite, no run of digits or digits-retrain .* Run the morph pipeline"
    )
    with pytest.raises(morph.MorphError, match=message):
        run_pipeline(fresh, say=lambda line: None, pipeline="retrain")


def test_new_data_is_trained_on_with_the_structure_that_was_searched_for(config, searched, retrained):
    [found], [used] = searched.result.structures, retrained.result.structures
    assert used == found
    assert "the newest span: 1" in searched.text
    assert "the newest span: 2" in retrained.text
    assert re.search(
        r"the structure to retrain: [\d.]+% of the seed's flops, .*MorphTrainer-1/structure", retrained.text
    )
    assert f"to {searched.result.pushed_model}" in retrained.text
    [model] = retrained.result.step("Retrainer").outputs["model"]
    assert model.get_string_custom_property("structure_uri") == str(found)


def test_the_new_model_is_compared_with_that_of_the_morph_pipeline_and_pushed(config, searched, retrained):
    assert "no earlier blessed model to compare with" in searched.text
    assert "an earlier blessed model to compare with" in retrained.text
    [baseline] = retrained.result.step("LatestBlessedModel").outputs["model"]
    assert baseline.uri == searched.result.step("Retrainer").outputs["model"][0].uri
    first, second = searched.result.pushed_model, retrained.result.pushed_model
    assert first is not None
    assert second is not None
    assert {str(path) for path in Path(config.push_to).iterdir()} >= {first, second}
    assert demo.pushed_accuracy(second, demo.load_digits()["holdout"]) > LEAST_ACCURACY
    structure = morph.Structure.load(Path(second) / "assets.extra" / "structure.json")
    assert structure == morph.Structure.load(retrained.result.structures[0] / "structure.json")


def test_new_examples_are_validated_against_the_schema_of_the_pushed_model(searched, retrained):
    [schema] = retrained.result.step("PushedStructure").outputs["schema"]
    assert schema.uri == searched.result.step("SchemaGen").outputs["schema"][0].uri


def test_a_model_of_mixed_up_labels_is_held_back_because_it_is_worse(config, retrained, held_back):
    assert "the newest span: 3" in held_back.text
    assert not held_back.result.blessed
    assert held_back.result.pushed_model is None
    from morph_tfx.pipelines.local.verdict import objections

    [objection] = objections(held_back.result.evaluation)
    assert re.fullmatch(
        r"sparse_categorical_accuracy is 0\.\d+ worse than the earlier blessed model's, and max_drop is 0.08", objection
    )
    assert held_back.result.structures == retrained.result.structures


def test_what_became_of_each_run_is_in_a_file(config, held_back):
    found = json.loads((Path(config.pipeline_root) / "_outcome" / "retrain.json").read_text())
    assert (found["status"], found["span"], found["pushed_model"]) == ("held back", "3", None)
    assert "worse than the earlier blessed model's" in found["reasons"][0]
    assert json.loads((Path(config.pipeline_root) / "_outcome" / "morph.json").read_text())["status"] == "pushed"


def test_without_a_new_span_nothing_is_run_and_after_a_rollback_something_is(config, retrained, held_back, capsys):
    """The third span stays the newest. What was deleted is passed over, so the first model is the one to beat."""
    again = Told(config, "retrain")
    assert again.result.steps == () and "No new span: the newest is 3" in again.text
    pushed = retrained.result.pushed_model
    shutil.rmtree(pushed)
    back = Told(config, "retrain")
    assert f"{pushed} was pushed, and is passed over: it is not there." in capsys.readouterr().out
    assert retrained.result.pushed_model is None
    assert back.result.step("Evaluator").state == "ran"
    assert back.result.step("Retrainer").state == "cached"
