"""The pipeline with all Beam steps in several processes: Evaluator, too, which the demo itself keeps out of them."""

import pytest
import yaml

from morph_tfx.pipelines.config import load_config
from morph_tfx.pipelines.local import demo
from morph_tfx.pipelines.local.runner import run_pipeline

SETTINGS = {
    "hparams": {"widths": [8, 8], "learning_rate": 0.003},
    "cycles": 1,
    "search": {"epochs": 1, "batch_size": 64},
    "retrain": {"epochs": 1, "batch_size": 64},
    "evaluate": {"lower_bound": 0.0},
    "beam": {"runner": "direct", "workers": 2},
}


@pytest.mark.slow  # each data step starts two processes that import TFX
def test_the_digits_go_through_in_two_processes_for_each_beam_step(tmp_path):
    config_file = demo.prepare(tmp_path)
    config_file.write_text(yaml.safe_dump({**yaml.safe_load(config_file.read_text()), **SETTINGS}))
    result = run_pipeline(load_config(config_file), say=lambda line: None)
    assert result.blessed
    assert result.pushed_model is not None
