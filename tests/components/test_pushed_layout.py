"""What Pusher pushes is what TF Serving serves: found, loaded and asked as that server does, without its binary.

The server takes the children of its base path whose names are whole numbers (`ParseVersionNumber` in
tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc), serves the largest, loads the graph tagged
"serve" into a session and runs the signature that a request names, `serving_default` if it names none. Of KServe's
runtime `kserve-tensorflow-serving` the base path is /mnt/models, where `storageUri` is mounted or copied to.
"""

import base64
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tfx.components import Pusher
from tfx.proto import pusher_pb2
from tfx.utils import path_utils

from tests.components.conftest import channel, serialized

PREDICT = "tensorflow/serving/predict"


@pytest.fixture
def base_path(run, trained, tmp_path) -> pathlib.Path:
    """Where a model was pushed to, beside an earlier one and a file that is no version."""
    base = tmp_path / "serving"
    shutil.copytree(path_utils.serving_model_path(trained.uri), base / "7")
    (base / "README").write_text("not a version")
    destination = pusher_pb2.PushDestination(filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(base)))
    run(Pusher(model=channel(trained), push_destination=destination))
    return base


def scanned(base: pathlib.Path) -> dict[int, pathlib.Path]:
    """The versions below a base path; text that is no number is passed over."""
    found = {}
    for child in base.iterdir():
        try:
            found[int(child.name)] = child
        except ValueError:
            continue
    return found


def test_the_newest_version_is_the_one_that_was_pushed_and_it_is_complete(base_path):
    versions = scanned(base_path)
    assert len(versions) == 2 and max(versions) < 2**63
    newest = versions[max(versions)]
    assert max(versions) > 7 and newest.name == str(max(versions))
    assert {path.name for path in newest.iterdir()} >= {"saved_model.pb", "variables", "assets", "assets.extra"}
    assert not list(base_path.rglob("weights.npz")), "weights for other files stay in the artifact"


def test_a_request_of_the_guide_is_answered_by_the_newest_version(base_path, held_out):
    versions = scanned(base_path)
    images, labels = held_out[0][:8], held_out[1][:8]
    examples = serialized(images, labels, without=["label"]).numpy()
    # The body of a POST to /v1/models/NAME:predict, and what the server makes of it.
    body = json.dumps({"instances": [{"b64": base64.b64encode(example).decode()} for example in examples]})
    batch = [base64.b64decode(instance["b64"]) for instance in json.loads(body)["instances"]]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(versions[max(versions)]))
        signature = loaded.signature_def["serving_default"]
        assert signature.method_name == PREDICT
        assert {name: tf.dtypes.as_dtype(info.dtype) for name, info in signature.inputs.items()} == {
            "examples": tf.string
        }
        assert [dim.size for dim in signature.inputs["examples"].tensor_shape.dim] == [-1]
        answers = session.run(signature.outputs["outputs"].name, {signature.inputs["examples"].name: batch})
    expected = tf.saved_model.load(str(versions[7])).signatures["serving_default"](examples=tf.constant(examples))
    np.testing.assert_allclose(answers, expected["outputs"], atol=1e-5)
