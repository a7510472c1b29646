"""A Retrainer that starts from the search's weights: what MorphTrainer keeps, and what the Retrainer makes of it."""

import pathlib

import keras
import numpy as np
import pytest
from tfx.types import channel_utils

import morph_core as morph
from morph_tfx.components import MorphTrainer, Retrainer, StructureExporter
from morph_tfx.components.training import loop, user_module
from tests.components.conftest import DIGITS


@pytest.fixture
def data(transformed):
    examples, transform_graph = (channel_utils.as_channel([artifact]) for artifact in transformed)
    return {"examples": examples, "transform_graph": transform_graph, "module_file": DIGITS}


@pytest.fixture
def searched(data, run):
    """searched(name, **arguments) runs a search that keeps its weights; the structure's artifact."""

    def search(name, **arguments):
        options = {"target": 0.5, "keep_weights": True, "custom_config": {"epochs": 4}, **arguments}
        return run(MorphTrainer(**data, **options), name)["structure"]

    return search


@pytest.fixture
def watched(monkeypatch):
    """Keeps the model and a batch from the moment before training starts."""
    seen = {}
    train = loop.train

    def before_training(model, inputs, *args, **kwargs):
        images, labels = next(iter(inputs.evaluation.unbatch().batch(297)))
        outputs = np.asarray(model(images, training=False))
        seen.update(images=images, outputs=outputs, weights=model.get_weights(), names=[w.path for w in model.weights])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        seen["loss"] = float(loss(labels, outputs))
        return train(model, inputs, *args, **kwargs)

    monkeypatch.setattr(loop, "train", before_training)
    return seen


@pytest.fixture
def nothing_trains_after(monkeypatch):
    def forbid():
        def fit(*args, **kwargs):
            raise AssertionError("training started")

        monkeypatch.setattr(keras.Model, "fit", fit)

    return forbid


def rebuilt(artifact):
    seed = user_module.load({"module_file": DIGITS}).seed({})
    model = morph.rebuild(seed, StructureExporter(artifact).read())
    StructureExporter(artifact).read_weights(model)
    return model


def test_a_warm_start_begins_with_the_masked_network_and_a_lower_loss(searched, data, run, watched, monkeypatch):
    masked = {}
    verify = morph.verify

    def keep_masked(model, structure, features):
        masked.update(features=features, outputs=keras.ops.convert_to_numpy(morph.masked(model, structure, features)))
        return verify(model, structure, features)

    monkeypatch.setattr(morph, "verify", keep_masked)
    structure = searched("search")
    assert (pathlib.Path(structure.uri) / "weights.npz").exists()
    model = rebuilt(structure)
    outputs = keras.ops.convert_to_numpy(model(masked["features"], training=False))
    assert np.abs(outputs - masked["outputs"]).max() <= 1e-5 * np.abs(masked["outputs"]).max()

    retrain = {**data, "structure": channel_utils.as_channel([structure]), "custom_config": {"epochs": 1}}
    run(Retrainer(**retrain), "cold")
    cold = watched["loss"]
    run(Retrainer(**retrain, warm_start=True), "warm")
    assert watched["loss"] < 0.5 * cold
    # The weights are the search's; only the statistics of BatchNormalization are estimated anew.
    for name, value, kept in zip(watched["names"], watched["weights"], model.get_weights(), strict=True):
        assert (value == kept).all() != ("moving" in name), name


@pytest.mark.thorough
def test_weights_of_a_second_cycle_fit_the_network_that_the_user_wrote(searched, data, run):
    first = searched("first", keep_weights=False)
    again = searched("second", structure=channel_utils.as_channel([first]), target=0.3)
    model = rebuilt(again)
    assert model.count_params() == StructureExporter(again).read().costs["params"]["structure"]


def test_without_kept_weights_a_warm_start_says_how_to_get_them(searched, data, run, nothing_trains_after):
    structure = searched("search", keep_weights=False, custom_config={"epochs": 1})
    nothing_trains_after()
    with pytest.raises(morph.MorphError, match=r"no weights at .*keep_weights=True, without expand_to"):
        run(Retrainer(**data, structure=channel_utils.as_channel([structure]), warm_start=True), "warm")


def test_weights_of_a_structure_to_be_widened_cannot_be_kept(searched, nothing_trains):
    with pytest.raises(morph.MorphError, match=r"keep_weights=True with expand_to=1.0: .*were not trained"):
        searched("search", expand_to=1.0)


def test_flags_are_true_or_false(data, run):
    with pytest.raises(morph.MorphError, match=r"custom_config\['keep_weights'\] is 'yes'; expected true or false"):
        MorphTrainer(**data, target=0.5, custom_config={"keep_weights": "yes"})
