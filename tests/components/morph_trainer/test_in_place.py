"""MorphTrainer that trains to the end in the run of its search: the model that comes out, and what is refused."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.utils import path_utils

import morph_core as morph
from morph_core.search import narrowing
from morph_tfx.components import MorphTrainer, Retrainer, StructureExporter
from morph_tfx.components.training import loop, trained_model, user_module
from tests.components.conftest import DIGITS, RAW_DIGITS, USER_MODULES, channel, example, fails_cleanly, narrowed


@pytest.fixture
def trainer(transformed):
    """trainer(**arguments) makes a MorphTrainer on the transformed digits that ends with a model of half the FLOPs."""

    def make_component(**arguments):
        transformed_examples, transform_graph = transformed
        defaults = {
            "examples": channel(transformed_examples),
            "transform_graph": channel(transform_graph),
            "module_file": DIGITS,
            "target": 0.5,
            "finish": "in_place",
            "custom_config": {"epochs": 4},
        }
        return MorphTrainer(**{**defaults, **arguments})

    return make_component


@pytest.fixture
def raw_trainer(examples, schema, trainer):
    """The same on raw examples, with the schema alone: a small dense network."""

    def make_component(**arguments):
        raw = {"examples": channel(examples), "transform_graph": None, "schema": channel(schema)}
        return trainer(**{**raw, "module_file": RAW_DIGITS, **arguments})

    return make_component


def load(artifact):
    return tf.saved_model.load(path_utils.serving_model_path(artifact.uri))


def layout(artifact):
    """Every file of an artifact, by its path; variables' shards have the same names however large they are."""
    root = pathlib.Path(artifact.uri)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def signatures(model):
    """Inputs and outputs of each signature; what a request and its answer look like."""
    return {
        name: (function.structured_input_signature[1], function.structured_outputs)
        for name, function in model.signatures.items()
    }


def shapes(model):
    return sorted(tuple(variable.shape) for variable in model.variables)


@pytest.mark.thorough
def test_a_transformer_of_other_peoples_layers_is_searched_and_trained_to_the_end(raw_trainer, run, held_out):
    pytest.importorskip("keras_hub", reason="keras-hub is not installed; make setup brings it")
    keras.utils.set_random_seed(0)
    outputs = run(raw_trainer(module_file=str(USER_MODULES / "transformer.py"), custom_config={"epochs": 16}))
    structure = StructureExporter(outputs["structure"]).read()
    assert 0.45 < structure.costs["flops"]["structure"] / structure.costs["flops"]["seed"] <= 0.5
    narrower = {name for name, entry in structure.groups.items() if entry["width"] < entry["seed_width"]}
    assert any("feedforward" in name for name in narrower)
    images, labels = held_out
    requests = tf.constant([example(image, 0).SerializeToString() for image in images])
    answers = load(outputs["model"]).signatures["serving_default"](examples=requests)["outputs"].numpy()
    assert (answers.argmax(axis=1) == labels).mean() > 0.85


def test_the_model_is_the_retrainers_in_all_but_its_weights(trainer, run, held_out, capsys):
    """Layout, signatures, variables, what it carries and what its properties are called; and it has learned."""
    keras.utils.set_random_seed(0)
    component = trainer()
    outputs = run(component)
    shown = capsys.readouterr().out
    transformed = {name: component.inputs[name] for name in ("examples", "transform_graph")}
    retrainer = Retrainer(
        **transformed, structure=channel(outputs["structure"]), module_file=DIGITS, custom_config={"epochs": 1}
    )
    mine, theirs = outputs["model"], run(retrainer, "retrained")["model"]
    assert type(mine) is type(theirs) is standard_artifacts.Model
    assert layout(mine) == layout(theirs)
    assert signatures(load(mine)) == signatures(load(theirs))
    assert shapes(load(mine)) == shapes(load(theirs))
    assert set(mine.mlmd_artifact.custom_properties) == set(theirs.mlmd_artifact.custom_properties)
    assert mine.get_string_custom_property("structure_uri") == outputs["structure"].uri
    extra = pathlib.Path(path_utils.serving_model_path(mine.uri), "assets.extra")
    assert (extra / "structure.json").read_text() == pathlib.Path(
        outputs["structure"].uri, "structure.json"
    ).read_text()

    images, labels = held_out
    requests = tf.constant([example(image, 0).SerializeToString() for image in images])
    answers = load(mine).signatures["serving_default"](examples=requests)["outputs"].numpy()
    assert (answers.argmax(axis=1) == labels).mean() > 0.85

    structure = StructureExporter(outputs["structure"]).read()
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    assert structure.goal == {"cost": "flops", "target": 0.5}
    assert structure.trajectory[-1]["step"] == structure.settings["steps"] == 47  # a quarter of 4 epochs of 47
    assert "[search] starts: 188 steps in 4 epochs" in shown
    params = int(structure.costs["params"]["structure"])
    assert f"[search] the network is cut: {params:,} parameters are left" in shown
    assert "[train] step 188/188" in shown
    assert "[search] step 188/188" not in shown
    assert f"Model: {path_utils.serving_model_dir(mine.uri)}" in shown


