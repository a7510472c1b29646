"""What the wheel and the source distribution hold, built from a copy of the checkout without fetching anything."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from tests.packaging.source import LAYERS, ROOT

TOP = ("BUILD", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "MODULE.bazel", "Makefile", "README.md", "WORKSPACE")
SETTINGS = ("pyproject.toml", "setup.py", "conftest.py", "uv.lock", ".bazelignore", ".python-version")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("distributions")
    copy = folder / "checkout"
    for name in (*LAYERS, "tests", "tools"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*TOP, *SETTINGS):
        shutil.copy(ROOT / name, copy / name)
    for build in ("build_wheel", "build_sdist"):
        code = f"from setuptools import build_meta; build_meta.{build}({str(folder)!r})"
        result = subprocess.run([sys.executable, "-c", code], cwd=copy, text=True, capture_output=True)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> zipfile.ZipFile:
    (path,) = distributions.glob("*.whl")
    return zipfile.ZipFile(path)


def files_of(folder: str, *patterns: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / folder).rglob(pattern)}


def installed(name: str) -> str:
    """Where a file of the checkout lies in the wheel."""
    layer, _, rest = name.partition("/")
    return f"{LAYERS[layer].replace('.', '/')}/{rest}"


def test_the_wheel_holds_two_names_at_top_level(wheel: zipfile.ZipFile):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"morph_core", "morph_tfx"}
    assert len(tops) == 3


def test_the_wheel_holds_every_module_and_what_it_reads_and_nothing_else(wheel: zipfile.ZipFile):
    expected = {
        *files_of("morph_core", "*.py", "py.typed", "*.j2"),
        *files_of("components", "*.py", "py.typed"),
        *files_of("pipelines", "*.py", "py.typed", "templates/*.yaml"),
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == {installed(name) for name in expected}
    assert {f"{name.replace('.', '/')}/py.typed" for name in LAYERS.values()} <= held


def test_morph_tfx_is_a_namespace_that_others_could_share(wheel: zipfile.ZipFile):
    assert "morph_tfx/__init__.py" not in wheel.namelist()


def test_the_wheel_carries_the_licence_and_the_command(wheel: zipfile.ZipFile):
    (licence,) = (name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    (scripts,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert wheel.read(scripts).decode().split() == "[console_scripts] morph-tfx = morph_tfx.pipelines.cli:main".split()


def test_the_core_requires_keras_and_numpy_only(wheel: zipfile.ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    assert metadata["Name"] == "morph-tfx"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"kubeflow", "tfx"} <= set(metadata.get_all("Provides-Extra") or [])
    assert {text.partition(">")[0] for text in requirements if "extra ==" not in text} == {"keras", "numpy"}


def test_the_wheel_works_where_it_is_unpacked(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import importlib.util
for name in ("morph_core", "morph_core.graph", "morph_tfx.components", "morph_tfx.pipelines"):
    print(importlib.util.find_spec(name).origin)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd="/", text=True, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        str(tmp_path / name)
        for name in (
            "morph_core/__init__.py",
            "morph_core/graph.py",
            "morph_tfx/components/__init__.py",
            "morph_tfx/pipelines/__init__.py",
        )
    ]


def test_the_source_distribution_holds_the_sources_their_tests_and_their_tools(distributions: Path):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    sources = {name for layer in LAYERS for name in files_of(layer, "*.py", "py.typed", "BUILD", "*.j2", "*.yaml")}
    assert sources | files_of("tests", "*.py", "BUILD") <= held
    assert {*TOP, *SETTINGS, "tools/setup.sh", "tools/fetch_uv.py"} <= held
    assert [name for name in held if "__pycache__" in name or name.startswith("tools/import_names")] == []
