"""Training over several devices and several processes, and in mixed precision: what is trained, and what is refused."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.utils import path_utils

import morph_core as morph
from morph_core import MorphError
from morph_tfx.components.training import distribution
from tests.components.conftest import DIGITS, example, narrowed

ROOT = pathlib.Path(__file__).parents[3]


def request(component, transformed, output, structure=None, **custom_config) -> dict:
    examples, transform_graph = transformed
    inputs = {
        "examples": ["Examples", examples.uri, examples.split_names],
        "transform_graph": ["TransformGraph", transform_graph.uri, ""],
    }
    if structure is not None:
        inputs["structure"] = ["MorphStructure", structure, ""]
    arguments = {"module_file": DIGITS, "custom_config": {"batch_size": 64, **custom_config}}
    if component == "MorphTrainer":
        arguments["target"] = 0.5
    return {"component": component, "inputs": inputs, "arguments": arguments, "output": str(output)}


def start(asked: dict, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.components.training.distributed_run", json.dumps(asked)]
    # Collectives use the whole machine's threads; without GPUs nothing may look for some.
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    try:
        output, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, errors[-4000:]
    return output


def accuracy(model: str, held_out) -> float:
    images, labels = held_out
    serve = tf.saved_model.load(path_utils.serving_model_dir(model)).signatures["serving_default"]
    requests = [example(image, int(label)).SerializeToString() for image, label in zip(images, labels, strict=True)]
    answers = serve(examples=tf.constant(requests))["outputs"]
    assert answers.dtype == tf.float32
    return float(np.mean(answers.numpy().argmax(axis=1) == labels))


@pytest.mark.thorough
def test_search_and_retraining_on_two_devices_of_a_machine(transformed, held_out, tmp_path):
    mirrored = {"distribution": {"strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}}
    search = request("MorphTrainer", transformed, tmp_path / "search", epochs=2, **mirrored)
    structure = str(tmp_path / "search" / "structure" / "1")
    retrain = request(
        "Retrainer", transformed, tmp_path / "retrain", structure, epochs=3, mixed_precision=True, **mirrored
    )
    output = finish(start({"devices": 2, "runs": [search, retrain]}))
    assert output.count("distribution: mirrored, 2 replicas share each batch") == 2
    costs = morph.Structure.load(f"{structure}/structure.json").costs["flops"]
    assert costs["structure"] <= 0.5 * costs["seed"]
    # Trained on both devices, in bfloat16, and yet an ordinary model in float32 that answers.
    assert accuracy(json.loads(output.splitlines()[-1])[1]["model"], held_out) > 0.85


@pytest.mark.thorough
def test_a_search_on_two_devices_trains_its_network_to_the_end_on_both(transformed, held_out, tmp_path):
    mirrored = {"distribution": {"strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}}
    asked = request("MorphTrainer", transformed, tmp_path / "run", epochs=5, mixed_precision=True, **mirrored)
    asked["arguments"] |= {"finish": "in_place", "search_fraction": 0.4}
    output = finish(start({"devices": 2, "runs": [asked]}))
    assert "distribution: mirrored, 2 replicas share each batch" in output
    [made] = json.loads(output.splitlines()[-1])
    costs = morph.Structure.load(f"{made['structure']}/structure.json").costs["flops"]
    assert costs["structure"] <= 0.5 * costs["seed"]
    assert accuracy(made["model"], held_out) > 0.85


@pytest.mark.thorough
def test_search_and_retraining_in_two_processes_write_one_result(transformed, held_out, tmp_path):
    structure = narrowed(DIGITS, tmp_path, **{"conv2d-1": 8, "conv2d-2": 12}).uri
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    spread = {"distribution": {"strategy": "multi_worker_mirrored"}}
    processes = []
    for index in range(2):
        search = request("MorphTrainer", transformed, tmp_path / f"search{index}", epochs=2, **spread)
        retrain = request("Retrainer", transformed, tmp_path / f"retrain{index}", structure, epochs=3, **spread)
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(start({"runs": [search, retrain]}, TF_CONFIG=json.dumps(task)))
    outputs = [finish(process) for process in processes]
    assert [output.count("multi_worker_mirrored, 2 replicas share each batch") for output in outputs] == [2, 2]
    (searched, retrained), others = (json.loads(output.splitlines()[-1]) for output in outputs)
    costs = morph.Structure.load(f"{searched['structure']}/structure.json").costs["flops"]
    assert costs["structure"] <= 0.5 * costs["seed"]
    assert accuracy(retrained["model"], held_out) > 0.85
    assert [list(pathlib.Path(uri).iterdir()) for other in others for uri in other.values()] == [[]] * 4


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_mixed_precision_ends_with_the_block_and_leaves_a_float32_model():
    with distribution.training_scope({"mixed_precision": True}, {}):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        assert model(np.ones((2, 4))).dtype == tf.bfloat16
    assert keras.config.dtype_policy().name == "float32"
    distribution.to_float32(model)
    kernel, bias = model.get_weights()
    assert model(np.ones((2, 4), "float32")).dtype == tf.float32
    np.testing.assert_allclose(model(np.full((2, 4), 0.3, "float32")), np.full((2, 4), 0.3) @ kernel + bias, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mixed_precision": "float16"}, r"\['mixed_precision'\] is 'float16'; expected true or false"),
        ({"distribution": "mirrored"}, r"\['distribution'\] is 'mirrored'; expected a dict with 'strategy'"),
        ({"distribution": {"stategy": "mirrored"}}, "expected a dict with 'strategy' and maybe 'devices'"),
        ({"distribution": {"strategy": "mirror"}}, "strategy 'mirror'; expected one of 'mirrored'"),
        ({"distribution": {"strategy": "tpu", "devices": ["TPU:0"]}}, "Only 'mirrored' takes 'devices'"),
        ({"distribution": {"strategy": "mirrored", "devices": []}}, "expected a list of different names"),
        ({"distribution": {"strategy": "mirrored", "devices": ["GPU:0", "GPU:0"]}}, "expected a list of different"),
    ],
)
def test_what_makes_no_sense_is_refused_where_the_pipeline_is_built(config, message):
    with pytest.raises(MorphError, match=message):
        distribution.check(config)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"strategy": "mirrored", "devices": ["GPU:7"]}, "no device 'GPU:7' on this machine; there are CPU:0"),
        ({"strategy": "multi_worker_mirrored"}, "TF_CONFIG, which is not set"),
        ({"strategy": "tpu"}, "found no TPU that this TensorFlow can use"),
    ],
)
def test_what_the_machine_has_not_is_refused(asked, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(MorphError, match=message), distribution.training_scope({"distribution": asked}, {}):
        pass
