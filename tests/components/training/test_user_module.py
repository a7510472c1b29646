"""The user's module file: what is loaded from it, and what its mistakes end in."""

import keras
import pytest
from tfx import types

from morph_core import MorphError
from morph_tfx.components import MorphStructure, Retrainer
from morph_tfx.components.training import inputs, user_module
from tests.components.conftest import channel

BUILD = "import keras\ndef build_model(hparams):\n    {body}\n"
INPUT = "def input_fn(file_pattern, data_accessor, spec, batch_size):\n    return 'no dataset'\n"


FLAG = "def input_fn(file_pattern, data_accessor, spec, batch_size, training):"


def load(tmp_path, text):
    path = tmp_path / "their_model.py"
    path.write_text(text)
    return user_module.load({"module_file": str(path)})


def test_the_functions_come_from_one_load(tmp_path):
    module = load(tmp_path, "LOADED = []\ndef build_model(hparams): return LOADED\n" + INPUT)
    assert module.build_model({}) is module.input_fn.__globals__["LOADED"]
    assert module.signatures is None


def test_an_importable_module_loads_by_its_path(monkeypatch, tmp_path):
    (tmp_path / "their_package_of_models.py").write_text(BUILD.format(body="return 7") + INPUT)
    monkeypatch.syspath_prepend(tmp_path)
    assert user_module.load({"module_path": "their_package_of_models"}).build_model({}) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            INPUT,
            r"no function build_model; expected build_model\(hparams\) -> a compiled keras.Model. Its functions: inp",
        ),
        ("def build_models(hparams): return 1\n" + INPUT, r"no function build_model; .* Did you mean build_models\?"),
        (BUILD.format(body="return 1"), r"no function input_fn; expected input_fn\(file_pattern, data_accessor, spec"),
        ("def build_model(): return 1\n" + INPUT, r"build_model\(\) in .* cannot be called as it will be"),
        ("def build_model(hparams:\n", r"cannot be loaded: SyntaxError"),
        ("import a_module_that_is_nowhere\n", r"cannot be loaded: ModuleNotFoundError: .*a_module_that_is_nowhere"),
    ],
)
def test_a_module_that_breaks_the_contract_says_what_is_missing(tmp_path, text, message):
    with pytest.raises(MorphError, match=message):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MorphError, match=r"nowhere\.py cannot be loaded"):
        user_module.load({"module_file": str(tmp_path / "nowhere.py")})


def test_no_module_at_all_says_which_arguments_give_one():
    with pytest.raises(MorphError, match=r"module_file=.* or module_path="):
        user_module.load({"module_file": None})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("keras.Sequential()", r"returned a builtins.NoneType; expected a compiled keras.Model. .* forgotten `return`"),
        ("return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])", "not compiled"),
        ("import tf_keras; return tf_keras.Sequential()", "Keras 2 model: build it with `import keras`"),
    ],
)
def test_build_model_must_return_a_compiled_keras_model(tmp_path, body, message):
    module = load(tmp_path, BUILD.format(body=body) + INPUT)
    with pytest.raises(MorphError, match=message):
        module.seed({})


def test_unnamed_layers_get_the_same_names_in_every_call(tmp_path):
    body = "m = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]); m.compile(loss='mse'); return m"
    module = load(tmp_path, BUILD.format(body=body) + INPUT)
    first = [layer.name for layer in module.seed({}).layers]
    keras.layers.Dense(3)
    assert [layer.name for layer in module.seed({}).layers] == first


def test_input_fn_must_return_a_dataset_of_pairs(tmp_path):
    module = load(tmp_path, BUILD.format(body="return 1") + INPUT)
    with pytest.raises(MorphError, match=r"returned a str; expected a tf\.data\.Dataset"):
        module.dataset([], None, None, 1, training=True)
    pairs = "import tensorflow as tf\n" + INPUT.replace("'no dataset'", "tf.data.Dataset.from_tensors({'a': 1})")
    module = load(tmp_path, BUILD.format(body="return 1") + pairs)
    with pytest.raises(MorphError, match=r"expected tuples \(features, label\)"):
        module.dataset([], None, None, 1, training=True)


def test_what_fails_in_the_users_own_code_is_told_with_its_line(tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text(
        "def build_model(hparams):\n    return width(hparams)\n\n\n"
        "def width(hparams):\n    return hparams['widht']\n\n\n"
        "def input_fn(files, accessor, spec, batch_size):\n    return files.nothing\n"
    )
    module = user_module.load({"module_file": str(path)})
    with pytest.raises(MorphError, match=r"build_model in .*theirs.py, line 6, fails: KeyError: 'widht'"):
        module.seed({"width": 3})
    with pytest.raises(MorphError, match=r"input_fn in .*theirs.py, line 10, fails: AttributeError: 'list' object"):
        module.dataset([], None, None, 8, training=True)


FLAGGED = """
import keras
import tensorflow as tf
def build_model(hparams): pass
def input_fn(file_pattern, data_accessor, spec, batch_size{argument}):
    value = {value}
    return tf.data.Dataset.from_tensors(([value], [0]))
"""


@pytest.mark.parametrize("argument", [", training", ", training=False", ", *, training", ", *, training=True"])
def test_an_input_fn_that_asks_is_told_whether_it_is_for_training(tmp_path, argument):
    module = load(tmp_path, FLAGGED.format(argument=argument, value="int(training)"))
    for training in (True, False):
        features, _ = next(iter(module.dataset([], None, None, 8, training=training)))
        assert features.numpy().tolist() == [int(training)]


@pytest.mark.parametrize("argument", ["", ", seed=3", ", **options"])
def test_an_input_fn_that_does_not_ask_is_called_as_ever(tmp_path, argument):
    value = "len(options)" if "options" in argument else "0"
    module = load(tmp_path, FLAGGED.format(argument=argument, value=value))
    features, _ = next(iter(module.dataset([], None, None, 8, training=True)))
    assert features.numpy().tolist() == [0]


def test_an_argument_too_many_is_still_refused(tmp_path):
    with pytest.raises(MorphError, match=r"maybe with a fifth argument named training"):
        load(tmp_path, FLAGGED.format(argument=", augment", value="0"))


def test_training_examples_are_read_for_training_and_all_others_are_not(examples, schema, module_file):
    """What is compared and evaluated on must not be augmented."""
    path = module_file(
        "raw_digits",
        ("def input_fn(file_pattern, data_accessor, spec, batch_size):", FLAG),
    )
    artifacts = {"examples": [examples], "schema": [schema]}
    properties = Retrainer(
        examples=channel(examples),
        schema=channel(schema),
        structure=types.Channel(type=MorphStructure),
        module_file=path,
        custom_config={"epochs": 1},
    ).exec_properties
    told = []
    dataset = user_module.UserModule.dataset

    def watched(self, files, *arguments, training):
        told.append(("train" if "Split-train" in files[0] else "eval", training))
        return dataset(self, files, *arguments, training=training)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_module.UserModule, "dataset", watched)
        inputs.read(artifacts, properties)
        inputs.read_evaluation(artifacts, properties)
    assert told == [("train", True), ("eval", False), ("eval", False)]
