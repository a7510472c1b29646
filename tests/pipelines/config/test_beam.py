"""Beam runners of the configuration: what Beam itself makes of their arguments, and what is refused."""

import pytest
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import runner

from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.config.starter import template
from tests.pipelines.config.sample import config_of, expect_refusal

DATAFLOW = "{runner: dataflow, project: my-project, region: europe-west1, temp_location: gs://bucket/tmp, workers: 20}"


def options(*lines: str) -> pipeline_options.PipelineOptions:
    """What Beam reads; an argument that it does not know ends the test."""
    arguments = list(config_of(*lines).beam_pipeline_args)
    found = pipeline_options.PipelineOptions(arguments)
    known = {f"--{name}" for name in found.get_all_options(add_extra_args_fn=None)}
    assert {argument.partition("=")[0] for argument in arguments} <= known
    return found


def test_without_a_word_the_data_steps_run_in_one_process():
    expected = ("--direct_running_mode=in_memory", "--direct_num_workers=1")
    said = config_of("beam: {runner: direct, workers: 1}")
    assert config_of().beam_pipeline_args == said.beam_pipeline_args == expected


@pytest.mark.parametrize("workers", [0, 4])
def test_several_workers_of_the_direct_runner_are_processes(workers):
    direct = options(f"beam: {{runner: direct, workers: {workers}}}").view_as(pipeline_options.DirectOptions)
    assert (direct.direct_running_mode, direct.direct_num_workers) == ("multi_processing", workers)


@pytest.mark.thorough
def test_dataflow_gets_what_beams_own_validator_asks_for():
    found = options(f"beam: {DATAFLOW}")
    cloud = found.view_as(pipeline_options.GoogleCloudOptions)
    assert (cloud.project, cloud.region, cloud.temp_location) == ("my-project", "europe-west1", "gs://bucket/tmp")
    assert found.view_as(pipeline_options.WorkerOptions).max_num_workers == 20
    assert found.view_as(pipeline_options.StandardOptions).runner == "DataflowRunner"
    cloud.job_name = "job"
    assert PipelineOptionsValidator(found, runner.create_runner("DataflowRunner")).validate() == []


def test_flink_and_spark_get_their_masters_and_workers():
    workers = "environment_type: EXTERNAL, environment_config: 'pool:50000'"
    flink = options(f"beam: {{runner: flink, flink_master: 'flink:8081', parallelism: 8, {workers}}}")
    assert flink.view_as(pipeline_options.StandardOptions).runner == "FlinkRunner"
    assert flink.view_as(pipeline_options.FlinkRunnerOptions).flink_master == "flink:8081"
    portable = flink.view_as(pipeline_options.PortableOptions)
    assert (portable.environment_type, portable.environment_config) == ("EXTERNAL", "pool:50000")
    spark = options("beam: {runner: spark, spark_master_url: 'spark://spark:7077'}")
    assert spark.view_as(pipeline_options.StandardOptions).runner == "SparkRunner"
    assert spark.view_as(pipeline_options.SparkRunnerOptions).spark_master_url == "spark://spark:7077"


def test_what_calls_the_users_module_stays_on_its_machine():
    """The last of two arguments counts, for Beam as for us; Transform's own come after the pipeline's."""
    found = config_of(f"beam: {DATAFLOW}")
    arguments = [*found.beam_pipeline_args, *found.beam.arguments_of("Transform")]
    direct = pipeline_options.PipelineOptions(arguments)
    assert direct.view_as(pipeline_options.StandardOptions).runner == "DirectRunner"
    assert direct.view_as(pipeline_options.DirectOptions).direct_running_mode == "multi_threading"


SEVERAL = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
ALONE = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]


@pytest.mark.parametrize(
    "beam", [DATAFLOW, "{runner: spark, spark_master_url: 'spark://s:1'}", "{runner: direct, workers: 0}"]
)
def test_one_process_is_one_process_with_every_runner(beam):
    found = config_of(f"beam: {beam[:-1]}, in_process: [Evaluator]}}").beam
    of_evaluator = pipeline_options.PipelineOptions([*found.arguments, *found.arguments_of("Evaluator")])
    assert of_evaluator.view_as(pipeline_options.StandardOptions).runner == "DirectRunner"
    direct = of_evaluator.view_as(pipeline_options.DirectOptions)
    assert (direct.direct_running_mode, direct.direct_num_workers) == ("in_memory", 1)
    assert found.arguments_of("StatisticsGen") == ()


def test_the_demos_data_steps_have_two_processes_and_its_evaluator_one():
    beam = parse_config(template("digits.yaml"), "digits.yaml", "/base").beam
    assert list(beam.arguments) == SEVERAL
    assert {beam.arguments_of(component) for component in ("ImportExampleGen", "StatisticsGen", "Transform")} == {()}
    assert list(beam.arguments_of("Evaluator")) == ALONE


def test_further_arguments_come_last():
    found = options("beam: {runner: direct, workers: 2}", "beam_args: [--direct_num_workers=3]")
    assert found.view_as(pipeline_options.DirectOptions).direct_num_workers == 3


@pytest.mark.parametrize(
    ("beam", "parts"),
    [
        ("{}", ["beam.runner: missing"]),
        ("{runner: samza}", ["beam.runner: expected 'direct', 'dataflow', 'flink' or 'spark', got 'samza'"]),
        (
            "{runner: dataflow}",
            ["beam: runner dataflow needs 'project', 'region', 'temp_location'", "project: my-proj"],
        ),
        (
            "{runner: dataflow, project: p, region: r, temp_location: /tmp/x}",
            ["beam.temp_location: expected text that"],
        ),
        (DATAFLOW.replace("20", "0"), ["beam: workers: 0 means one process per core, with runner direct only"]),
        ("{runner: flink}", ["beam: runner flink needs 'flink_master'. For example: flink_master: flink:8081"]),
        ("{runner: flink, flink_master: flink}", ["beam.flink_master: expected text that matches"]),
        ("{runner: spark}", ["beam: runner spark needs 'spark_master_url'"]),
        ("{runner: direct, region: r}", ["beam: 'region' is an option of dataflow, not of runner direct"]),
        (
            "{runner: direct, parallelism: 2}",
            ["beam: 'parallelism' is an option of flink and spark, not of runner dir"],
        ),
        (
            "{runner: flink, flink_master: 'f:1', environment_type: DOCKER}",
            ["beam: environment_type DOCKER needs 'environment_config'"],
        ),
        (
            "{runner: flink, flink_master: 'f:1', environment_config: 'pool:1'}",
            ["beam: 'environment_config' needs environment_type DOCKER, PROCESS or EXTERNAL"],
        ),
        (
            "{runner: direct, workers: 2, in_process: [Evalator]}",
            [
                "beam.in_process: expected 'ImportExampleGen', 'CsvExampleGen', 'StatisticsGen', 'Transform' or "
                "'Evaluator', got 'Evalator'",
            ],
        ),
        (
            "{runner: direct, workers: 2, in_process: Evaluator}",
            ["beam.in_process: expected a valid tuple, got 'Evaluator'", "For example: in_process: [Evaluator]"],
        ),
        (
            "{runner: direct, workers: 2, in_process: [CsvExampleGen]}",
            ["beam.in_process: there is no CsvExampleGen, since data.format is tfrecord; it is ImportExampleGen that"],
        ),
        ("{runner: direct, wokers: 2}", ["beam.wokers: unknown key; did you mean 'workers'?"]),
    ],
)
def test_what_a_runner_cannot_use_or_cannot_do_without_is_refused(beam, parts):
    expect_refusal([f"beam: {beam}"], parts)
