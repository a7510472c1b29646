"""Module files: a function that is missing is found without running them, and TFX leaves them as they are."""

import os

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.graph.module_files import check_functions, without_wheels


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
