"""Tells which locked dependencies have known advisories, and what is known of none. `make advisories` runs it.

pip-audit does the asking, run by uv so that it is no dependency, once for each stack of constraints/: what users
install. It takes a package that the index does not know, or cannot be asked about, for one without advisories; here
that is said, and the exit code is not 0.

    0   nothing is known of any of them
    1   something is
    2   some or all could not be asked about
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PIP_AUDIT = "pip-audit>=2,<3"
FOUND, NOT_ASKED = 1, 2

Dependencies = list[dict[str, Any]]
"""What pip-audit says of each package: `name`, and `version` with `vulns`, or a `skip_reason`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uv", default="uv", help="the program uv")
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="who is asked (default: pypi)")
    arguments = parser.parse_args()
    reports = {}
    for file in sorted((ROOT / "constraints").glob("constraints-*.txt")):
        stack = file.stem.removeprefix("constraints-")
        report = audited(arguments.uv, file, arguments.service)
        if isinstance(report, str):
            print(
                f"{stack}: the advisories of {arguments.service} cannot be reached, so nothing is known of any package "
                f"({report}). Run this where https://pypi.org, or with ARGS='--service osv' https://api.osv.dev, "
                "can be reached.",
                file=sys.stderr,
            )
            return NOT_ASKED
        reports[stack] = report
    lines, code = told(reports)
    print("\n".join(lines))
    return code


def audited(uv: str, file: Path, service: str) -> Dependencies | str:
    """What pip-audit says of the packages that a constraints file pins; a text where it says nothing, the reason."""
    command = (uv, "tool", "run", "--quiet", "--from", PIP_AUDIT, "pip-audit", "--disable-pip", "--no-deps")
    options = ("--progress-spinner", "off", "--format", "json", "--vulnerability-service", service)
    try:
        done = subprocess.run([*command, *options, "--requirement", str(file)], capture_output=True, text=True)
    except OSError as error:
        return f"{uv} cannot be run: {error.strerror}"
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else f"pip-audit ended with exit code {done.returncode}"


def told(reports: Mapping[str, Dependencies]) -> tuple[list[str], int]:
    """The lines that say what was found, and the exit code.

    Args:
        reports: of each stack.
    """
    lines, code = [], 0
    for stack, dependencies in reports.items():
        skipped = [one["name"] for one in dependencies if "skip_reason" in one]
        found = [(one, advisory) for one in dependencies for advisory in one.get("vulns", ())]
        for one, advisory in found:
            fixed = ", ".join(advisory.get("fix_versions") or ()) or "no version yet"
            lines.append(f"{stack}: {one['name']} {one['version']}: {advisory['id']}, mended in {fixed}")
        if skipped:
            names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
            lines.append(
                f"{stack}: {len(skipped)} of {len(dependencies)} packages could not be asked about ({names}): the "
                "index does not know them, or answers nothing. Ask https://pypi.org itself, or give "
                "ARGS='--service osv'."
            )
        if found:
            code = FOUND
        elif skipped and code == 0:
            code = NOT_ASKED
        if not found and not skipped:
            lines.append(f"{stack}: nothing is known of any of its {len(dependencies)} packages.")
    return lines, code


if __name__ == "__main__":
    sys.exit(main())
