"""What Beam's worker processes on this machine can import of a module file while Transform runs."""

import os
import subprocess
import sys

import pytest
from tfx.utils import import_utils

from morph_tfx.pipelines.graph.transform import importable_in_workers


@pytest.fixture
def module(tmp_path, request, monkeypatch) -> str:
    """A module file with a neighbour, and one that is called like a library."""
    neighbour = f"neighbour_of_{request.node.name}"
    (tmp_path / f"{neighbour}.py").write_text("VALUE = 7\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('not the library')\n")
    (tmp_path / "module.py").write_text(
        f"import json\nimport {neighbour}\n\n\ndef preprocessing_fn(inputs):\n"
        f"    return json.dumps([inputs, {neighbour}.VALUE])\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # as a local run has it
    return str(tmp_path / "module.py")


def started(code: str) -> str:
    """What a process started from here prints, without what this one has on its path alone."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_worker_imports_the_module_by_tfxs_name_with_its_neighbours_and_the_libraries(module):
    before = os.environ.get("PYTHONPATH")
    with importable_in_workers(module):
        name = import_utils.import_func_from_source(module, "preprocessing_fn").__module__
        assert name.startswith("user_module_")
        assert started(f"import {name}; print({name}.preprocessing_fn(5))") == "[5, 7]"
    assert os.environ.get("PYTHONPATH") == before
    with pytest.raises(subprocess.CalledProcessError):
        started(f"import {name}")


def test_what_fails_while_a_worker_ends_is_not_told_and_what_fails_before_is(module):
    """As TensorFlow's functions do, whose modules are gone before them."""
    code = """
class Outlives:
    def __del__(self):
        raise TypeError(self.when)
one, other = Outlives(), Outlives()
one.when, other.when = "earlier", "at the end"
del one
"""
    command = [sys.executable, "-c", code]
    assert "at the end" in subprocess.run(command, check=True, capture_output=True, text=True).stderr
    with importable_in_workers(module):
        told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert "TypeError: earlier" in told and "at the end" not in told


def test_the_path_that_was_there_stays_behind_and_comes_back(module, monkeypatch, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "further.py").write_text("VALUE = 3\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    with importable_in_workers(module):
        assert started("import further; print(further.VALUE)") == "3"
    assert os.environ["PYTHONPATH"] == str(tmp_path / "more")
