"""The configuration: what a file means, and what every mistake in one is answered with."""

import re
import textwrap

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config.config import load_config, parse_config
from morph_tfx.pipelines.config.starter import template

GOOD = """
name: digits
data: {format: tfrecord, path: data, splits: {train: train/*, eval: eval/*}}
module_file: module.py
label: label
target: 0.5
search: {epochs: 3}
retrain: {steps: 100, batch_size: 16}
evaluate: {lower_bound: 0.9}
"""


def config_of(*changes: str, text: str = GOOD):
    """The good configuration with top-level lines replaced or added; 'key:' alone removes the key."""
    lines = dict(line.split(":", 1) for line in text.strip().splitlines())
    for change in changes:
        key, value = change.split(":", 1)
        lines.pop(key, None)
        if value:
            lines[key] = value
    return parse_config("\n".join(f"{key}:{value}" for key, value in lines.items()), "config.yaml", "/base")


def error_of(*changes: str) -> str:
    with pytest.raises(MorphError) as caught:
        config_of(*changes)
    return str(caught.value)


def test_relative_paths_start_at_the_file_and_uris_stay(tmp_path):
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "config.yaml").write_text(GOOD + "push_to: gs://bucket/serving\nmetadata: /var/metadata.sqlite\n")
    config = load_config(directory / "config.yaml")
    assert config.data.path == str(directory / "data")
    assert config.module_file == str(directory / "module.py")
    assert config.pipeline_root == str(directory / "pipeline_root")
    assert config.push_to == "gs://bucket/serving"
    assert config.metadata == "/var/metadata.sqlite"


def test_the_annotated_example_and_the_demo_are_valid():
    assert parse_config(template("config.yaml"), "config.yaml", "/base").expansions == (1.0, None)
    assert parse_config(template("digits.yaml"), "digits.yaml", "/base").expansions == (0.5, 0.5)


def test_the_annotated_example_is_valid_with_every_comment_taken_away():
    """What is commented out there is an offer, so it has to work. Alternatives cannot all be taken at once."""
    alternatives = (
        r"(expand_to|budgets?|choose|strength|distribution|mixed_precision):|beam: \{runner: (dataflow|flink|spark)"
    )
    offer = re.compile(rf'^# (?= *("\*"|[A-Za-z_]+(-\d)?):| *- \{{)(?! *({alternatives}))')
    text = "\n".join(offer.sub("", line) for line in template("config.yaml").splitlines())
    config = parse_config(text, "config.yaml", "/base")
    assert config.kubeflow is not None
    assert config.kubeflow.accelerator is not None
    assert config.kubeflow.accelerator.count == 1
    search = config.kubeflow.settings_of("MorphTrainer-2", "MorphTrainer")
    assert (search.accelerator.count, search.shared_memory, search.memory) == (2, "2Gi", "32Gi")
    assert config.transform_module_file == "/base/preprocessing.py"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), (None,)),
        (("cycles: 3",), (1.0, 1.0, None)),
        (("cycles: 2", "expand_to: 0.8"), (0.8, 0.8)),
        (("cycles: 2", "expand_to: [1.2, null]"), (1.2, None)),
        (("cycles: 2", "expand_to: [0.9, 0.5]"), (0.9, 0.5)),
        (("target:", "budget: 1e6", "cycles: 2"), (1.0, None)),
    ],
)
def test_expansions_has_one_value_for_each_cycle(changes, expected):
    assert config_of(*changes).expansions == expected


def test_numbers_in_exponent_notation_are_numbers():
    assert config_of("target:", "strength: 1e-3").strength == pytest.approx(1e-3)


def test_goals_widths_and_floors_may_be_given_by_name():
    config = config_of("target: {flops: 0.5, params: 0.6}", "multiple_of: {conv_1: 8}", "min_channels: 4")
    assert config.target == {"flops": 0.5, "params": 0.6}
    assert config.multiple_of == {"conv_1": 8}
    assert config.min_channels == 4
    assert config_of("strength: 1e-3").strength == pytest.approx(1e-3)  # beside a target: where the price starts
    assert config_of("target:", "cost: latency:v100", "budget: {latency_ms: 3, params: 1e4}").budget == {
        "latency_ms": 3,
        "params": 1e4,
    }


