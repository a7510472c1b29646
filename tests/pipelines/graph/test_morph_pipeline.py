"""The wiring: which nodes there are, what feeds what, and with which parameters."""

import pytest
import tensorflow_model_analysis as tfma
from tfx.utils import json_utils

from morph_tfx.pipelines.config import EvaluateConfig, parse_config
from morph_tfx.pipelines.graph.module_files import without_wheels
from morph_tfx.pipelines.graph.morph_pipeline import morph_pipeline
from morph_tfx.pipelines.graph.stages import LATEST_BLESSED, eval_config

TEXT = """
name: digits
data: {format: tfrecord, path: data, splits: {train: train/*, eval: eval/*}}
module_file: module.py
label: digit
hparams: {widths: [8, 16]}
target: 0.35
expand_to: [1.0, 0.5]
cycles: 2
search: {epochs: 3, batch_size: 64}
retrain: {steps: 100, batch_size: 16}
evaluate: {lower_bound: 0.9, max_drop: 0.02}
push_to: pushed
"""


def nodes_of(text=TEXT, **arguments):
    with without_wheels():
        pipeline = morph_pipeline(parse_config(text, "config.yaml", "/base"), **arguments)
    return {node.id: node for node in pipeline.components}


@pytest.fixture(scope="module")
def nodes():
    return nodes_of()


def source_of(channel) -> tuple[str, str]:
    return channel.producer_component_id, channel.output_key


def test_every_step_is_there_in_an_order_that_runs(nodes):
    order = list(nodes)
    assert set(order) == {
        "ImportExampleGen",
        "StatisticsGen",
        "SchemaGen",
        "ExampleValidator",
        "Transform",
        "MorphTrainer-1",
        "MorphTrainer-2",
        "Retrainer",
        "LatestBlessedModel",
        "Evaluator",
        "Pusher",
    }
    for node in nodes.values():
        assert all(order.index(upstream.id) < order.index(node.id) for upstream in node.upstream_nodes)


def test_each_cycle_starts_from_the_structure_of_the_one_before(nodes):
    assert not nodes["MorphTrainer-1"].inputs.get("seed_structure")
    assert source_of(nodes["MorphTrainer-2"].inputs["seed_structure"]) == ("MorphTrainer-1", "structure")
    assert source_of(nodes["Retrainer"].inputs["structure"]) == ("MorphTrainer-2", "structure")


@pytest.mark.parametrize("node", ["MorphTrainer-1", "MorphTrainer-2", "Retrainer"])
def test_training_reads_transformed_examples_and_the_graph(nodes, node):
    assert source_of(nodes[node].inputs["examples"]) == ("Transform", "transformed_examples")
    assert source_of(nodes[node].inputs["transform_graph"]) == ("Transform", "transform_graph")
    assert nodes[node].exec_properties["module_file"] == "/base/module.py"


@pytest.mark.parametrize(
    ("node", "expand_to", "cycle"), [("MorphTrainer-1", 1.0, "1/2"), ("MorphTrainer-2", 0.5, "2/2")]
)
def test_a_search_gets_its_goal_and_its_length(nodes, node, expand_to, cycle):
    properties = nodes[node].exec_properties
    assert (properties["cost"], properties["target"], properties["gate"]) == ("flops", 0.35, "auto")
    assert properties["expand_to"] == expand_to
    assert properties.get("budget") is None
    assert json_utils.loads(properties["custom_config"]) == {
        "epochs": 3,
        "batch_size": 64,
        "hparams": {"widths": [8, 16]},
        "cycle": cycle,
    }


def test_steps_are_handed_over_as_train_args(nodes):
    properties = nodes["Retrainer"].exec_properties
    assert '"num_steps": 100' in str(properties["train_args"])
    assert json_utils.loads(properties["custom_config"]) == {"batch_size": 16, "hparams": {"widths": [8, 16]}}


def test_the_last_search_keeps_the_weights_that_the_retraining_starts_from():
    warm = TEXT.replace("[1.0, 0.5]", "[1.0, null]")
    warm = warm.replace("epochs: 3,", "epochs: 3, keep_weights: true,").replace("100,", "100, warm_start: true,")
    nodes = nodes_of(warm)
    flags = {
        node: {"keep_weights", "warm_start"} & set(json_utils.loads(nodes[node].exec_properties["custom_config"]))
        for node in ("MorphTrainer-1", "MorphTrainer-2", "Retrainer")
    }
    assert flags == {"MorphTrainer-1": set(), "MorphTrainer-2": {"keep_weights"}, "Retrainer": {"warm_start"}}


