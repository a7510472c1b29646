"""Parameters of compiled jobs: which there are, what a run is that is told nothing, and where each is laid."""

import json
from pathlib import Path

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.kubeflow import parameters
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.kubeflow.parameters import lay_over
from morph_tfx.pipelines.kubeflow.upload import Job, values_of
from tests.kubeflow.launcher import Cluster
from tests.pipelines.kubeflow.jobs import specs

TEXT = """
name: flowers
data: {format: tfrecord, path: gs://bucket/flowers, splits: {train: "{SPAN}/train/*", eval: "{SPAN}/eval/*"}}
module_file: module.py
label: label
hparams: {learning_rate: 0.003, width: 8}
target: 0.5
cycles: 2
search: {epochs: 20}
retrain: {epochs: 30}
evaluate: {lower_bound: 0.9}
push_to: gs://bucket/serving
kubeflow: {image: x}
"""
IN_PLACE = TEXT.replace("target: 0.5", "target: 0.5\nfinish: in_place")
FRONTIER = TEXT.replace("target: 0.5\ncycles: 2", "budgets: [0.25, 0.5]\nchoose: {max_cost: 0.5}")


def compiled(directory: Path, text: str = TEXT, pipeline="morph", lines: list[str] | None = None) -> Path:
    config = parse_config(text, "config.yaml", directory)
    say = (lines if lines is not None else []).append
    return compile_pipeline(config, directory / "job.yaml", say=say, pipeline=pipeline)


def declared(spec: dict) -> dict:
    return {name: one["defaultValue"] for name, one in spec["root"]["inputDefinitions"]["parameters"].items()}


def properties_of(spec: dict, step: str, **told) -> dict:
    """The execution properties of a step in a run that is told this, before they are laid over each other."""
    values = {**declared(spec), **told}
    given = spec["root"]["dag"]["tasks"][step]["inputs"]["parameters"]
    return {
        name: values[source["componentInputParameter"]]
        if "componentInputParameter" in source
        else source["runtimeValue"]["constant"]
        for name, source in given.items()
    }


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> dict:
    return specs(compiled(tmp_path_factory.mktemp("job")))[0]


@pytest.fixture(scope="module")
def in_place(tmp_path_factory) -> dict:
    return specs(compiled(tmp_path_factory.mktemp("job"), IN_PLACE))[0]


def test_the_defaults_are_the_configuration_s_values(spec):
    assert declared(spec) == {
        "search_epochs": 20,
        "retrain_epochs": 30,
        "learning_rate": 0.003,
        "target": 0.5,
        "push_to": "gs://bucket/serving",
        "span": "",
    }


@pytest.mark.parametrize("job", ["spec", "in_place"])
def test_a_run_that_is_told_nothing_is_the_one_that_was_configured(request, job):
    spec = request.getfixturevalue(job)
    for step, task in spec["root"]["dag"]["tasks"].items():
        if not task.get("inputs", {}).get("parameters"):
            continue
        laid = properties_of(spec, step)
        before = {name: value for name, value in laid.items() if not name.startswith(parameters.PREFIX)}
        lay_over(laid)
        assert laid == before, step


def test_each_parameter_reaches_the_steps_that_it_matters_to(spec):
    told = {
        "search_epochs": 5.0, "retrain_epochs": 60.0, "learning_rate": 0.1, "target": 0.25, "span": "12",
        "push_to": "/mnt/serving",
    }  # fmt: skip

    def laid(step: str) -> dict:
        properties = properties_of(spec, step, **told)
        lay_over(properties)
        return properties

    for step in ("MorphTrainer-1", "MorphTrainer-2"):
        config = json.loads(laid(step)["custom_config"])
        assert (config["epochs"], config["hparams"]) == (5, {"learning_rate": 0.1, "width": 8})
        assert (laid(step)["target"], type(config["epochs"])) == (0.25, int)
    config = json.loads(laid("Retrainer")["custom_config"])
    assert (config["epochs"], config["hparams"]["learning_rate"]) == (60, 0.1)
    assert json.loads(laid("Pusher")["push_destination"])["filesystem"]["base_directory"] == "/mnt/serving"
    span = {"start_span_number": 12, "end_span_number": 12}
    assert json.loads(laid("ImportExampleGen")["range_config"]) == {"static_range": span}


def test_what_trains_to_the_end_in_one_run_takes_both_lengths(in_place):
    properties = properties_of(in_place, "MorphTrainer-2", search_epochs=10, retrain_epochs=30)
    lay_over(properties)
    assert json.loads(properties["custom_config"])["epochs"] == 40
    assert properties["search_fraction"] == 0.25
    first = properties_of(in_place, "MorphTrainer-1", search_epochs=10, retrain_epochs=30)
    lay_over(first)
    assert json.loads(first["custom_config"])["epochs"] == 10


def test_a_retraining_reads_where_it_pushes_to(tmp_path):
    [spec] = specs(compiled(tmp_path, pipeline="retrain"))
    assert set(declared(spec)) == {"retrain_epochs", "learning_rate", "push_to", "span"}
    for step in ("PushedStructure", "Pusher"):
        properties = properties_of(spec, step, push_to="/mnt/other")
        lay_over(properties)
        assert "/mnt/other" in json.dumps(properties) and "gs://bucket/serving" not in json.dumps(properties)


