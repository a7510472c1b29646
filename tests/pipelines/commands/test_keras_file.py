"""A .keras file from elsewhere: what Keras would not look at is looked at before."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from morph_core import MorphError
from morph_tfx.pipelines.commands.keras_file import check_keras_file
from morph_tfx.pipelines.commands.model_costs import load_model


@pytest.fixture
def saved(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def rewritten(path, change, **entries: bytes):
    """The archive with its entries changed: `change` of the dictionary of their contents."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**contents, **entries}.items():
            archive.writestr(name, content)
    return path


def weights_of(make) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        make(file)
    return buffer.getvalue()


def linked(file):
    file.create_group("layers")["kernel"] = h5py.ExternalLink("/etc/other.h5", "/secret")


def stored_outside(file):
    file.create_dataset("layers/kernel", (8,), np.uint8, external=[("/etc/passwd", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((8,), np.uint8)
    layout[:] = h5py.VirtualSource("/etc/other.h5", "secret", (8,))
    file.create_virtual_dataset("layers/kernel", layout)


def test_a_file_that_keras_saved_is_taken(saved):
    check_keras_file(saved)
    assert load_model(str(saved), None).count_params() == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update({"../outside": b""}), r"its entry '../outside' leads out of it"),
        (lambda c: c.update({"/etc/cron.d/x": b""}), r"its entry '/etc/cron.d/x' leads out of it"),
        (lambda c: c.update({"a\\..\\b": b""}), r"leads out of it"),
        (lambda c: c.update({"zeros": bytes(200 << 20)}), r"unpacked it would have 2\d\d,\d{3},\d{3} bytes"),
        (lambda c: c.update({"config.json": b"[" * 100_000}), r"its config.json cannot be read .*nested more than"),
        (lambda c: c.pop("config.json"), r"it has no config.json"),
        (
            lambda c: c.update({"model.weights.h5": weights_of(linked)}),
            r"its weights '/layers/kernel' are in another file",
        ),
        (lambda c: c.update({"model.weights.h5": weights_of(stored_outside)}), r"'/layers/kernel' are in another file"),
        (lambda c: c.update({"model.weights.h5": weights_of(virtual)}), r"'/layers/kernel' are in another file"),
        (lambda c: c.update({"model.weights.h5": b"no HDF5"}), r"cannot be loaded"),
    ],
    ids=["up", "absolute", "backslashes", "bomb", "depth", "no config", "link", "external", "virtual", "no HDF5"],
)
def test_what_keras_would_not_look_at_is_refused(saved, change, message):
    with pytest.raises(MorphError, match=rf"model.keras .*{message}"):
        load_model(str(rewritten(saved, change)), None)


def test_a_lambda_layer_is_not_run(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / "model.keras")
    with pytest.raises(MorphError, match=r"model.keras cannot be loaded: .*[Ll]ambda"):
        load_model(str(tmp_path / "model.keras"), None)


def test_a_config_that_names_a_function_of_the_system_is_not_run(saved, tmp_path):
    def hostile(contents):
        config = json.loads(contents["config.json"])
        config.update(module="os", class_name="system", registered_name="system", config={"command": "touch ran"})
        contents["config.json"] = json.dumps(config).encode()

    with pytest.raises(MorphError, match=r"model.keras cannot be loaded"):
        load_model(str(rewritten(saved, hostile)), None)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "model.keras").write_text("no archive")
    with pytest.raises(MorphError, match=r"model.keras cannot be loaded .*not a zip file"):
        load_model(str(tmp_path / "model.keras"), None)
