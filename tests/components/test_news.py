"""Whether there is anything to train: the same again is not, and whatever a training depends on makes it so."""

import json
import os
import pathlib
import re

import pytest
from tfx.proto import example_gen_pb2

import morph_core as morph
from morph_tfx.components import PushedStructure
from morph_tfx.components.artifacts import model_assets
from morph_tfx.components.pushed_structure.news import News, news_of

SPANS = {"train": "span-{SPAN}/train/*", "eval": "span-{SPAN}/eval/*"}
VERSIONS = {split: f"span-{{SPAN}}/v{{VERSION}}/{split}/*" for split in SPANS}
DATES = {split: f"{{YYYY}}-{{MM}}-{{DD}}/{split}/*" for split in SPANS}


class Night:
    """A model as it was pushed, data, a module file with a neighbour, and what the step is told of them."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.model = directory / "serving" / "12"
        self.model.mkdir(parents=True)
        self.patterns = SPANS
        self.custom_config = {"epochs": 30, "hparams": {"learning_rate": 0.003}}
        self.settings = {"evaluate": {"lower_bound": 0.9}}
        (directory / "modules").mkdir()
        (directory / "modules" / "module.py").write_text("VALUE = 1\n")
        (directory / "modules" / "neighbour.py").write_text("OTHER = 2\n")
        self.write("span-7")

    def write(self, span: str, rows: str = "rows") -> None:
        for split in ("train", "eval"):
            file = self.directory / "data" / span / split / "data.tfrecord"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(rows)
            os.utime(file, (1_700_000_000, 1_700_000_000))

    def look(self, **told) -> News:
        splits = [example_gen_pb2.Input.Split(name=name, pattern=text) for name, text in self.patterns.items()]
        component = PushedStructure(
            push_to=str(self.model.parent),
            input_base=str(self.directory / "data"),
            input_config=example_gen_pb2.Input(splits=splits),
            module_file=str(self.directory / "modules" / "module.py"),
            custom_config=self.custom_config,
            settings=self.settings,
        )
        return news_of(str(self.model), {**component.exec_properties, **told})

    def train(self, **told) -> None:
        """The model is now one that was trained on what there is."""
        self.carry(self.look(**told).trained_on)

    def carry(self, text: str) -> None:
        file = self.model / model_assets.TRAINED_ON_FILE
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


@pytest.fixture
def night(tmp_path) -> Night:
    return Night(tmp_path)


def test_a_model_that_does_not_say_what_it_was_trained_on_is_retrained(night):
    assert night.look().there
    assert night.look().because == f"The model in {night.model} does not say what it was trained on."


def test_the_same_again_is_no_news_and_that_is_said(night):
    night.train()
    assert night.look() == News(
        False,
        f"The model in {night.model} was trained on span 7, and nothing else has changed.",
        (night.model / model_assets.TRAINED_ON_FILE).read_text(),
    )


def said(pattern: str, found: News) -> bool:
    assert re.match(pattern, found.because), found.because
    return found.there


def grow(night: Night) -> None:
    night.write("span-7", "rows and more rows")


def touch(night: Night) -> None:
    os.utime(night.directory / "data" / "span-7" / "eval" / "data.tfrecord", (1_700_000_060, 1_700_000_060))


def edit(name: str):
    return lambda night: (night.directory / "modules" / name).write_text("VALUE = 3\n")


OTHERS = "The settings of the training, its module files, or the versions of TFX, TensorFlow or Keras are others"
CHANGES = {
    "a new span": (
        lambda night: night.write("span-10"),
        r"There is span 10; the model in .*/12 was trained on span 7\.",
    ),
    "files that grew": (grow, r"The files of span 7 have changed since the model in .*/12 was trained on them\."),
    "files of the same size": (touch, "The files of span 7 have changed"),
    "another learning rate": (lambda night: night.custom_config["hparams"].update(learning_rate=0.1), OTHERS),
    "more epochs": (lambda night: night.custom_config.update(epochs=31), OTHERS),
    "another bound": (lambda night: night.settings["evaluate"].update(lower_bound=0.95), OTHERS),
    "another module": (edit("module.py"), OTHERS),
    "another neighbour of it": (edit("neighbour.py"), OTHERS),
    "one more neighbour": (edit("third.py"), OTHERS),
}


@pytest.mark.parametrize(("change", "because"), CHANGES.values(), ids=CHANGES)
def test_whatever_a_training_depends_on_is_news_until_a_model_was_trained_on_it(night, change, because):
    night.train()
    change(night)
    found = night.look()
    assert found.there
    assert said(because, found)
    night.train()
    assert not night.look().there


def test_another_version_of_tensorflow_is_news(night, monkeypatch):
    night.train()
    monkeypatch.setattr("tensorflow.__version__", "99.0")
    assert night.look().because.startswith(OTHERS)


def test_where_the_module_lies_is_no_news(night):
    night.train()
    (night.directory / "modules").rename(night.directory / "elsewhere")
    assert not night.look(module_file=str(night.directory / "elsewhere" / "module.py")).there


def test_a_run_that_is_told_an_earlier_span_trains_on_it_once(night):
    night.write("span-8")
    night.train()
    earlier = json.dumps({"static_range": {"start_span_number": 7, "end_span_number": 7}})
    assert night.look(range_config=earlier).because.startswith("There is span 7; the model")
    night.train(range_config=earlier)
    assert not night.look(range_config=earlier).there
    assert night.look().because.startswith("There is span 8; the model")


def test_a_corrected_version_of_a_span_is_news(night):
    night.patterns = VERSIONS
    night.write("span-7/v1")
    night.train()
    assert "was trained on span 7, version 1, and" in night.look().because
    night.write("span-7/v2")
    assert said(r"There is span 7, version 2; .* was trained on span 7, version 1\.", night.look())


def test_dates_are_told_as_dates(night):
    night.patterns = DATES
    night.write("2026-01-31")
    night.train()
    assert "was trained on span 2026-01-31, and" in night.look().because


UNREADABLE = {
    "half of it": ('{"span": ', "Expecting value"),
    "no object": ("[7]", "assets.extra/trained_on.json holds no JSON object"),
    "a day beyond all calendars": ('{"span": 1' + "0" * 200 + "}", ""),
}


@pytest.mark.parametrize(("text", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_of_a_model_is_no_reason_to_leave_a_training_out(night, text, reason):
    night.patterns = DATES
    night.write("2026-01-31")
    night.carry(text)
    found = night.look()
    assert found.there and found.trained_on
    assert said(rf"What the model in .*/12 was trained on cannot be read: .*{reason}", found)


def test_a_link_out_of_the_model_is_not_followed(night):
    night.train()
    file = night.model / model_assets.TRAINED_ON_FILE
    file.rename(night.directory / "secret.json")
    file.symlink_to(night.directory / "secret.json")
    assert said(r"What the model .* cannot be read: .*leads out of the artifact", night.look())


def test_what_cannot_be_looked_at_is_news_and_no_model_says_that_it_was_trained_on_it(night):
    night.train()
    (night.directory / "modules" / "module.py").unlink()
    found = night.look()
    assert (found.there, found.trained_on) == (True, "")
    assert said(r"What there is to train cannot be told here: the module file .*module\.py is not there", found)
    (night.directory / "data").rename(night.directory / "away")
    assert said(r"What there is to train cannot be told here: Cannot find matching for split", night.look())


def test_half_of_what_it_needs_is_refused():
    with pytest.raises(morph.MorphError, match="lacks input_config and module_file"):
        PushedStructure(push_to="/serving", input_base="/data")
