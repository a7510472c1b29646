"""The same stand-in with real containers: every step in an image, as the image's user.

`/minio`, `/s3`, `/gcs` and `/tmp` are mounts at their real places, so no environment variable tells where they are.
What a step writes elsewhere is lost with its container.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kubeflow.engine import Engine
from tests.kubeflow.launcher import Cluster

_MOUNTED = ("minio", "s3", "gcs", "tmp")


class ContainerCluster(Cluster):
    """A `Cluster` whose pods are containers.

    Args:
        directory: as for `Cluster`.
        engine: what runs the containers.
        image: of every step.
        volumes: directories that every pod mounts, at the same path.
        more: the other arguments of `Cluster`.
    """

    def __init__(self, directory: Path, engine: Engine, image: str, volumes: tuple[Path, ...], **more: Any):
        super().__init__(directory, **more)
        self.engine, self.image, self.volumes = engine, image, volumes

    def root(self, pod: Path) -> str:
        return ""

    def start(self, command: list[str], pod: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        for name in _MOUNTED:
            (pod / name).mkdir(exist_ok=True)
        for path in pod.rglob("*"):  # Kubernetes makes its empty volumes for everybody, too
            path.chmod(0o777 if path.is_dir() else 0o666)
        mounts = {f"/{name}": pod / name for name in _MOUNTED} | {str(path): path for path in self.volumes}
        return self.engine.run(self.image, command, mounts, variables)
