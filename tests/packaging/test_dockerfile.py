"""The Dockerfile: what its image may hold and who runs in it. Building it needs a container engine, reading it none."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from morph_tfx.pipelines.config import KubeflowConfig
from morph_tfx.pipelines.kubeflow.job import COMMAND
from tests.packaging.source import ROOT


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """For each stage its instructions, as (name, arguments) with lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not line.strip():
            continue
        name, arguments = line.split(None, 1)
        if name == "FROM":
            found.append([])
        found[-1].append((name, arguments))
    return found


def test_the_base_is_one_release_in_every_stage(stages):
    before, *built = stages
    [(name, base)] = before
    assert name == "ARG"
    # A dated or numbered tag; "latest" and a bare "debian" would be another system tomorrow.
    assert re.fullmatch(r"BASE=debian:1[3-9]\.\d+-slim", base)
    assert {stage[0][1].split()[0] for stage in built} == {"${BASE}"}


def test_packages_come_from_the_lock_and_uv_is_the_one_of_the_setup_script(stages):
    _, build, final = stages
    copied = [arguments for name, arguments in build if name == "COPY"]
    assert copied[0] == "pyproject.toml uv.lock ./"
    installs = [arguments for name, arguments in build if name == "RUN" and "uv sync" in arguments]
    assert len(installs) == 2
    assert all("--frozen" in install for install in installs)
    assert not any("pip install" in arguments for name, arguments in final if name == "RUN")
    [version] = re.findall(r"^UV_VERSION=(\S+)", (ROOT / "tools" / "setup.sh").read_text(), flags=re.MULTILINE)
    assert ("ARG", f"UV_VERSION={version}") in build
    assert ("ARG", "VARIANT=cpu") in build


def test_the_image_runs_as_nobody_in_particular_and_holds_no_compiler(stages):
    *_, final = stages
    [user] = [arguments for name, arguments in final if name == "USER"]
    # A number: Kubernetes' runAsNonRoot cannot tell what a name stands for.
    assert user.isdigit()
    assert int(user) > 0
    assert not any(package in arguments for _, arguments in final for package in ("g++", "python3-dev", "/opt/uv"))


def test_no_secret_can_get_in(stages):
    for stage in stages:
        for name, arguments in stage:
            assert name != "ADD"
            if name in ("ARG", "ENV"):
                assert not re.search(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|_KEY", arguments, re.IGNORECASE)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in allowed
    sources = {path for _, path in ((line[0], line[1:]) for line in allowed if line.startswith("!"))}
    copied = {
        source.removeprefix("./").rstrip("/")
        for stage in stages
        for name, arguments in stage
        if name == "COPY" and "--from" not in arguments
        for source in arguments.split()[:-1]
    }
    assert copied == sources
    assert all((ROOT / source).exists() for source in sources)


def test_the_certificate_of_a_build_is_lent_to_the_first_stage_alone(stages):
    lent = [found for stage in stages[1:] for _, text in stage for found in re.findall(r"--mount=(\S+)", text)]
    assert lent == ["type=secret,id=ca,target=/usr/local/share/ca-certificates/build.crt"]
    assert not any("--mount" in arguments for _, arguments in stages[-1])


def test_what_a_job_starts_and_where_it_looks_for_modules_are_in_the_image(stages):
    *_, final = stages
    python, _, module = COMMAND
    [paths] = [arguments for name, arguments in final if name == "ENV"]
    assert "PATH=/opt/morph-tfx/.venv/bin:" in paths
    assert ("COPY", "--from=build /opt/morph-tfx/.venv /opt/morph-tfx/.venv") in final
    assert python == "python"
    assert importlib.util.find_spec(module) is not None
    module_dir = KubeflowConfig.model_fields["module_dir"].default
    assert any(f"mkdir -p {module_dir}" in arguments for name, arguments in final if name == "RUN")


def test_hadolint_finds_nothing():
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; the extra 'lint' brings it")
    found = subprocess.run([hadolint, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