def test_the_exported_weights_are_those_of_the_end_of_the_run(raw_trainer, run, monkeypatch):
    searches = []
    train = loop.train

    def watched(model, *args, **kwargs):
        searches.append(model)
        return train(model, *args, **kwargs)

    monkeypatch.setattr(loop, "train", watched)
    outputs = run(raw_trainer(search_fraction=0.5, keep_weights=True))
    (search,) = searches
    result = search.result()
    exported = load(outputs["model"])
    images = np.linspace(0, 16, 3 * 64, dtype=np.float32).reshape(3, 64)
    expected = np.asarray(result(images, training=False))
    assert exported.signatures["raw_tensors"](image=tf.constant(images))["outputs"].numpy() == pytest.approx(
        expected, abs=1e-5
    )
    at_the_cut = morph.rebuild(search.seed, search.structure(), weights="inherit")
    assert np.abs(np.asarray(at_the_cut(images, training=False)) - expected).max() > 1e-3
    assert int(result.optimizer.iterations.numpy()) == 188
    # What is kept beside the structure are the same weights, of the network that the user's code and the file make.
    kept = morph.rebuild(
        user_module.load({"module_file": RAW_DIGITS}).seed({}), StructureExporter(outputs["structure"]).read()
    )
    StructureExporter(outputs["structure"]).read_weights(kept)
    for mine, theirs in zip(kept.get_weights(), result.get_weights(), strict=True):
        assert (mine == theirs).all()


@pytest.mark.parametrize("steps", [None, 47 * 6], ids=["passes", "steps"])
def test_the_network_is_narrowed_while_channels_close(steps, raw_trainer, run, tmp_path, monkeypatch, capsys):
    """Where an epoch is a pass over the data. Where the stream is cut into parts, it would begin anew."""
    monkeypatch.setattr(narrowing, "_STEPS_SAVED", 0.0)
    arguments = {"train_args": trainer_pb2.TrainArgs(num_steps=steps)} if steps else {}
    component = raw_trainer(
        search_fraction=0.5, custom_config={"epochs": 6, "checkpoint_dir": str(tmp_path / "volume")}, **arguments
    )
    outputs = run(component)
    shown = capsys.readouterr().out
    assert ("[search] the network is narrowed: " in shown) == (steps is None)
    structure = StructureExporter(outputs["structure"]).read()
    assert 0.45 < structure.costs["flops"]["structure"] / structure.costs["flops"]["seed"] <= 0.5
    assert f"[search] the network is cut: {int(structure.costs['params']['structure']):,} parameters" in shown
    assert outputs["model"].get_float_custom_property("val_accuracy") > 0.5
    events = list(pathlib.Path(outputs["model_run"].uri).rglob("widths/events*"))
    assert len(events) == 1


def test_a_trained_network_is_not_trained_again_when_writing_it_failed(raw_trainer, run, tmp_path, monkeypatch, capsys):
    component = raw_trainer(
        search_fraction=0.5, custom_config={"epochs": 2, "checkpoint_dir": str(tmp_path / "volume")}
    )
    with monkeypatch.context() as patch:

        def full(*args, **kwargs):
            raise OSError("No space left on device")

        patch.setattr(trained_model, "write", full)
        fails_cleanly(run, component, "No space left", tmp_path, OSError)
    capsys.readouterr()
    outputs = run(component, "again")
    shown = capsys.readouterr().out
    assert "[train] continuing after epoch 2 of 2" in shown
    assert "step " not in shown
    assert set(load(outputs["model"]).signatures) == {"serving_default", "raw_tensors"}
    assert 0 < outputs["model"].get_float_custom_property("val_accuracy") <= 1
    assert list((tmp_path / "volume").iterdir()) == []


