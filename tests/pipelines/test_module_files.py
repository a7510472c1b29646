"""Module files are copied under a name that is their content."""

import os
import sys
from pathlib import Path

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.module_files import importable, staged, without_wheels

TEXT = """
name: x
data: {format: csv, path: data, eval_fraction: 0.2}
module_file: module.py
label: y
target: 0.5
search: {epochs: 1}
retrain: {epochs: 1}
evaluate: {lower_bound: 0}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "module.py").write_text("VALUE = 1\n")
    (tmp_path / "neighbour.py").write_text("OTHER = 2\n")
    return parse_config(TEXT, "config.yaml", tmp_path)


def test_the_copy_has_the_content_and_the_neighbours(config, tmp_path):
    copy = staged(config).module_file
    assert copy.startswith(str(tmp_path / "pipeline_root"))
    assert Path(copy).read_text() == "VALUE = 1\n"
    assert sorted(os.listdir(os.path.dirname(copy))) == ["module.py", "neighbour.py"]


def test_the_same_content_has_the_same_name_and_other_content_another(config, tmp_path):
    first = staged(config).module_file
    assert staged(config).module_file == first
    (tmp_path / "neighbour.py").write_text("OTHER = 3\n")
    second = staged(config).module_file
    assert second != first
    assert os.path.exists(first)


def test_a_module_can_import_its_neighbour_and_the_path_is_clean_afterwards(config):
    before = list(sys.path)
    with importable(staged(config).module_file):
        import neighbour  # pyright: ignore[reportMissingImports]

        assert neighbour.OTHER == 2
    assert sys.path == before


def test_a_missing_module_file_is_named_by_its_key(config, tmp_path):
    (tmp_path / "module.py").unlink()
    with pytest.raises(MorphError, match=r"module_file: .*module.py is not there. Expected the .py file"):
        staged(config)


def test_wheels_are_switched_off_inside_only(monkeypatch):
    name = "UNSUPPORTED_DO_NOT_PACKAGE_USER_MODULES"
    monkeypatch.delenv(name, raising=False)
    with without_wheels():
        assert os.environ[name] == "1"
    assert name not in os.environ