def test_in_place_the_last_search_makes_the_model_and_nothing_is_retrained():
    text = TEXT.replace("[1.0, 0.5]", "[1.0, null]").replace("steps: 100, batch_size: 16", "epochs: 9, batch_size: 64")
    nodes = nodes_of(text + "finish: in_place\n")
    assert "Retrainer" not in nodes
    first, last = (nodes[f"MorphTrainer-{cycle}"] for cycle in (1, 2))
    assert "model" not in first.outputs
    assert (first.exec_properties["search_fraction"], last.exec_properties["search_fraction"]) == (None, 0.25)
    lengths = [json_utils.loads(node.exec_properties["custom_config"])["epochs"] for node in (first, last)]
    assert lengths == [3, 3 + 9]
    for node in ("Evaluator", "Pusher"):
        assert source_of(nodes[node].inputs["model"]) == ("MorphTrainer-2", "model")
    assert source_of(nodes["LatestBlessedModel"].raw_inputs["candidate"]) == ("MorphTrainer-2", "model")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("true", {"temperature": 3.0, "weight": 0.5}),
        ("{temperature: 2.5}", {"temperature": 2.5, "weight": 0.5}),
        ("false", None),
    ],
)
def test_the_last_search_in_place_has_its_seed_as_teacher(written, expected):
    text = TEXT.replace("[1.0, 0.5]", "[1.0, null]").replace("steps: 100, batch_size: 16", "epochs: 9, batch_size: 64")
    text = text.replace("epochs: 3,", f"epochs: 3, distill: {written},")
    nodes = nodes_of(text + "finish: in_place\n")
    configs = [json_utils.loads(nodes[f"MorphTrainer-{cycle}"].exec_properties["custom_config"]) for cycle in (1, 2)]
    assert [config.get("distill") for config in configs] == [None, expected]


def test_of_both_models_the_better_one_that_passed_is_pushed():
    text = TEXT.replace("[1.0, 0.5]", "[1.0, null]").replace("steps: 100, batch_size: 16", "epochs: 9, batch_size: 64")
    nodes = nodes_of(text + "finish: both\n")
    makers = {"in-place": "MorphTrainer-2", "from-scratch": "Retrainer"}
    frontier, resolver = nodes["Frontier"], nodes["LatestBlessedModel"]
    for number, (name, maker) in enumerate(makers.items()):
        evaluator = nodes[f"Evaluator-{name}"]
        assert source_of(evaluator.inputs["model"]) == (maker, "model")
        assert source_of(evaluator.inputs["baseline_model"]) == ("LatestBlessedModel", "model")
        assert source_of(frontier.inputs[f"model_{number}"]) == (maker, "model")
        assert source_of(frontier.inputs[f"evaluation_{number}"]) == (f"Evaluator-{name}", "evaluation")
        assert source_of(frontier.inputs[f"structure_{number}"]) == ("MorphTrainer-2", "structure")
    assert source_of(resolver.raw_inputs["candidate"]) == ("MorphTrainer-2", "model")
    assert source_of(resolver.raw_inputs["candidate_2"]) == ("Retrainer", "model")
    assert source_of(nodes["Retrainer"].inputs["structure"]) == ("MorphTrainer-2", "structure")
    assert '"epochs": 9' in nodes["Retrainer"].exec_properties["custom_config"]
    for name in ("model", "blessing"):
        assert source_of(nodes["Pusher"].inputs["model" if name == "model" else "model_blessing"]) == ("Frontier", name)
    assert "evaluation" not in nodes["Pusher"].inputs  # Frontier writes it on the card of the model that it chose


DEVICES = """
cost: latency
calibrate: {runtime: xla, batch_size: 4, device: edge-node}
export: {formats: [litert, onnx], tolerances: {onnx: 0.01}, max_accuracy_loss: 0.02}
"""


def test_the_device_is_measured_before_the_searches_which_count_by_it():
    nodes = nodes_of(TEXT + DEVICES)
    measured = nodes["DeviceCalibrator"]
    chosen = {name: measured.exec_properties[name] for name in ("device", "runtime", "dtype", "batch_size")}
    assert chosen == {"device": "edge-node", "runtime": "xla", "dtype": "float32", "batch_size": 4}
    assert measured.exec_properties["module_file"] == "/base/module.py"
    assert json_utils.loads(measured.exec_properties["custom_config"]) == {"hparams": {"widths": [8, 16]}}
    order = list(nodes)
    for cycle in (1, 2):
        search = nodes[f"MorphTrainer-{cycle}"]
        assert source_of(search.inputs["calibration"]) == ("DeviceCalibrator", "calibration")
        assert search.exec_properties["cost"] == "latency"
        assert order.index("DeviceCalibrator") < order.index(search.id)


