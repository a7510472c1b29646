"""The distributions that these tests look into, built once from a copy of the checkout, without fetching anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.source import LAYERS, ROOT, SETTINGS, TOP


def build(kind: str, checkout: Path, folder: Path) -> Path:
    """Builds a `wheel` or an `sdist` of the checkout into the folder, with this environment's setuptools."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=checkout, text=True, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return folder / result.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source distribution of this checkout, and the wheel that the latter gives."""
    folder = tmp_path_factory.mktemp("distributions")
    copy = folder / "checkout"
    for name in (*LAYERS, "benchmarks", "docs", "examples", "tests", "tools"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*TOP, *SETTINGS):
        shutil.copy(ROOT / name, copy / name)
    wheel, source = build("wheel", copy, folder), build("sdist", copy, folder)
    shutil.unpack_archive(source, folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    again = folder / "from_source"
    again.mkdir()
    return {"wheel": wheel, "source": source, "wheel from source": build("wheel", unpacked, again)}
