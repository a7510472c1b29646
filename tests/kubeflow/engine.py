"""Container engines by their command lines: build an image, run a command in it, remove it; docker, podman or buildah.

The three share a language but for one thing: buildah has no `run` for an image, only one for a container that it keeps,
so that container is made before and removed after.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Engine:
    """A container engine.

    Attributes:
        program: "docker", "podman" or "buildah".
    """

    program: str

    def works(self) -> bool:
        """Whether it is installed and answers. The client of docker may be there without its daemon."""
        return shutil.which(self.program) is not None and self._call("info").returncode == 0

    def has(self, image: str) -> bool:
        """Whether an image is there, or could be pulled."""
        kind = ("inspect", "--type", "image") if self.program == "buildah" else ("image", "inspect")
        return self._call(*kind, image).returncode == 0 or self._call("pull", image).returncode == 0

    def build(self, tag: str, context: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Builds the Dockerfile of a directory, and keeps no layers for a next time where it can be told so."""
        layers = () if self.program == "docker" else ("--layers=false",)
        return self._call("build", *layers, "--tag", tag, *options, str(context))

    def run(
        self,
        image: str,
        command: Sequence[str],
        mounts: Mapping[str, Path] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in a container of its own, as the image's user and, where the engine can, without a network.

        Args:
            image: its name.
            command: with its arguments.
            mounts: directories of this machine by their place in the container.
            variables: beside those of the image.
        """
        options = [f"--volume={outside}:{inside}" for inside, outside in (mounts or {}).items()]
        options += [f"--env={name}={value}" for name, value in (variables or {}).items()]
        if self.program != "buildah":
            apart = ("--rm", "--network=none", "--security-opt=label=disable")
            return self._call("run", *apart, *options, image, *command)
        container = self._call("from", "--pull-never", image).stdout.strip()
        try:
            return self._call("run", *options, container, "--", *command)
        finally:
            self._call("rm", container)

    def remove(self, image: str) -> None:
        self._call("rmi", "--force", image)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Docker before 23 knows `RUN --mount` only if told so.
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        return subprocess.run(
            [self.program, *arguments], env=environment, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def engines() -> list[Engine]:
    """Those that work here."""
    return [engine for engine in map(Engine, ("docker", "podman", "buildah")) if engine.works()]
