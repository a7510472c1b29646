"""What all pipelines do alike: each Beam step is told where it runs."""

import pytest

from morph_tfx.pipelines.config import PipelineConfig
from morph_tfx.pipelines.graph.module_files import without_wheels
from morph_tfx.pipelines.graph.morph_pipeline import morph_pipeline
from morph_tfx.pipelines.graph.retrain_pipeline import retrain_pipeline
from tests.pipelines.config.sample import config_of

SEVERAL = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
ALONE = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]


def nodes_of(build, config: PipelineConfig) -> dict[str, list[str]]:
    """The arguments that TFX has for Beam, by node id, of those that run it."""
    with without_wheels():
        nodes = build(config).components
    return {
        node.id: spec.beam_pipeline_args for node in nodes if hasattr(spec := node.executor_spec, "beam_pipeline_args")
    }


def test_the_pipelines_beam_steps_get_the_arguments_of_the_configuration():
    of = nodes_of(morph_pipeline, config_of("beam: {runner: direct, workers: 2}"))
    assert of == {
        "ImportExampleGen": SEVERAL,
        "StatisticsGen": SEVERAL,
        "Transform": SEVERAL,
        "Evaluator": SEVERAL,
    }


@pytest.mark.parametrize("kind", ["morph", "budgets", "retrain"])
def test_what_is_named_stays_in_one_process_in_every_pipeline(kind):
    lines = ["beam: {runner: direct, workers: 2, in_process: [Evaluator, StatisticsGen]}"]
    if kind == "budgets":
        lines += ["target:", "budgets: [0.25, 0.5]", "choose: {min_accuracy: 0.9}"]
    build = retrain_pipeline if kind == "retrain" else morph_pipeline
    of = nodes_of(build, config_of(*lines))
    branches = ["-25", "-50", "-uniform-25", "-uniform-50", "-seed"] if kind == "budgets" else [""]
    alone = {node: [*SEVERAL, *ALONE] for node in ["StatisticsGen", *(f"Evaluator{branch}" for branch in branches)]}
    assert of == {"ImportExampleGen": SEVERAL, "Transform": SEVERAL, **alone}