def test_what_is_pushed_is_also_exported_when_it_is_blessed():
    exporter = nodes_of(TEXT + DEVICES)["Exporter"]
    assert source_of(exporter.inputs["model"]) == ("Retrainer", "model")
    assert source_of(exporter.inputs["model_blessing"]) == ("Evaluator", "blessing")
    assert source_of(exporter.inputs["examples"]) == ("Transform", "transformed_examples")
    assert source_of(exporter.inputs["transform_graph"]) == ("Transform", "transform_graph")
    properties = exporter.exec_properties
    assert (properties["formats"], properties["tolerances"]) == ('["litert", "onnx"]', '{"onnx": 0.01}')
    assert (properties["max_accuracy_loss"], properties["batch_size"], properties["keep_slower"]) == (0.02, 1, 0)
    assert json_utils.loads(properties["custom_config"]) == {"hparams": {"widths": [8, 16]}}


def test_of_several_budgets_the_chosen_network_is_exported_and_all_count_by_the_device():
    lines = [line for line in (TEXT + DEVICES).splitlines() if not line.startswith(("target", "expand_to"))]
    nodes = nodes_of("\n".join([*lines, "budgets: [0.25]", "choose: {min_accuracy: 0.9}"]))
    for node in ("MorphTrainer-25-1", "UniformWidths-uniform-25", "UniformWidths-seed"):
        assert source_of(nodes[node].inputs["calibration"]) == ("DeviceCalibrator", "calibration")
    for name, output in (("model", "model"), ("model_blessing", "blessing")):
        assert source_of(nodes["Exporter"].inputs[name]) == ("Frontier", output)


def test_uniform_widths_have_the_multiples_and_floors_of_the_search():
    lines = [line for line in TEXT.splitlines() if not line.startswith(("target", "expand_to"))]
    given = "budgets: [0.25]\nchoose: {min_accuracy: 0.9}\nmultiple_of: 8\nmin_channels: {conv_1: 4}"
    nodes = nodes_of("\n".join([*lines, given]))
    for name in ("UniformWidths-uniform-25", "UniformWidths-seed", "MorphTrainer-25-1"):
        properties = nodes[name].exec_properties
        assert (properties["multiple_of"], properties["min_channels"]) == ("8", '{"conv_1": 4}')
    nodes = nodes_of("\n".join([*lines, given.replace("{conv_1: 4}", "uniform")]))
    assert nodes["MorphTrainer-25-1"].exec_properties["min_channels"] == '"uniform"'
    assert nodes["UniformWidths-uniform-25"].exec_properties.get("min_channels") is None


def test_the_model_is_evaluated_on_raw_examples_against_the_latest_other_blessed_one(nodes):
    evaluator = nodes["Evaluator"]
    assert source_of(evaluator.inputs["examples"]) == ("ImportExampleGen", "examples")
    assert source_of(evaluator.inputs["model"]) == ("Retrainer", "model")
    assert source_of(evaluator.inputs["baseline_model"]) == ("LatestBlessedModel", "model")
    assert source_of(nodes["LatestBlessedModel"].raw_inputs["candidate"]) == ("Retrainer", "model")


def test_only_a_blessed_model_is_pushed(nodes):
    pusher = nodes["Pusher"]
    assert source_of(pusher.inputs["model"]) == ("Retrainer", "model")
    assert source_of(pusher.inputs["model_blessing"]) == ("Evaluator", "blessing")
    assert source_of(pusher.inputs["evaluation"]) == ("Evaluator", "evaluation")
    assert "/base/pushed" in pusher.exec_properties["push_destination"]


def test_without_a_baseline_there_is_no_resolver():
    nodes = nodes_of(baseline=None)
    assert "LatestBlessedModel" not in nodes
    assert "baseline_model" not in nodes["Evaluator"].inputs
    assert "change_threshold" in nodes_of()["Evaluator"].exec_properties["eval_config"]
    assert "change_threshold" not in nodes["Evaluator"].exec_properties["eval_config"]


@pytest.mark.parametrize(
    ("place", "key"),
    [("gs://bucket/serving/1", "path"), ("/mnt/serving/1", "path"), ("minio://bucket/model", "artifact_uri")],
)
def test_a_named_baseline_is_read_by_a_step_or_imported_where_only_the_launcher_reads(place, key):
    nodes = nodes_of(baseline=place)
    assert source_of(nodes["Evaluator"].inputs["baseline_model"]) == ("BaselineModel", "result")
    assert nodes["BaselineModel"].exec_properties[key] == place


def test_csv_is_read_by_its_own_example_gen_and_split_by_hash():
    data = "data: {format: csv, path: data, eval_fraction: 0.25}"
    lines = [data if line.startswith("data:") else line for line in TEXT.splitlines()]
    nodes = nodes_of("\n".join(lines))
    properties = nodes["CsvExampleGen"].exec_properties
    assert properties["input_base"] == "/base/data"
    assert '"hash_buckets": 750' in properties["output_config"]
    assert '"hash_buckets": 250' in properties["output_config"]


