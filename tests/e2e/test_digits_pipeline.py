"""The whole pipeline on real images: digits in, a smaller model that answers out, twice.

Two cycles on scikit-learn's digits, with a smaller seed and fewer epochs than the demo. One run is made for all tests.
"""

import io
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from rich.console import Console

import morph_core as morph
from morph_tfx.pipelines.config import PipelineConfig, load_config
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.local import demo
from morph_tfx.pipelines.local.result import RunResult
from morph_tfx.pipelines.local.runner import run_pipeline
from morph_tfx.pipelines.local.summary import show_summary

LEAST_ACCURACY = 0.9  # of the pushed model on the held-out digits; chance is 0.1, the demo's longer run reaches 0.99
BUDGET = 0.5  # of the seed's FLOPs
SETTINGS = {
    "hparams": {"widths": [16, 24], "learning_rate": 0.003},
    "expand_to": BUDGET,
    "search": {"epochs": 15, "batch_size": 64},
    "retrain": {"epochs": 15, "batch_size": 64},
    "beam": {"runner": "direct"},  # processes are another test's subject
}


def changed(config_file: Path, name: str, **settings: object) -> PipelineConfig:
    """A configuration beside another one, with some keys changed."""
    values = yaml.safe_load(config_file.read_text())
    other = config_file.with_name(name)
    other.write_text(yaml.safe_dump({**values, **settings}))
    return load_config(other)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    return demo.prepare(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def config(config_file) -> PipelineConfig:
    return changed(config_file, "small.yaml", **SETTINGS)


@pytest.fixture(scope="module")
def account() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(config, account) -> RunResult:
    return run_pipeline(config, say=account.append)


@pytest.fixture(scope="module")
def pushed(result) -> str:
    assert result.pushed_model is not None
    return result.pushed_model


@pytest.fixture(scope="module")
def seed(config) -> keras.Model:
    return demo.module_of(config.module_file).build_model(config.hparams)


@pytest.fixture(scope="module")
def structure(result) -> morph.Structure:
    return morph.Structure.load(result.structures[-1] / "structure.json")


def flops(model: keras.Model) -> int:
    """2 x the multiply-adds of convolutions and dense layers, counted from the weights alone."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            height, width = layer.output.shape[1:3]
            total += 2 * height * width * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += 2 * math.prod(layer.kernel.shape)
    return total


def test_the_pushed_model_answers_held_out_digits(pushed):
    accuracy = demo.pushed_accuracy(pushed, demo.load_digits()["holdout"])
    assert accuracy > LEAST_ACCURACY


def test_the_time_of_all_trainings_is_known(result):
    trainings = [step for step in result.steps if "model_run" in step.outputs]
    assert len(trainings) == 3
    assert result.training_seconds is not None
    assert 0 < result.training_seconds < sum(step.seconds for step in trainings)


def test_the_answers_are_probabilities_for_any_number_of_examples(pushed):
    serve = tf.saved_model.load(pushed).signatures["serving_default"]
    for count in (1, 3):
        examples = demo.load_digits()["holdout"].examples()[:count]
        outputs = serve(examples=tf.constant(examples))["outputs"].numpy()
        assert outputs.shape == (count, 10)
        np.testing.assert_allclose(outputs.sum(-1), 1, atol=1e-5)


def test_the_structure_costs_at_most_the_budget(seed, structure):
    final = morph.rebuild(seed, structure)
    assert flops(final) <= BUDGET * flops(seed)
    assert structure.costs["flops"] == {"seed": flops(seed), "structure": flops(final)}


def test_the_pushed_model_has_the_widths_of_the_structure(pushed, seed, structure):
    """The SavedModel's kernels are those of the network that structure.json alone rebuilds."""
    expected = sorted(tuple(weight.shape) for weight in morph.rebuild(seed, structure).weights)
    served = [tuple(variable.shape) for variable in tf.saved_model.load(pushed).variables]
    assert sorted(shape for shape in served if len(shape) >= 2) == [shape for shape in expected if len(shape) >= 2]


def test_each_cycle_leaves_a_structure_with_a_report(result, seed):
    assert len(result.structures) == 2
    for directory in result.structures:
        assert "<svg" in (directory / "report.html").read_text()
        found = morph.Structure.load(directory / "structure.json")
        assert found.fingerprint == morph.ChannelGraph.from_model(seed).fingerprint


def test_the_account_tells_every_step_and_every_cycle(result, account):
    text = "\n".join(account)
    for number, step in enumerate(result.steps, 1):
        assert f"[{number}/11] {step.node_id}" in text
    assert "cycle 2 of 2: shrink to 35% of the seed's flops, expand to 50%" in text
    assert re.search(r"done in \d+", text)
    assert {step.state for step in result.steps} == {"ran", "looked up"}


def test_a_second_run_comes_from_the_cache_and_pushes_nothing_new(config, result, pushed):
    account: list[str] = []
    second = run_pipeline(config, say=account.append)
    assert second.cached
    assert second.pushed_model == pushed
    assert [path.name for path in Path(config.push_to).iterdir()] == [Path(pushed).name]
    assert "every step came from the cache" in account[-1]


def test_a_model_below_the_bound_is_not_pushed_and_the_rest_is_reused(config_file, config, result, pushed):
    strict = changed(config_file, "strict.yaml", **SETTINGS, evaluate={"lower_bound": 1.01})
    held_back = run_pipeline(strict, say=lambda line: None)
    assert not held_back.blessed
    assert held_back.pushed_model is None
    assert [path.name for path in Path(config.push_to).iterdir()] == [Path(pushed).name]
    assert {step.node_id for step in held_back.steps if step.state == "ran"} == {"Evaluator", "Pusher"}
    summary = io.StringIO()
    show_summary(held_back, strict, console=Console(file=summary, width=200))
    reason = r"^pushed +nothing: sparse_categorical_accuracy is [01]\S*, and lower_bound is 1.01$"
    assert re.search(reason, summary.getvalue(), re.MULTILINE)


def test_a_model_that_is_not_compiled_ends_in_one_message_before_any_training(config_file, config, result):
    broken = config_file.parent / "broken" / "module.py"
    broken.parent.mkdir()
    good = (config_file.parent / "module.py").read_text()
    broken.write_text(good + "\n\ndef build_model(hparams):\n    return keras.Sequential([keras.Input((8, 8, 1))])\n")
    bad = changed(
        config_file, "bad.yaml", **SETTINGS, module_file="broken/module.py", transform_module_file="module.py"
    )
    account: list[str] = []
    with pytest.raises(morph.MorphError, match="returned a model that is not compiled"):
        run_pipeline(bad, say=account.append)
    assert account[-1].startswith("[6/11] MorphTrainer-1")
    found = sorted((Path(config.pipeline_root) / "MorphTrainer-1" / "structure").glob("*/*"))
    assert {path.parent for path in found} == {result.structures[0]}


def test_the_same_configuration_compiles_and_the_kfp_sdk_loads_it(config_file, result, tmp_path):
    from kfp import components

    accelerated = {"image": "registry.example.com/morph-tfx:1", "accelerator": {"type": "nvidia.com/gpu", "count": 1}}
    job = compile_pipeline(
        changed(config_file, "cluster.yaml", **SETTINGS, kubeflow=accelerated), tmp_path / "job.yaml"
    )
    spec = components.load_component_from_file(str(job)).pipeline_spec
    assert {f"MorphTrainer-{cycle}" for cycle in (1, 2)} < set(spec.root.dag.tasks)
