"""The retrain pipeline's wiring: what it takes from where, and what it shares with the morph pipeline."""

import json

import pytest
from tfx.utils import json_utils

from morph_tfx.pipelines.graph.module_files import without_wheels
from morph_tfx.pipelines.graph.retrain_pipeline import retrain_pipeline
from tests.pipelines.retraining import IMPORTED, TEXT, config_of


def pipeline_of(text: str = TEXT, **arguments):
    with without_wheels():
        return retrain_pipeline(config_of(text), **arguments)


def nodes_of(text: str = TEXT, **arguments):
    return {node.id: node for node in pipeline_of(text, **arguments).components}


def source_of(channel) -> tuple[str, str]:
    return channel.producer_component_id, channel.output_key


@pytest.fixture(scope="module")
def local():
    return nodes_of()


def test_a_retraining_of_a_pushed_structure_starts_from_fresh_weights():
    """The weights that a search kept are beside its structure, and not with the model that was pushed."""
    warm = TEXT.replace("epochs: 20,", "epochs: 20, keep_weights: true,").replace("30,", "30, warm_start: true,")
    assert config_of(warm).retrain.warm_start
    assert "warm_start" not in nodes_of(warm)["Retrainer"].exec_properties["custom_config"]


def test_it_searches_for_nothing_and_looks_the_structure_up(local):
    order = list(local)
    assert set(order) == {
        "PushedStructure",
        "ImportExampleGen",
        "StatisticsGen",
        "ExampleValidator",
        "Transform",
        "Retrainer",
        "LatestBlessedModel",
        "Evaluator",
        "Pusher",
    }
    for node in local.values():
        assert all(order.index(upstream.id) < order.index(node.id) for upstream in node.upstream_nodes)


def test_structure_and_schema_are_those_of_the_latest_pushed_model(local):
    assert source_of(local["Retrainer"].inputs["structure"]) == ("PushedStructure", "structure")
    assert source_of(local["ExampleValidator"].inputs["schema"]) == ("PushedStructure", "schema")
    assert source_of(local["Transform"].inputs["schema"]) == ("PushedStructure", "schema")


def test_on_kubeflow_whether_there_is_news_is_judged_by_what_is_read_and_how_it_is_trained():
    nodes = nodes_of(resolve=False)
    judge = nodes["PushedStructure"].exec_properties
    for step, names in (
        ("ImportExampleGen", ("input_base", "input_config")),
        ("Retrainer", ("module_file", "custom_config")),
    ):
        for name in names:
            assert _same(judge[name], nodes[step].exec_properties[name]), name
    assert set(json.loads(judge["settings"])) == {"data", "label", "retrain", "evaluate", "export"}


def _same(one: str, other: str) -> bool:
    return one == other or json.loads(one) == json.loads(other)


def test_without_spans_there_is_no_telling_and_the_pushed_structure_is_told_of_no_data():
    nodes = nodes_of(TEXT.replace("day-{SPAN}/", ""), resolve=False)
    assert nodes["PushedStructure"].exec_properties == {"push_to": "gs://bucket/serving"} | dict.fromkeys(
        ("input_base", "input_config", "module_file", "custom_config", "settings")
    )


def test_it_trains_as_the_last_step_of_the_morph_pipeline_does(local):
    config = json_utils.loads(local["Retrainer"].exec_properties["custom_config"])
    assert config == {"epochs": 30, "batch_size": 16, "hparams": {"widths": [8, 16]}}
    assert local["Retrainer"].exec_properties["module_file"] == "/base/module.py"


def test_both_pipelines_share_metadata_and_place_to_push_to_under_different_names(local):
    pipeline = pipeline_of()
    assert pipeline.pipeline_info.pipeline_name == "digits-retrain"
    assert pipeline.metadata_connection_config.sqlite.filename_uri == "/base/metadata.sqlite"
    assert "gs://bucket/serving" in local["Pusher"].exec_properties["push_destination"]


def test_the_retrained_model_is_exported_too_and_no_device_is_measured():
    nodes = nodes_of(TEXT + "cost: latency\ncalibrate: {}\nexport: {formats: [litert-int8]}\n")
    assert "DeviceCalibrator" not in nodes
    assert source_of(nodes["Exporter"].inputs["model"]) == ("Retrainer", "model")
    assert source_of(nodes["Exporter"].inputs["model_blessing"]) == ("Evaluator", "blessing")


def test_an_imported_structure_is_retrained_with_the_schema_of_the_new_examples():
    nodes = nodes_of(TEXT + IMPORTED)
    assert "PushedStructure" not in nodes
    assert nodes["Structure"].exec_properties["artifact_uri"] == "gs://bucket/best"
    assert source_of(nodes["Retrainer"].inputs["structure"]) == ("Structure", "result")
    assert source_of(nodes["Transform"].inputs["schema"]) == ("SchemaGen", "schema")
    assert source_of(nodes["Evaluator"].inputs["baseline_model"]) == ("LatestBlessedModel", "model")
