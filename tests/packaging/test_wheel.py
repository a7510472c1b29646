"""What the wheel and the source distribution hold, built from a copy of the checkout without fetching anything."""

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from tests.packaging.source import LAYERS, ROOT, SETTINGS, TOP


@pytest.fixture(scope="module")
def wheel(distributions: dict[str, Path]) -> zipfile.ZipFile:
    return zipfile.ZipFile(distributions["wheel"])


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


def test_the_wheel_holds_every_file_of_the_layers_and_nothing_else(wheel: zipfile.ZipFile):
    files = {
        str(path.relative_to(ROOT))
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*")
        if path.is_file() and path.name != "BUILD" and path.suffix != ".pyc"
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == {installed(name) for name in files}


@pytest.mark.parametrize(
    "name",
    [
        "morph_core/py.typed",
        "morph_core/report/templates/report.html.j2",
        "morph_tfx/components/py.typed",
        "morph_tfx/pipelines/py.typed",
        "morph_tfx/pipelines/templates/config.yaml",
        "morph_tfx/pipelines/templates/module.py",
    ],
)
def test_the_wheel_holds_what_is_read_at_run_time(wheel: zipfile.ZipFile, name: str):
    assert name in wheel.namelist()


def test_the_source_distribution_gives_the_same_wheel(distributions: dict[str, Path]):
    held = []
    for kind in ("wheel", "wheel from source"):
        archive = zipfile.ZipFile(distributions[kind])
        held.append({name: archive.read(name) for name in archive.namelist()})
    assert held[0] == held[1]
    assert distributions["wheel"].name == distributions["wheel from source"].name


def test_morph_tfx_is_a_namespace_that_others_could_share(wheel: zipfile.ZipFile):
    assert "morph_tfx/__init__.py" not in wheel.namelist()


def test_the_wheel_carries_the_licence_and_the_command(wheel: zipfile.ZipFile):
    (licence,) = (name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    (scripts,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert (
        wheel.read(scripts).decode().split()
        == "[console_scripts] morph-tfx = morph_tfx.pipelines.commands.cli:main".split()
    )


def test_the_core_requires_keras_and_numpy_only(wheel: zipfile.ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    assert metadata["Name"] == "morph-tfx"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata["Requires-Python"].split(",")) == {">=3.10", "<3.14"}, "what tools/setup.sh takes"
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])
    assert {"kubeflow", "tfx"} <= set(metadata.get_all("Provides-Extra") or [])
    assert {text.partition(">")[0] for text in requirements if "extra ==" not in text} == {"keras", "numpy"}


def test_the_wheel_works_where_it_is_unpacked(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import importlib.util
for name in ("morph_core", "morph_core.network.graph", "morph_tfx.components", "morph_tfx.pipelines"):
    print(importlib.util.find_spec(name).origin)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd="/", text=True, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [
        str(tmp_path / name)
        for name in (
            "morph_core/__init__.py",
            "morph_core/network/graph.py",
            "morph_tfx/components/__init__.py",
            "morph_tfx/pipelines/__init__.py",
        )
    ]


def test_the_source_distribution_holds_the_sources_their_tests_and_their_tools(distributions: dict[str, Path]):
    with tarfile.open(distributions["source"]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    sources = {name for layer in LAYERS for name in files_of(layer, "*.py", "py.typed", "BUILD", "*.j2", "*.yaml")}
    assert sources | files_of("tests", "*.py", "BUILD") | files_of("docs", "*.md", "*.svg") <= held
    assert files_of("benchmarks", "*.py", "*.md") | files_of("tools/api_template", "*") <= held
    assert {*TOP, *SETTINGS, *files_of("tools", "*.sh", "*.py")} <= held
    assert files_of("examples", "*.md", "*.py", "*.ipynb", "config.yaml", "Dockerfile", ".gitignore") <= held
    assert [name for name in held if "__pycache__" in name or name.startswith("tools/import_names")] == []