def test_a_retraining_may_start_from_the_weights_that_the_last_search_keeps():
    config = config_of("cycles: 2", "search: {epochs: 3, keep_weights: true}", "retrain: {epochs: 3, warm_start: true}")
    assert (config.search.keep_weights, config.retrain.warm_start) == (True, True)
    assert (config_of().search.keep_weights, config_of().retrain.warm_start) == (False, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["retrain: {epochs: 3, warm_start: true}"], "retrain.warm_start: .* because search.keep_weights is not true"),
        (
            ["expand_to: 0.6", "search: {epochs: 3, keep_weights: true}"],
            "search.keep_weights: expand_to widens the last structure to 0.6 of the seed's cost, and nobody trained",
        ),
        (
            ["cycles: 2", "expand_to: [1.0, 0.8]", "search: {epochs: 3, keep_weights: true}"],
            "search.keep_weights: .* null be the last value of its list",
        ),
        (
            [
                "target:", "budgets: [0.25, 0.5]", "choose: {min_accuracy: 0.9}",
                "search: {epochs: 3, keep_weights: true}", "retrain: {epochs: 3, warm_start: true}",
            ],
            "retrain.warm_start: with 'budgets' learned networks are compared",
        ),
        (["search: {epochs: 3, warm_start: true}"], "search.warm_start: unknown key; .* keep_weights"),
        (["retrain: {epochs: 3, keep_weights: true}"], "retrain.keep_weights: unknown key; .* warm_start"),
    ],
)  # fmt: skip
def test_weights_that_nobody_keeps_or_trained_are_refused_by_name(changes, said):
    with pytest.raises(MorphError, match=said):
        config_of(*changes)


def test_the_file_with_the_preprocessing_is_the_module_file_unless_named():
    assert config_of().preprocessing_file == "/base/module.py"
    assert config_of("transform_module_file: prep.py").preprocessing_file == "/base/prep.py"