def test_the_pipeline_caches_and_keeps_its_metadata_where_the_configuration_says():
    with without_wheels():
        pipeline = morph_pipeline(parse_config(TEXT, "config.yaml", "/base"), baseline=LATEST_BLESSED)
    assert pipeline.enable_cache
    assert pipeline.pipeline_info.pipeline_root == "/base/pipeline_root"
    assert pipeline.metadata_connection_config.sqlite.filename_uri == "/base/metadata.sqlite"
    assert pipeline.beam_pipeline_args == ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


@pytest.mark.parametrize(
    ("evaluate", "bound", "change", "direction"),
    [
        ({"lower_bound": 0.9, "max_drop": 0.02}, ("lower_bound", 0.9), -0.02, "HIGHER_IS_BETTER"),
        ({"metric": "MeanSquaredError", "upper_bound": 4, "max_drop": 0.1}, ("upper_bound", 4), 0.1, "LOWER_IS_BETTER"),
    ],
)
def test_the_bounds_go_the_way_in_which_the_metric_is_better(evaluate, bound, change, direction):
    config = eval_config(EvaluateConfig(**evaluate), "digit", compare=True)
    [model_spec] = config.model_specs
    assert (model_spec.label_key, model_spec.prediction_key) == ("digit", "outputs")
    assert model_spec.signature_name == "serving_default"
    threshold = config.metrics_specs[0].metrics[0].threshold
    assert getattr(threshold.value_threshold, bound[0]).value == bound[1]
    assert threshold.change_threshold.absolute.value == pytest.approx(change)
    assert threshold.change_threshold.direction == getattr(tfma.MetricDirection, direction)
    alone = eval_config(EvaluateConfig(**evaluate), "digit", compare=False).metrics_specs[0].metrics[0].threshold
    assert not alone.HasField("change_threshold")


def test_slices_are_evaluated_and_the_bounds_stay_on_all_examples():
    """TFMA's threshold holds for every slice; without slices the configuration is what it was before there were any."""
    evaluate = {"lower_bound": 0.9, "max_drop": 0.02}
    plain = eval_config(EvaluateConfig(**evaluate), "digit", compare=True)
    sliced = eval_config(EvaluateConfig(**evaluate, slices=("country", "plan")), "digit", compare=True)
    assert [list(spec.feature_keys) for spec in plain.slicing_specs] == [[]]
    assert [list(spec.feature_keys) for spec in sliced.slicing_specs] == [[], ["country"], ["plan"]]
    metric = sliced.metrics_specs[0].metrics[0]
    [only] = metric.per_slice_thresholds
    assert list(only.slicing_specs) == [tfma.SlicingSpec()] and not metric.HasField("threshold")
    assert only.threshold == plain.metrics_specs[0].metrics[0].threshold


@pytest.mark.parametrize(
    ("finish", "trained"), [("", '"batch_size": 16'), ("finish: in_place\n", '"epochs": 9')], ids=["scratch", "place"]
)
def test_what_is_compared_with_is_trained_as_long_as_the_final_model_and_pushed_by_nobody(finish, trained):
    text = TEXT.replace("expand_to: [1.0, 0.5]", "expand_to: [1.0, null]")
    if finish:
        text = text.replace("retrain: {steps: 100, batch_size: 16}", "retrain: {epochs: 6, batch_size: 64}")
    nodes = nodes_of(text + finish + "compare: true\n")
    assert set(nodes) - set(nodes_of(text + finish)) == {
        f"{kind}-{name}" for kind in ("UniformWidths", "Retrainer", "Evaluator") for name in ("uniform-35", "seed")
    }
    for name, target in (("uniform-35", 0.35), ("seed", 1.0)):
        assert nodes[f"UniformWidths-{name}"].exec_properties["target"] == target
        retrainer, evaluator = nodes[f"Retrainer-{name}"], nodes[f"Evaluator-{name}"]
        assert source_of(retrainer.inputs["structure"]) == (f"UniformWidths-{name}", "structure")
        assert trained in retrainer.exec_properties["custom_config"]
        assert source_of(evaluator.inputs["model"]) == (f"Retrainer-{name}", "model")
        assert "baseline_model" not in evaluator.inputs
    order = list(nodes)
    assert order.index("Pusher") < order.index("UniformWidths-uniform-35")
    assert all(order.index(up.id) < order.index(node.id) for node in nodes.values() for up in node.upstream_nodes)


def test_the_network_to_compare_with_costs_what_the_final_one_does():
    nodes = nodes_of(TEXT + "compare: true\n")
    assert nodes["UniformWidths-uniform-50"].exec_properties["target"] == 0.5  # expand_to widens to it
