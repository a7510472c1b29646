"""What `make advisories` says of what pip-audit answers, and what goes into the SBOM of a release. Nobody is asked."""

import os

import pytest

from tools import check_advisories as advisories
from tools import name_version

CLEAN = {"name": "numpy", "version": "1.26.4", "vulns": []}
BAD = {"name": "jinja2", "version": "3.1.2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.3"]}]}
OPEN = {"name": "old", "version": "1", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
UNASKED = {"name": "tfx", "skip_reason": "Dependency not found on PyPI and could not be audited: tfx (1.16.0)"}


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([CLEAN], 0, ["a: nothing is known of any of its 1 packages."]),
        ([CLEAN, BAD], 1, ["a: jinja2 3.1.2: PYSEC-1, mended in 3.1.3"]),
        ([OPEN], 1, ["a: old 1: PYSEC-2, mended in no version yet"]),
        ([CLEAN, UNASKED], 2, ["a: 1 of 2 packages could not be asked about (tfx): the index does not know them"]),
        ([BAD, UNASKED], 1, ["a: jinja2 3.1.2: PYSEC-1", "a: 1 of 2 packages could not be asked about"]),
    ],
)
def test_what_could_not_be_asked_about_is_not_taken_for_free_of_advisories(dependencies, code, said):
    lines, found = advisories.told({"a": dependencies})
    assert found == code
    assert len(lines) == len(said) and all(line.startswith(start) for line, start in zip(lines, said, strict=True))


def test_the_worst_of_all_stacks_counts():
    assert [advisories.told({"a": [CLEAN], "b": [one]})[1] for one in (CLEAN, UNASKED, BAD)] == [0, 2, 1]
    assert advisories.told({"a": [BAD], "b": [UNASKED]})[1] == 1


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'Failed to resolve api.osv.dev' >&2; exit 1", "Failed to resolve api.osv.dev"),
        ("exit 7", "pip-audit ended with exit code 7"),
        ("""echo '{"dependencies": [{"name": "x", "version": "1", "vulns": []}]}'; exit 1""", "x"),
    ],
)
def test_an_index_that_cannot_be_reached_is_told_with_its_reason(tmp_path, script, expected):
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(uv, 0o755)
    answer = advisories.audited(str(uv), tmp_path / "constraints-a.txt", "osv")
    assert answer == expected if isinstance(answer, str) else [one["name"] for one in answer] == [expected]
    assert "cannot be run" in str(advisories.audited(str(tmp_path / "none"), tmp_path / "constraints-a.txt", "osv"))


def test_the_sbom_names_the_version_of_what_it_is_about():
    bill = {"metadata": {"timestamp": "now", "component": {"type": "library", "name": "morph-tfx"}}, "components": [1]}
    done = name_version.named(bill, "1.2.3")
    assert done["metadata"]["component"] == {
        "type": "library", "name": "morph-tfx", "version": "1.2.3", "purl": "pkg:pypi/morph-tfx@1.2.3",
    }  # fmt: skip
    assert (done["components"], done["metadata"]["timestamp"]) == ([1], "now")
