"""Fetches uv from the package index with nothing but the standard library: `fetch_uv.py VERSION FOLDER`.

For a Python without pip and without venv, as Debian's python3 package alone is. The index's page of uv (PEP 503) names
the wheels with their checksums; a wheel is a zip file with the executable inside.
"""

import hashlib
import html
import io
import os
import re
import sys
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

LINK = re.compile(r'href="([^"#]+)#sha256=([0-9a-f]{64})"[^>]*>\s*([^<\s]+)\s*<')
PLATFORM = re.compile(r"-manylinux.*x86_64\.whl$")


def main(version: str, folder: Path) -> None:
    index = os.environ.get("UV_DEFAULT_INDEX", "https://pypi.org/simple/").rstrip("/") + "/uv/"
    with urllib.request.urlopen(index, timeout=60) as answer:
        links = LINK.findall(answer.read().decode())
    wheels = [found for found in links if found[2].startswith(f"uv-{version}-") and PLATFORM.search(found[2])]
    if not wheels:
        raise SystemExit(f"{index} lists no uv {version} for Linux on x86_64.")
    link, digest, name = wheels[0]
    with urllib.request.urlopen(urllib.parse.urljoin(index, html.unescape(link)), timeout=600) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() != digest:
        raise SystemExit(f"{name} is not what the index announced (its SHA-256 differs). Try again.")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        executable = next(member for member in archive.namelist() if member.endswith("/scripts/uv"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uv").write_bytes(archive.read(executable))
    (folder / "uv").chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
