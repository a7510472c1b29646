"""Paths start at the configuration file, and remote addresses are left alone."""

from morph_tfx.pipelines.config import load_config
from tests.pipelines.config.sample import GOOD


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
