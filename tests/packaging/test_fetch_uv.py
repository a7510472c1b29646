"""tools/fetch_uv.py: the way to uv for a Python that has neither pip nor venv."""

import hashlib
import importlib.util
import io
import os
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools/fetch_uv.py"


@pytest.fixture
def fetch_uv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_uv", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def serve(monkeypatch: pytest.MonkeyPatch, *, digest: str | None = None) -> None:
    """An index that has uv 9.9 for this platform and for another."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("uv/__init__.py", "")
        archive.writestr("uv-9.9.data/scripts/uvx", "not this one")
        archive.writestr("uv-9.9.data/scripts/uv", "#!/bin/sh\necho here\n")
    wheel = content.getvalue()
    digest = digest or hashlib.sha256(wheel).hexdigest()
    names = (
        "uv-9.8-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "uv-9.9-py3-none-macosx_11_0_arm64.whl",
        "uv-9.9-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "uv-9.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "uv-9.9-py3-none-musllinux_1_1_x86_64.whl",
    )
    page = "\n".join(f'<a href="../../files/{name}#sha256={digest}" data-x="y">{name}</a><br>' for name in names)
    answers = {"https://mirror/simple/uv/": page.encode(), f"https://mirror/files/{names[3]}": wheel}

    def urlopen(url: str, **options: Any) -> io.BytesIO:
        return io.BytesIO(answers[url])

    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror/simple")
    monkeypatch.setattr("urllib.request.urlopen", urlopen)


def test_the_executable_of_this_platforms_wheel_is_put_in_place(fetch_uv, monkeypatch, tmp_path):
    serve(monkeypatch)
    fetch_uv.main("9.9", tmp_path / "bin")
    assert (tmp_path / "bin/uv").read_text() == "#!/bin/sh\necho here\n"
    assert os.access(tmp_path / "bin/uv", os.X_OK)
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["uv"]


def test_a_wheel_with_another_checksum_is_refused(fetch_uv, monkeypatch, tmp_path):
    serve(monkeypatch, digest="0" * 64)
    with pytest.raises(SystemExit, match=r"manylinux2014_x86_64\.whl is not what the index announced"):
        fetch_uv.main("9.9", tmp_path / "bin")
    assert not (tmp_path / "bin").exists()


def test_an_index_without_that_version_is_named(fetch_uv, monkeypatch, tmp_path):
    serve(monkeypatch)
    with pytest.raises(SystemExit, match=r"https://mirror/simple/uv/ lists no uv 9\.7 for Linux on x86_64"):
        fetch_uv.main("9.7", tmp_path / "bin")
