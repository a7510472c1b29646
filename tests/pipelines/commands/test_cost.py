"""`morph-tfx cost`: tables and JSON of saved models and of keras.applications, and what it refuses."""

import json
import subprocess
import sys

import keras
import pytest
from click.testing import CliRunner
from keras import layers

import morph_core as morph
from morph_tfx.pipelines.commands.cli import cli


def invoke(*arguments: object):
    return CliRunner().invoke(cli, ["cost", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(10, 3, padding="same", activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(hidden)))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path


FLOPS = {"hidden": 2 * 64 * 27 * 10, "head": 2 * 10 * 5}
PARAMS = {"hidden": 28 * 10, "head": 11 * 5}


def test_the_tables_show_every_layer_and_the_total(saved):
    result = invoke(saved)
    assert result.exit_code == 0, result.output
    for amount in (*FLOPS.values(), *PARAMS.values(), sum(FLOPS.values()), sum(PARAMS.values())):
        assert f"{amount:,}" in result.output
    assert "FLOPs (multiply-add = 2)" in result.output
    assert "activation memory" in result.output
    assert "global_average" not in result.output  # costs nothing that is a sum over layers


def test_json_holds_the_same_numbers(saved):
    result = invoke(saved, "--json", "--cost", "flops", "--cost", "activation_memory")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert list(data["costs"]) == ["flops", "activation_memory"]
    assert data["costs"]["flops"] == {
        "unit": morph.COSTS["flops"].unit, "seed": sum(FLOPS.values()), "structure": None,
    }  # fmt: skip
    assert data["costs"]["activation_memory"]["seed"] == 4 * (64 * 3 + 64 * 10)
    assert {layer["name"]: layer["costs"]["flops"] for layer in data["layers"]} == FLOPS
    assert [layer["kind"] for layer in data["layers"]] == ["Conv2D", "Dense"]


def test_a_structure_is_set_against_its_seed(model, saved, tmp_path):
    graph = morph.ChannelGraph.from_model(model)
    morph.describe(graph, {"hidden": 4}).save(tmp_path / "structure.json")
    result = invoke(saved, "--structure", tmp_path / "structure.json", "--cost", "params", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["costs"]["params"]["seed"] == 28 * 10 + 11 * 5
    assert data["costs"]["params"]["structure"] == 28 * 4 + 5 * 5
    assert {layer["name"]: layer["costs"]["params"] for layer in data["layers"]} == {"hidden": 28 * 4, "head": 5 * 5}
    shown = invoke(saved, "--structure", tmp_path / "structure.json", "--cost", "params").output
    assert "as the structure leaves them" in shown
    assert f"{(28 * 4 + 5 * 5) / (28 * 10 + 11 * 5) - 1:+.1%}" in shown


def test_an_application_is_built_for_the_shape_asked_for():
    result = invoke("keras.applications:MobileNet", "--input-shape", "32,32,3", "--json", "--cost", "params")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["costs"]["params"]["seed"] == 4_253_864


def test_costs_that_cannot_be_told_are_left_out_unless_asked_for(tmp_path):
    image = keras.Input((None, None, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="hidden")(image))
    keras.Model(image, layers.Dense(2)(pooled)).save(tmp_path / "open.keras")
    assert list(json.loads(invoke(tmp_path / "open.keras", "--json").stdout)["costs"]) == ["params"]
    result = invoke(tmp_path / "open.keras", "--cost", "flops")
    assert result.exit_code == 2
    assert "unknown size" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.keras",), "nowhere.keras does not exist. Give a model saved with"),
        (("{folder}/text.txt",), "text.txt is no .keras file"),
        (("{folder}/broken.keras",), "broken.keras cannot be loaded"),
        (("{folder}/lambda.keras",), "lambda.keras cannot be loaded"),
        (("keras.applications:ResNet5",), "no model 'ResNet5'. Did you mean 'ResNet50'?"),
        (("keras.applications:resnet",), "no model 'resnet'"),
        (("keras.applications:MobileNet", "--input-shape", "big"), "--input-shape 'big': expected whole numbers"),
        (
            ("keras.applications:MobileNet", "--input-shape", "3,3,3"),
            "MobileNet cannot be built for --input-shape 3,3,3",
        ),
        (("{saved}", "--input-shape", "8,8,3"), "--input-shape is for keras.applications"),
        (("{saved}", "--cost", "flop"), "Unknown cost 'flop'. Did you mean 'flops'?"),
        (("{saved}", "--cost", "latency:v10"), "Unknown device 'v10'. Did you mean 'v100'?"),
        (("{saved}", "--structure", "none.json"), "Structure file none.json cannot be read"),
        (("{saved}", "--structure", "{folder}/foreign.json"), "made for another network"),
    ],
)
def test_a_mistake_ends_in_one_message_and_exit_code_2(saved, tmp_path, arguments, message):
    (tmp_path / "text.txt").write_text("no model")
    (tmp_path / "broken.keras").write_text("no model")
    inputs = keras.Input((4,))
    foreign = keras.Model(inputs, layers.Dense(2)(layers.Dense(3)(inputs)))
    morph.describe(morph.ChannelGraph.from_model(foreign), {}).save(tmp_path / "foreign.json")
    keras.Model(inputs, layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / "lambda.keras")
    result = invoke(*(argument.format(folder=tmp_path, saved=saved) for argument in arguments))
    assert result.exit_code == 2
    assert result.output.startswith("morph-tfx: ")
    assert message in result.output
    assert "Traceback" not in result.output


def test_counting_loads_no_tfx(saved):
    """A fresh process: TFX alone takes half a minute to import."""
    code = (
        "import sys; from click.testing import CliRunner; from morph_tfx.pipelines.commands.cli import cli\n"
        f"assert CliRunner().invoke(cli, ['cost', {str(saved)!r}]).exit_code == 0\n"
        "print(sorted({'tfx', 'apache_beam', 'ml_metadata', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
