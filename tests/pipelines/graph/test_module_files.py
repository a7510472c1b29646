"""Module files are copied under a name that is their content."""

import os
import sys
from pathlib import Path

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.graph.module_files import check_functions, importable, staged, without_wheels

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


GOOD = "def build_model(hparams): ...\nfrom neighbour import OTHER as input_fn\npreprocessing_fn = None\n"


def test_functions_may_be_defined_imported_or_assigned(config, tmp_path):
    (tmp_path / "module.py").write_text(GOOD)
    check_functions(config)
    (tmp_path / "module.py").write_text("from neighbour import *\n")
    check_functions(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("build_model", "bild_model"), r"module.py defines no build_model\. Did you mean bild_model\?"),
        (GOOD.replace("preprocessing_fn", "x"), r"no preprocessing_fn.* or name the file .* as transform_module_file"),
        ("def build_model(:\n", r"module_file: .*module.py, line 1: not valid Python"),
    ],
)
def test_a_missing_function_is_found_without_running_the_file(config, tmp_path, text, message):
    (tmp_path / "module.py").write_text(text + "raise SystemExit\n")
    with pytest.raises(MorphError, match=message):
        check_functions(config)


def test_preprocessing_may_lie_in_its_own_file(config, tmp_path):
    (tmp_path / "module.py").write_text(GOOD.replace("preprocessing_fn", "x"))
    (tmp_path / "prep.py").write_text("def preprocessing_fn(inputs): ...\n")
    check_functions(config.model_copy(update={"transform_module_file": str(tmp_path / "prep.py")}))
