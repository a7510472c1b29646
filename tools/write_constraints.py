"""Writes constraints/: versions that fit together, for `pip install -c`, made from uv.lock. `make constraints` runs it.

Plain pip searches for versions of the TFX stacks that agree, and does not come to an end on Python 3.10. With these
files it has nothing to search for. One file for each stack:

- TFX 1.21, Python 3.11 to 3.13: what uv.lock has.
- TFX 1.16, Python 3.10: what uv.lock has, but where pip refuses that. The lock corrects what tensorflow-metadata 1.16.1
  says of protobuf (`tool.uv.dependency-metadata` in pyproject.toml), and pip does not know of the correction. So that
  file is resolved once more without it, by uv, which keeps every version that may stay.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("--extra", "tfx", "--extra", "kubeflow")
PLATFORM = "x86_64-manylinux_2_28"
FILES = {"tfx-1.16": "3.10", "tfx-1.21": "3.11"}
"""The files by stack, and the oldest Python of each."""

_MARKER = re.compile(r" ?(and )?(platform_machine == 'x86_64'|sys_platform == 'linux')")
_HEAD = """\
# Versions that fit together with morph-tfx[tfx,kubeflow] on {pythons}, for pip:
#     pip install -c {name} "morph-tfx[tfx,kubeflow]"
# Made from uv.lock by `make constraints`; do not edit.
"""


def main(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    for stack, python in FILES.items():
        name = f"constraints-{stack}.txt"
        pins = locked(newer=stack == "tfx-1.21")
        if stack == "tfx-1.16":
            pins = as_pip_resolves(pins, python)
        pythons = "Python 3.10" if stack == "tfx-1.16" else "Python 3.11 to 3.13"
        (folder / name).write_text(_HEAD.format(pythons=pythons, name=name) + "\n".join(pins) + "\n", encoding="utf-8")
        print(f"{folder / name}: {len(pins)} packages")
    return 0


def locked(newer: bool) -> list[str]:
    """The pins of uv.lock for one of the two stacks, each with what is left of its marker."""
    arguments = ["export", "--frozen", "--no-emit-project", "--no-hashes", "--no-annotate", "--no-header", *EXTRAS]
    exported = _uv([*arguments, "--format", "requirements.txt", "--project", str(ROOT)])
    found = []
    for line in exported.splitlines():
        pin, _, marker = line.partition(" ; ")
        older_only = "python_full_version < '3.11'" in marker
        newer_only = "python_full_version >= '3.11'" in marker
        if older_only if newer else newer_only:
            continue
        marker = _MARKER.sub("", marker).replace("python_full_version >= '3.11'", "").strip()
        marker = marker.removeprefix("and ").strip() if newer else ""
        found.append(f"{pin} ; {marker}" if marker else pin)
    return found


def as_pip_resolves(pins: list[str], python: str) -> list[str]:
    """These pins where pip can take them, and other versions where it cannot."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pins.txt"
        file.write_text("\n".join(pins) + "\n")  # uv prefers what stands in the file that it is to write
        resolve = ["pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"]
        where = ["--python-version", python, "--python-platform", PLATFORM]
        _uv([*resolve, *where, *EXTRAS, str(ROOT / "pyproject.toml"), "--output-file", str(file)])
        return file.read_text().splitlines()


def _uv(arguments: list[str]) -> str:
    uv = shutil.which("uv", path=str(ROOT / ".tools" / "uv" / "bin")) or shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is missing: `make setup` fetches it into .tools, or install it from the package index.")
    done = subprocess.run([uv, *arguments], text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"uv {arguments[0]} failed; what it said is above.")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(ROOT / "constraints"))