@pytest.mark.thorough
def test_several_outputs_are_served_under_the_names_that_a_retrainer_gives_them(raw_trainer, run, module_file):
    two = """
    parity = keras.layers.Dense(2, activation="softmax", name="parity")(one.layers[2].output)
    model = keras.Model(one.inputs, [one.outputs[0], parity])
    losses = {"digit": "sparse_categorical_crossentropy", "parity": "sparse_categorical_crossentropy"}
    model.compile("adam", losses)
"""
    module = module_file(
        "raw_digits",
        ("    model = keras.Sequential(", "    one = keras.Sequential("),
        ('    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])\n', two),
        ('(features["image"], label)', '(features["image"], (label, label % 2))'),
    )
    component = raw_trainer(module_file=module, custom_config={"epochs": 2}, search_fraction=0.5)
    outputs = run(component)
    data = {name: component.inputs[name] for name in ("examples", "schema")}
    retrainer = Retrainer(
        **data, structure=channel(outputs["structure"]), module_file=module, custom_config={"epochs": 1}
    )
    mine, theirs = signatures(load(outputs["model"])), signatures(load(run(retrainer, "retrained")["model"]))
    assert mine == theirs
    assert set(mine["raw_tensors"][1]) == {"digit", "parity"}


@pytest.mark.thorough
def test_several_budgets_or_a_fixed_strength_end_with_a_model_as_well(raw_trainer, run):
    targets = {"flops": 0.6, "params": 0.4}
    several = run(raw_trainer(target=targets, multiple_of=4), "several")
    structure = StructureExporter(several["structure"]).read()
    for cost, share in targets.items():
        assert structure.costs[cost]["structure"] <= share * structure.costs[cost]["seed"]
    assert several["model"].get_float_custom_property("target_params") == pytest.approx(0.4)
    fixed = run(raw_trainer(target=None, strength=1e-6, gate="logistic_sigmoid"), "fixed")
    assert fixed["model"].get_float_custom_property("strength") == pytest.approx(1e-6)
    assert set(load(fixed["model"]).signatures) == {"serving_default", "raw_tensors"}


@pytest.mark.thorough
def test_a_later_cycle_ends_with_the_model_and_counts_in_the_original_seed(trainer, run, tmp_path):
    first = narrowed(DIGITS, tmp_path, **{"conv2d-1": 12, "conv2d-2": 12})
    outputs = run(trainer(structure=channel(first), target=0.3))
    structure = StructureExporter(outputs["structure"]).read()
    assert structure.fingerprint == StructureExporter(first).read().fingerprint
    assert structure.costs["flops"]["structure"] <= 0.3 * structure.costs["flops"]["seed"]
    params = sum(int(np.prod(variable.shape)) for variable in load(outputs["model"]).variables)
    assert params == structure.costs["params"]["structure"]


@pytest.mark.thorough
def test_mixed_precision_is_exported_as_float32(raw_trainer, run):
    config = {"epochs": 2, "mixed_precision": True}
    outputs = run(raw_trainer(custom_config=config, search_fraction=0.5, gate="logistic_sigmoid"))
    model = load(outputs["model"])
    operations = model.signatures["raw_tensors"].graph.as_graph_def()
    assert str(operations).count("DT_BFLOAT16") == 0
    assert len(model.variables) == 8


# --- the seed as teacher ----------------------------------------------------------------------------------------------


