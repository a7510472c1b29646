"""Writes the version of the project into an SBOM (CycloneDX, JSON), where uv leaves it out: it is no part of the lock.

python tools/name_version.py morph_tfx-1.2.3.cdx.json 1.2.3
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def named(bill: dict, version: str) -> dict:
    """The SBOM with the version, and the address of the package, in the component that it is about."""
    root = bill["metadata"]["component"]
    completed = {**root, "version": version, "purl": f"pkg:pypi/{root['name']}@{version}"}
    return {**bill, "metadata": {**bill["metadata"], "component": completed}}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(json.dumps(named(json.loads(file.read_text(encoding="utf-8")), sys.argv[2]), indent=2) + "\n")
