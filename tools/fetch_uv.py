"""Fetches uv from the package index with nothing but the standard library: `fetch_uv.py VERSION FOLDER`.

For a Python without pip and without venv, as Debian's python3 package alone is. The wheel is a zip file with the
executable inside; its checksum comes from the index over TLS.
"""

import hashlib
import io
import json
import sys
import urllib.request
import zipfile
from pathlib import Path


def main(version: str, folder: Path) -> None:
    with urllib.request.urlopen(f"https://pypi.org/pypi/uv/{version}/json", timeout=60) as answer:
        files = json.load(answer)["urls"]
    wheel = next(file for file in files if "manylinux" in file["filename"] and "x86_64" in file["filename"])
    with urllib.request.urlopen(wheel["url"], timeout=600) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != wheel["digests"]["sha256"]:
        raise SystemExit(f"{wheel['filename']} is not what the index announced (its SHA-256 differs). Try again.")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        executable = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uv").write_bytes(archive.read(executable))
    (folder / "uv").chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