def test_the_seed_teaches_what_is_left_of_it(raw_trainer, run):
    """Its answers are softer than the labels, and the more they weigh the less sure the network becomes."""
    component = raw_trainer(distill={"temperature": 4.0, "weight": 0.9}, search_fraction=0.5)
    assert '"distill": {"temperature": 4.0, "weight": 0.9}' in component.exec_properties["custom_config"]
    structure = StructureExporter(run(component)["structure"]).read()
    assert structure.settings["distill"] == {"teacher": "the seed at the cut", "temperature": 4.0, "weight": 0.9}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distill": True, "finish": "from_scratch"}, r"distill=True with finish='from_scratch': the seed teaches"),
        ({"distill": "seed"}, r"distill is 'seed'; expected true, false, or a dict with some of 'temperature'"),
        ({"distill": {"weight": 0}}, r"distill has the weight 0; expected a number"),
        (
            {"custom_config": {"epochs": 4, "distill": 3}},
            r"custom_config\['distill'\] is 3; expected true, false, or a dict",
        ),
        (
            {"custom_config": {"epochs": 4, "distill": True}, "finish": "from_scratch"},
            r"distill=True with finish='from_scratch'",
        ),
    ],
)
def test_a_teacher_that_makes_no_sense_is_refused_in_the_constructor(trainer, arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        trainer(**arguments)


# --- the outputs ------------------------------------------------------------------------------------------------------


def test_there_is_a_model_only_where_one_is_trained(trainer):
    assert trainer().outputs["model"].type is standard_artifacts.Model
    assert trainer().exec_properties["search_fraction"] == 0.25
    from_scratch = trainer(finish="from_scratch")
    assert set(from_scratch.outputs) == {"structure", "model_run"}
    assert from_scratch.exec_properties["search_fraction"] is None
    with pytest.raises(morph.MorphError, match=r"no output 'model'.*finish='in_place', or take the model of a Retr"):
        from_scratch.outputs["model"]
    with pytest.raises(KeyError, match="weights"):
        from_scratch.outputs["weights"]


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"finish": "inplace"}, r"finish='inplace'; expected 'from_scratch' .* or 'in_place'"),
        ({"finish": RuntimeParameter("finish", str)}, r"cannot be a RuntimeParameter"),
        ({"finish": "from_scratch", "search_fraction": 0.3}, r"search_fraction=0.3 with finish='from_scratch'"),
        ({"search_fraction": 1.0}, r"search_fraction=1.0; expected a number between 0 and 1"),
        ({"search_fraction": 0}, r"search_fraction=0; expected a number between 0 and 1"),
        ({"search_fraction": True}, r"search_fraction=True; expected a number"),
        ({"search_fraction": "half"}, r"search_fraction='half'; expected a number"),
        ({"search_fraction": float("nan")}, r"search_fraction=nan; expected a number"),
        ({"expand_to": 1.0}, r"expand_to=1.0 with finish='in_place': .*widening adds would not be trained"),
        ({"search_fraction": 0.1}, r"search_fraction=0.1 of epochs=4 leaves no whole epoch for the search"),
        ({"search_fraction": 0.9}, r"of epochs=4 leaves no whole epoch for the network that it finds"),
        (
            {"custom_config": {"epochs": 4, "distribution": {"strategy": "multi_worker_mirrored"}}},
            r"finish='in_place' with the strategy 'multi_worker_mirrored'",
        ),
    ],
)
def test_what_does_not_go_together_ends_in_the_constructor(trainer, arguments, message):
    with pytest.raises(morph.MorphError, match=message):
        trainer(**arguments)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"search_fraction": 2.0}, r"search_fraction=2.0; expected a number between 0 and 1"),
        ({"expand_to": 1.0}, r"expand_to=1.0 with finish='in_place'"),
        ({"search_fraction": 0.01}, r"search_fraction=0.01 of epochs=4 leaves no whole epoch for the search"),
    ],
)
def test_runtime_parameters_are_checked_before_training(
    raw_trainer, run, tmp_path, nothing_trains, properties, message
):
    component = raw_trainer(search_fraction=RuntimeParameter("fraction", float))
    component.exec_properties.update({"search_fraction": 0.25, **properties})
    fails_cleanly(run, component, message, tmp_path)


def test_a_fraction_of_steps_that_leaves_no_epoch_ends_before_training(raw_trainer, run, tmp_path, nothing_trains):
    component = raw_trainer(train_args=trainer_pb2.TrainArgs(num_steps=1))
    fails_cleanly(run, component, r"search_fraction=0.25 of epochs=1 leaves no whole epoch", tmp_path)


def test_a_model_that_could_not_be_exported_is_not_trained(raw_trainer, run, module_file, tmp_path, nothing_trains):
    module = module_file("raw_digits")
    with open(module, "a") as file:
        file.write("\n\ndef signatures(model, spec):\n    return {'serving_default': model}\n")
    fails_cleanly(run, raw_trainer(module_file=module), r"signatures in .* returned .* for 'serving_default'", tmp_path)


def test_a_network_that_diverges_after_the_cut_writes_nothing(raw_trainer, run, tmp_path, module_file):
    rate = "keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.01, 1e30])"
    diverging = module_file("raw_digits", ('"adam"', f"keras.optimizers.SGD({rate})"))
    fails_cleanly(run, raw_trainer(module_file=diverging), r"The training diverged: the loss is nan", tmp_path)
