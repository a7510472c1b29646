"""The constraints for plain pip: level with uv.lock and with what the extras ask for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.source import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STACKS = {"tfx-1.16": ("3.10",), "tfx-1.21": ("3.11", "3.12", "3.13")}
CASES = [(stack, python) for stack, pythons in STACKS.items() for python in pythons]
AGAIN = "run `make constraints`"


def file_of(stack: str) -> Path:
    return ROOT / "constraints" / f"constraints-{stack}.txt"


def pins(stack: str, python: str) -> dict[str, str]:
    """What pip would hold each package to, on this Python."""
    environment = {"python_full_version": f"{python}.9", "python_version": python}
    lines = [line for line in file_of(stack).read_text().splitlines() if not line.startswith("#")]
    found: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            [specifier] = requirement.specifier
            assert specifier.operator == "==", requirement
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is held to two versions on Python {python}"
            found[name] = specifier.version
    return found


def locked() -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        versions.setdefault(package["name"], set()).add(package.get("version", ""))
    return versions


def test_the_files_of_the_newer_stack_are_those_of_the_lock():
    versions = locked()
    for python in STACKS["tfx-1.21"]:
        strange = {name: pin for name, pin in pins("tfx-1.21", python).items() if pin not in versions.get(name, ())}
        assert strange == {}, AGAIN


def test_the_file_of_the_older_stack_leaves_the_lock_only_around_the_metadata_that_pip_cannot_correct():
    versions, found = locked(), pins("tfx-1.16", "3.10")
    other = {name for name, pin in found.items() if pin not in versions.get(name, ())}
    assert {"protobuf", "kfp", "kfp-kubernetes"} <= other
    assert len(other) <= 0.15 * len(found), f"{sorted(other)}: {AGAIN}"
    assert found["protobuf"].startswith("3.20."), (
        "tensorflow-metadata 1.16.1 declares less than 4.21, and pip believes it"
    )


@pytest.mark.parametrize(("stack", "python"), CASES)
def test_what_the_extras_ask_for_is_held_to_a_version_that_they_take(stack, python):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    environment = {"python_full_version": f"{python}.9", "python_version": python}
    found = pins(stack, python)
    for requirement in map(Requirement, [*project["dependencies"], *extras["tfx"], *extras["kubeflow"]]):
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        assert name in found and requirement.specifier.contains(found[name]), f"{requirement}: {AGAIN}"


def test_the_first_lines_of_the_install_page_name_them():
    start = " ".join((ROOT / "docs" / "install.md").read_text().splitlines()[1:5])
    for stack in STACKS:
        assert re.search(rf"constraints-{re.escape(stack)}\.txt", start)


@pytest.mark.slow  # minutes of the index's answers
def test_plain_pip_finds_the_extras_in_five_minutes(tmp_path):
    stack = "tfx-1.16" if sys.version_info < (3, 11) else "tfx-1.21"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    wanted = f"morph-tfx[tfx,kubeflow] @ {ROOT.as_uri()}"
    command = [tmp_path / "venv/bin/pip", "install", "--dry-run", "--quiet", "-c", file_of(stack), wanted]
    subprocess.run(command, check=True, timeout=300)
