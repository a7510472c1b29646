"""Images in a TFX pipeline of one's own: what the README says to type, and what the pushed model answers to bytes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import morph_core as morph
from tests.examples.copies import Copy, copied

LEAST_ACCURACY = 0.8  # on images that the pipeline has not seen; chance is 0.1
BUDGET = 0.5  # of the seed's FLOPs
# 3 x 3 convolutions, from 1 to 32 channels on 8 x 8 pixels and from 32 to 32 on 4 x 4 and 2 x 2; then 32 x 10 weights.
SEED_FLOPS = 2 * (9 * (64 * 32 + (16 + 4) * 32 * 32) + 32 * 10)


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Copy:
    return copied("tfx_images", tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def printed(example) -> dict[str, str]:
    """What each command of the README printed, by the name of its script."""
    return {command.split()[1]: example.run(command) for command in example.commands}


@pytest.fixture(scope="module")
def images(example, printed) -> dict[str, bytes]:
    """The images that the pipeline has not seen, by the names of their files, which start with the label."""
    return {file.name: file.read_bytes() for file in sorted((example.directory / "data" / "new").iterdir())}


@pytest.fixture(scope="module")
def answer(printed, example):
    """answer(images) asks the pushed SavedModel for probabilities, array (images, 10)."""
    [pushed] = re.findall(r"^What serves: (\S+)$", printed["pipeline.py"], re.MULTILINE)
    serve = tf.saved_model.load(str(example.directory / pushed)).signatures["serving_default"]

    def ask(images: list[bytes]) -> np.ndarray:
        examples = [
            tf.train.Example(
                features=tf.train.Features(
                    feature={"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
                )
            ).SerializeToString()
            for image in images
        ]
        return serve(examples=tf.constant(examples))["outputs"].numpy()

    return ask


def accuracy(probabilities: np.ndarray, names: list[str]) -> float:
    return float(np.mean(probabilities.argmax(-1) == [int(name[0]) for name in names]))


def test_the_pipeline_is_made_of_tfxs_components_and_two_of_ours(example, tmp_path):
    made = example.module("pipeline").pipeline(tmp_path / "data", tmp_path / "output", 1, 1)
    assert [node.id for node in made.components] == [
        "ImportExampleGen", "StatisticsGen", "SchemaGen", "Transform", "MorphTrainer", "Retrainer", "Evaluator",
        "Pusher",
    ]  # fmt: skip


def test_the_module_file_decodes_png_and_jpeg_of_any_size_to_what_the_network_takes(example):
    module = example.module("module")
    white = tf.fill((24, 16, 1), tf.constant(255, tf.uint8))
    inputs = tf.stack([[tf.io.encode_png(white)], [tf.io.encode_jpeg(white)]])
    features = module.preprocessing_fn({"image": inputs, "label": tf.constant([[1], [2]])})
    model = module.build_model({})
    assert features["image"].shape == (2, *model.inputs[0].shape[1:])
    np.testing.assert_allclose(features["image"], 1, atol=1e-6)
    assert morph.ChannelGraph.from_model(model).cost("flops") == SEED_FLOPS


@pytest.mark.thorough
def test_the_pushed_model_answers_the_bytes_of_png_files(answer, images):
    probabilities = answer(list(images.values()))
    assert probabilities.shape == (100, 10)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert accuracy(probabilities, list(images)) > LEAST_ACCURACY


@pytest.mark.thorough
def test_it_takes_jpeg_of_another_size_as_well(answer, images):
    def enlarged(image: bytes) -> bytes:
        pixels = tf.image.resize(tf.io.decode_png(image), (24, 24), method="nearest")
        return tf.io.encode_jpeg(tf.cast(pixels, tf.uint8), quality=95).numpy()

    assert accuracy(answer([enlarged(image) for image in images.values()]), list(images)) > LEAST_ACCURACY


@pytest.mark.thorough
def test_the_client_prints_what_the_model_answers(printed, answer, images):
    lines = re.findall(r"^(\S+): (\d) \((\d+)%\)$", printed["ask.py"], re.MULTILINE)
    probabilities = answer(list(images.values()))
    assert [(name, int(digit)) for name, digit, _ in lines] == list(
        zip(images, probabilities.argmax(-1).tolist(), strict=True)
    )
    np.testing.assert_allclose([int(share) / 100 for *_, share in lines], probabilities.max(-1), atol=0.006)


@pytest.mark.thorough
def test_the_structure_keeps_to_its_budget_and_the_report_lies_where_the_pipeline_says(printed, example):
    [report] = re.findall(r"^What the search did: (\S+)$", printed["pipeline.py"], re.MULTILINE)
    file = example.directory / report
    assert "<svg" in file.read_text(encoding="utf-8")
    costs = json.loads((file.parent / "structure.json").read_text())["costs"]["flops"]
    assert costs["seed"] == SEED_FLOPS
    assert costs["structure"] <= BUDGET * SEED_FLOPS


@pytest.mark.thorough
def test_the_served_network_has_the_widths_of_the_structure(printed, example):
    [report] = re.findall(r"^What the search did: (\S+)$", printed["pipeline.py"], re.MULTILINE)
    structure = json.loads((example.directory / report).with_name("structure.json").read_text())
    widths = {layer["name"]: layer["width"] for layer in structure["layers"]}
    first, second, third = (widths[f"conv{number}"] for number in range(3))
    [model] = sorted(Path(example.directory, "output", "serving").iterdir())
    served = {tuple(variable.shape) for variable in tf.saved_model.load(str(model)).variables}
    assert {(3, 3, 1, first), (3, 3, first, second), (3, 3, second, third), (third, 10)} <= served