@pytest.mark.parametrize("told", [{}, {"retrain_epochs": 60.0}, {"learning_rate": 0.1}, {"span": "2026-01-31"}])
def test_whether_there_is_news_is_judged_by_what_the_run_was_told(tmp_path, told):
    """Or a run that is told another learning rate would be left out on a night without a new span."""
    [spec] = specs(compiled(tmp_path, pipeline="retrain"))
    laid = {}
    for step in ("PushedStructure", "Retrainer", "ImportExampleGen"):
        laid[step] = properties_of(spec, step, **told)
        lay_over(laid[step])
    judge = laid["PushedStructure"]
    assert json.loads(judge["custom_config"]) == json.loads(laid["Retrainer"]["custom_config"])
    assert judge["input_config"] == laid["ImportExampleGen"]["input_config"]
    assert judge.get("range_config") == laid["ImportExampleGen"].get("range_config")


def test_only_what_has_one_plain_value_is_a_parameter(tmp_path):
    [spec] = specs(compiled(tmp_path, FRONTIER))
    assert set(declared(spec)) == {"search_epochs", "retrain_epochs", "learning_rate", "push_to", "span"}
    plain = TEXT.replace("{SPAN}/", "").replace("{learning_rate: 0.003, width: 8}", "{}").replace("epochs: ", "steps: ")
    [spec] = specs(compiled(tmp_path, plain.replace("target: 0.5", "budget: {flops: 100000}")))
    assert set(declared(spec)) == {"push_to"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("search_epochs", 0, "search_epochs is 0; expected a whole number of at least 1"),
        ("search_epochs", 2.5, "search_epochs is 2.5"),
        ("span", "yesterday", "span is 'yesterday'; expected a number, or a date such as 2026-01-31"),
        ("push_to", "", "push_to is ''; expected a directory on a volume"),
        ("push_to", "minio://bucket/serving", "minio:// is for Kubeflow's launcher alone"),
    ],
)
def test_what_no_step_can_use_is_one_message(name, value, said):
    with pytest.raises(MorphError, match=said):
        lay_over({parameters.PREFIX + name: value})


def test_a_date_is_the_span_of_that_day():
    from tfx.components.example_gen import utils

    properties = {"run_span": "2026-01-31"}
    lay_over(properties)
    number = json.loads(properties["range_config"])["static_range"]["start_span_number"]
    assert number == utils.date_to_span_number(2026, 1, 31)


def test_the_reader_of_a_job_is_told_of_them(tmp_path):
    lines: list[str] = []
    compiled(tmp_path, lines=lines)
    text = "\n".join(lines)
    assert "--parameter NAME=VALUE: search_epochs (20), retrain_epochs (30), learning_rate (0.003)" in text
    assert "span (the newest)" in text


def test_values_have_the_types_that_the_job_declares(tmp_path):
    job = Job.load(compiled(tmp_path))
    given = ["retrain_epochs=60", "target=0.25", "span=12", "push_to=gs://a=b/c"]
    assert values_of(job, given) == {"retrain_epochs": 60, "target": 0.25, "span": "12", "push_to": "gs://a=b/c"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("retrain_epoch=60", "did you mean retrain_epochs"),
        ("retrain_epochs", "expected NAME=VALUE"),
        ("retrain_epochs=many", "--parameter retrain_epochs: expected a whole number, got 'many'"),
        ("target=nan", "--parameter target: expected a number, got 'nan'"),
    ],
)
def test_what_the_job_does_not_know_is_refused_before_anything_is_sent(tmp_path, given, said):
    with pytest.raises(MorphError, match=said):
        values_of(Job.load(compiled(tmp_path)), [given])


def test_a_target_above_what_the_searches_widen_to_is_refused_as_in_a_configuration(tmp_path):
    job = Job.load(compiled(tmp_path, TEXT.replace("target: 0.5", "target: 0.5\nexpand_to: 0.6")))
    assert values_of(job, ["target=0.6"]) == {"target": 0.6}
    for target in ("0.7", "0", "-1"):
        with pytest.raises(
            MorphError, match=r"above 0 and at most 0\.6: the job widens each structure to that \(expand_to"
        ):
            values_of(job, [f"target={target}"])


@pytest.mark.parametrize("release", ["2.14.3", "2.17.0"])
def test_kubeflow_hands_a_step_the_default_or_what_the_run_was_told(tmp_path, release):
    """The driver resolves them; that the entrypoint lays them over is another test's subject."""
    cluster = Cluster(tmp_path / "cluster", release=release)
    job = compiled(tmp_path)
    spec = specs(job)[0]
    spec["root"]["dag"]["tasks"] = {
        name: {**task, "inputs": {"parameters": task["inputs"]["parameters"]}, "dependentTasks": []}
        for name, task in spec["root"]["dag"]["tasks"].items()
        if name == "ImportExampleGen"
    }
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"] = {"image": "x", "command": ["echo"], "args": ["{{$}}"]}
    job.write_text(json.dumps(spec))
    for told, expected in (({}, ""), ({"span": "7"}, "7")):
        run = cluster.run(job, told)
        assert json.loads(run.tasks["ImportExampleGen"].log)["inputs"]["parameterValues"]["run_span"] == expected
