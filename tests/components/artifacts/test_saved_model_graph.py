"""What a SavedModel's graph would do, found without loading it; and what models of TFX need, which passes."""

import os
import pathlib
import re

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from morph_tfx.components.artifacts.saved_model import fault_of, threat_of

TEXT = tf.TensorSpec((), tf.string)
TEXTS = tf.TensorSpec((None,), tf.string)


def saved(place: pathlib.Path, function, spec=TEXT, **kept) -> str:
    """A SavedModel whose default signature is a function of text."""
    module = tf.Module()
    for name, value in {"weight": tf.Variable(1.0), **kept}.items():
        setattr(module, name, value)
    module.serve = tf.function(function, input_signature=[spec])
    signature = tf.function(lambda text: {"outputs": module.serve(text)}, input_signature=[spec])
    tf.saved_model.save(module, str(place), signatures=signature.get_concrete_function())
    return str(place)


def changed(directory: str, change) -> str:
    """The SavedModel with its file changed: `change` of its graph."""
    file = pathlib.Path(directory) / "saved_model.pb"
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())
    return directory


@pytest.fixture
def plain(tmp_path):
    return saved(tmp_path / "model", lambda text: tf.strings.length(text))


def dataset(text):
    return tf.data.TextLineDataset(text).reduce(0, lambda count, line: count + 1)


def python(text):
    return tf.py_function(lambda value: value, [text], tf.string)


def written(text):
    with tf.control_dependencies([tf.io.write_file("/tmp/never-written", text)]):
        return tf.strings.length(text)


def printed(text):
    tf.print(text, output_stream="file:///tmp/never-written")
    return text


def hidden(text):
    return tf.raw_ops.DatasetCardinality(input_dataset=tf.raw_ops.DatasetFromGraph(graph_def=text))


def in_a_branch(text):
    return tf.cond(tf.equal(text, "sesame"), lambda: tf.io.read_file("/etc/passwd"), lambda: text)


def restored(text):
    [value] = tf.raw_ops.RestoreV2(prefix=text, tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])
    return value


THREATS = {
    "reads a file": (tf.io.read_file, r"it reads files \(operation ReadFile"),
    "reads a file in a branch": (in_a_branch, r"it reads files \(operation ReadFile"),
    "lists files": (tf.io.matching_files, r"it reads files \(operation MatchingFiles"),
    "reads lines": (dataset, r"it reads files \(operation TextLineDataset"),
    "reads a checkpoint": (restored, r"it reads files \(operation RestoreV2"),
    "writes a file": (written, r"it writes files \(operation WriteFile"),
    "prints into a file": (printed, r"it writes files \(operation PrintV2"),
    "runs Python": (python, r"it runs Python code of the process that loads it \(operation EagerPyFunc"),
    "makes a graph of text": (hidden, r"it makes a graph out of text .*\(operation DatasetFromGraph"),
}


@pytest.mark.parametrize("name", THREATS)
def test_what_no_model_needs_is_named_with_its_operation(tmp_path, name):
    function, told = THREATS[name]
    directory = saved(tmp_path / "model", function)
    assert re.match(told, threat_of(directory) or "")
    assert (fault_of(directory) or "").startswith("it is not loaded: it ")


def test_a_table_from_a_path_of_the_machine_is_refused_and_one_from_an_asset_is_taken(tmp_path):
    (tmp_path / "words.txt").write_text("one\ntwo\n")

    words = tf.lookup.TextFileInitializer(str(tmp_path / "words.txt"), tf.string, 0, tf.int64, -1)
    lookup = tf.lookup.StaticVocabularyTable(words, 1)
    directory = saved(tmp_path / "model", lookup.lookup, TEXTS, table=lookup)
    assert [file.name for file in (tmp_path / "model" / "assets").iterdir()] == ["words.txt"]
    assert threat_of(directory) is None and fault_of(directory) is None

    def from_elsewhere(graph):
        """The initializer takes its file's name from a constant of its own."""
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if node.op == "InitializeTableFromTextFileV2":
                    constant = function.node_def.add(name="place", op="Const")
                    constant.attr["dtype"].type = tf.string.as_datatype_enum
                    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))
                    node.input[1] = "place:output:0"

    told = threat_of(changed(directory, from_elsewhere))
    assert told is not None and told.startswith("it reads files that are no assets of it (operation InitializeTable")


def test_what_servers_are_asked_passes(tmp_path):
    """Serialized examples with an image, as the Retrainer's signatures take them."""

    def serve(examples):
        features = {"image": tf.io.FixedLenFeature((), tf.string), "x": tf.io.VarLenFeature(tf.float32)}
        parsed = tf.io.parse_example(examples, features)
        images = tf.map_fn(
            lambda one: tf.io.decode_image(one, expand_animations=False), parsed["image"], fn_output_signature=tf.uint8
        )
        return tf.reduce_sum(tf.cast(images, tf.float32)) + tf.reduce_sum(tf.sparse.to_dense(parsed["x"]))

    directory = saved(tmp_path / "model", serve, TEXTS)
    assert threat_of(directory) is None and fault_of(directory) is None


def outward(graph):
    graph.asset_file_def.add(filename="../../etc/passwd")


def absolute(graph):
    graph.asset_file_def.add(filename="/etc/passwd")


def strange(graph):
    graph.graph_def.node.add(name="miner", op="MineCoins")


def calling(graph):
    graph.graph_def.node.add(name="call", op="RpcCall")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (outward, "its asset '../../etc/passwd' leads out of it"),
        (absolute, "its asset '/etc/passwd' leads out of it"),
        (strange, "it has the operation MineCoins ('miner'), which no library that is installed here has"),
        (calling, "it calls other machines (operation RpcCall, 'call')"),
    ],
)
def test_what_stands_in_the_file_alone_is_found_there(plain, change, told):
    assert threat_of(plain) is None
    assert threat_of(changed(plain, change)) == told


@pytest.mark.parametrize("name", ["assets/words.txt", "variables/variables.index", "fingerprint.pb"])
def test_a_link_out_of_a_model_is_refused_and_one_inside_is_not(plain, tmp_path, name):
    (tmp_path / "secret").write_text("secret")
    file = pathlib.Path(plain) / name
    file.unlink(missing_ok=True)
    file.symlink_to(tmp_path / "secret")
    assert threat_of(plain) == f"its file {name} is a link to somewhere else"
    file.unlink()
    file.symlink_to(os.path.relpath(pathlib.Path(plain) / "saved_model.pb", file.parent))
    assert threat_of(plain) is None


def test_what_is_no_protocol_buffer_or_lies_in_several_files_is_told(plain):
    file = pathlib.Path(plain) / "saved_model.cpb"
    file.touch()
    assert threat_of(plain) == "its graph lies in several files (saved_model.cpb), which are not looked into"
    file.unlink()
    (pathlib.Path(plain) / "saved_model.pb").write_bytes(b"\xff" * 100)
    assert threat_of(plain) == "its saved_model.pb is damaged: it is no SavedModel"
