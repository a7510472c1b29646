"""A file system of a few hundred kilobytes, for one program: in a mount namespace of its own, gone with it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

_MOUNTS = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'


def with_disk(directory: Path, kilobytes: int, command: Sequence[str]) -> list[str]:
    """A command that finds an empty disk of that size, at least a page, at a directory; nobody else sees it."""
    apart = ["unshare", "--mount", "--propagation", "private"]
    return [*apart, "sh", "-c", _MOUNTS, f"{kilobytes}k", str(directory), *command]


def resize(directory: Path, kilobytes: int) -> None:
    """Makes the disk larger or smaller; called inside the program."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(directory)], check=True)