def test_patterns_of_spans_are_kept_as_they_are_and_a_structure_is_looked_for_beside_the_file():
    config = config_of(
        'data: {format: csv, path: d, eval_fraction: 0.2, pattern: "day-{YYYY}-{MM}-{DD}/*"}',
        "retrain_pipeline: {structure: best/structure.json}",
    )
    assert config.data.patterns == {"all": "day-{YYYY}-{MM}-{DD}/*"}
    assert config.data.has_spans
    assert not config_of().data.has_spans
    assert config.retrain_pipeline.structure == "/base/best/structure.json"
    assert config.pipeline_names == ("digits", "digits-retrain")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("targt: 0.4",), ["targt: unknown key", "did you mean 'target'?"]),
        (("search: {epoch: 3}",), ["search.epoch: unknown key; did you mean 'epochs'?", "epochs, steps, batch_size"]),
        (
            ("kubeflow: {image: x, accelerator: {cout: 2}}",),
            ["kubeflow.accelerator.cout: unknown key; did you mean 'c"],
        ),
        (("name: My Pipeline",), ["name: expected text that matches", "'My Pipeline'", "lower-case"]),
        (("label:",), ["label: missing", "name of the label", "For example: label: label"]),
        (("data: {format: parquet, path: d, eval_fraction: 0.2}",), ["data.format: expected 'tfrecord' or 'csv'"]),
        (("data: {format: csv, path: data}",), ["data: exactly one of 'splits'", "got neither"]),
        (("data: {format: csv, path: d, splits: {train: a}}",), ["data: 'splits' names 'train'", "'train' and 'eval'"]),
        (
            ('data: {format: csv, path: d, splits: {train: "t-{SPN}", eval: "e-{SPN}"}}',),
            ["data: the pattern of 'train', t-{SPN}, has an unknown placeholder {SPN}"],
        ),
        (
            ('data: {format: csv, path: d, splits: {train: "t-{SPAN}", eval: "e-{YYYY}{MM}{DD}"}}',),
            ["data: the splits have different placeholders (train: {SPAN}; eval: {YYYY}, {MM}, {DD})"],
        ),
        (("data: {format: csv, path: d, splits: {train: t, eval: e}, pattern: x}",), ["'pattern' goes with 'eval_fr"]),
        (("retrain_pipeline: {structur: x}",), ["retrain_pipeline.structur: unknown key; did you mean 'structure'?"]),
        (("data: {format: csv, path: d, eval_fraction: 1.5}",), ["data.eval_fraction: expected less than 1, got 1.5"]),
        (("target: 1.5",), ["target: expected less than or equal to 1, got 1.5", "fraction of the seed's cost"]),
        (("target: 0",), ["target: expected greater than 0, got 0"]),
        (("target:",), ["exactly one of 'target', 'budget', 'budgets' and (fixed) 'strength' is expected, got none"]),
        (("budget: 100",), ["exactly one of 'target', 'budget',", "got target and budget"]),
        (("target: {flops: 0.5, params: 1.5}",), ["target: expected less than or equal to 1, got 1.5"]),
        (("target: {flops: 0.5, parms: 0.5}",), ["target: Unknown cost 'parms'. Did you mean 'params'?"]),
        (("target: {}",), ["target: target names no cost"]),
        (("target:", "budget: {latency_ms: 3}"), ["budget: budget names 'latency_ms', but not the device"]),
        (("multiple_of: 0",), ["multiple_of: expected greater than or equal to 1, got 0"]),
        (("multiple_of: 2.5",), ["multiple_of: expected a valid integer, got 2.5"]),
        (("min_channels: {conv_1: some}",), ["min_channels: expected a valid integer, got 'some'"]),
        (("target: {flops: 0.5, params: 0.6}", "expand_to: 0.55"), ["expand_to: 0.55 is not above target (0.6)"]),
        (("target:", "budgets: [0.5]"), ["'budgets' and 'choose' belong together"]),
        (("choose: {max_cost: 0.5}",), ["'budgets' and 'choose' belong together"]),
        (("target:", "budgets: [0.5]", "choose: {}"), ["choose: exactly one of 'min_accuracy'", "got neither"]),
        (("target:", "budgets: [1.5]", "choose: {max_cost: 1}"), ["budgets: 1 to 20 different fractions", "[1.5]"]),
        (("target:", "budgets: [0.5, 0.5]", "choose: {max_cost: 1}"), ["budgets: 1 to 20 different fractions"]),
        (("target:", "budgets: [0.5]", "choose: {max_cost: 0.4}"), ["choose.max_cost: 0.4 is below the smallest"]),
        (("target:", "budgets: [0.5]", "choose: {max_cost: 1}", "expand_to: 0.7"), ["leave expand_to out"]),
        (("cost: flop",), ["cost: Unknown cost 'flop'. Did you mean 'flops'?", "'flops', 'params'"]),
        (("gate: gama",), ["gate: Unknown gate 'gama'. Did you mean 'gamma'?", "'auto', 'fisher', 'gamma', "]),
        (("cycles: 0",), ["cycles: expected greater than or equal to 1, got 0"]),
        (("expand_to: 0.4",), ["expand_to: 0.4 is not above target (0.5)", "Raise expand_to or lower target"]),
        (("cycles: 2", "expand_to: 0.5"), ["expand_to: 0.5 is not above target (0.5), so cycle 1 of 2"]),
        (("cycles: 2", "expand_to: [1.0]"), ["expand_to: a list needs one value for each of the 2 cycles, got 1"]),
        (
            ("cycles: 2", "expand_to: [null, 1.0]"),
            ["expand_to: cycle 1 of 2 would leave the next one nothing to shrink"],
        ),
        (("expand_to: lots",), ["expand_to: expected a valid number", "got 'lots'"]),
        (("expand_to: -1", "target:", "budget: 10"), ["expand_to: a fraction above 0", "got -1"]),
        (("search: {epochs: 3, steps: 4}",), ["search: exactly one of 'epochs' and 'steps' is expected, got both"]),
        (
            ("search: {epochs: 3, distribution: {strategy: mirror}}",),
            ["search.distribution.strategy: expected 'mirrored', 'multi_worker_mirrored' or 'tpu', got 'mirror'"],
        ),
        (
            ("search: {epochs: 3, distribution: {strategy: tpu, devices: [TPU:0]}}",),
            ["search.distribution: 'devices' goes with strategy mirrored only"],
        ),
        (("retrain: {}",), ["retrain: exactly one of 'epochs' and 'steps' is expected, got neither"]),
        (("evaluate: {}",), ["evaluate: exactly one of 'lower_bound'", "got neither"]),
        (("kubeflow: {cpu: 4}",), ["kubeflow.image: missing", "container image"]),
        (("kubeflow: {image: x, module_dir: modules}",), ["kubeflow.module_dir: expected text that matches"]),
    ],
)
def test_every_mistake_is_named_with_what_was_expected(changes, parts):
    message = error_of(*changes)
    assert message.startswith("config.yaml: 1 problem\n")
    for part in parts:
        assert part in message


def test_all_mistakes_are_reported_together():
    message = error_of("targt: 1", "cycles: 0", "label:")
    assert message.startswith("config.yaml: 3 problems\n")
    assert len(message.splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: [", ["config.yaml, line 1", "not valid YAML"]),
        ("name: a\nname: b", ["config.yaml, line 2, column 1", "the key 'name' is given twice"]),
        ("- a\n- b", ["expected a mapping of keys", "got list", "morph-tfx init"]),
        ("", ["expected a mapping of keys", "got NoneType"]),
        ("name: !!python/object/apply:os.system [ls]", ["not valid YAML", "could not determine a constructor"]),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text, parts):
    with pytest.raises(MorphError) as caught:
        parse_config(textwrap.dedent(text), "config.yaml", "/base")
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(MorphError, match=r"nowhere.yaml cannot be read: No such file.*morph-tfx init DIR"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MorphError, match="cannot be read"):
        load_config(tmp_path / "config.yaml")


def test_a_configuration_cannot_be_changed():
    config = config_of()
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"
