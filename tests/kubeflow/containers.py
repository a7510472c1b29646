"""The same stand-in with real containers: every step in an image, by an OCI runtime, as a user without rights.

`/minio`, `/s3`, `/gcs` and `/tmp` are mounts at their real places, so no environment variable tells where they are.
The image is a directory that holds its unpacked root, which stays as it is: what a step writes elsewhere is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kubeflow.launcher import Cluster

_MOUNTED = ("minio", "s3", "gcs", "tmp")
_USER = 10001  # the Dockerfile's
# An overlay in memory over the image, in a mount namespace that ends with the container. crun refuses a machine that
# has both kinds of cgroups mounted, and needs neither.
_RUN = """
mount --make-rprivate /
umount /sys/fs/cgroup/unified 2>/dev/null || true
mount -t tmpfs tmpfs "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work" "$1/layer/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/layer/upper,workdir=$1/layer/work" "$1/layer/root"
exec crun --cgroup-manager=disabled --root="$1/state" run --bundle="$1" "$3"
"""


@dataclass(frozen=True)
class Image:
    """An unpacked image.

    Attributes:
        root: its root directory.
        path: its PATH.
    """

    root: Path
    path: str


class ContainerCluster(Cluster):
    """A `Cluster` whose pods are containers.

    Args:
        directory: as for `Cluster`.
        image: of every step.
        volumes: directories that every pod mounts, at the same path.
        more: the other arguments of `Cluster`.
    """

    def __init__(self, directory: Path, image: Image, volumes: tuple[Path, ...], **more: Any):
        super().__init__(directory, **more)
        self.image, self.volumes = image, volumes

    def root(self, pod: Path) -> str:
        return ""

    def start(self, command: list[str], pod: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        for name in _MOUNTED:
            (pod / name).mkdir(exist_ok=True)
        for path in (pod, *pod.rglob("*")):
            os.chown(path, _USER, 0)
        bundle = self.directory / "bundles" / uuid.uuid4().hex
        (bundle / "layer").mkdir(parents=True)
        subprocess.run(["crun", "spec"], cwd=bundle, check=True, timeout=60)
        config = json.loads((bundle / "config.json").read_text())
        environment = {"PATH": self.image.path, "HOME": "/tmp", **variables}
        config["process"].update(
            args=command,
            terminal=False,
            user={"uid": _USER, "gid": 0},
            env=[f"{name}={value}" for name, value in environment.items()],
        )
        config["root"] = {"path": "layer/root", "readonly": False}
        mounts = [(f"/{name}", pod / name) for name in _MOUNTED] + [(str(path), path) for path in self.volumes]
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/sys/fs/cgroup"] + [
            {"destination": inside, "type": "bind", "source": str(outside), "options": ["rbind", "rw"]}
            for inside, outside in mounts
        ]
        (bundle / "config.json").write_text(json.dumps(config))
        return subprocess.run(
            ["unshare", "--mount", "--fork", "sh", "-ec", _RUN, "sh", bundle, self.image.root, bundle.name],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
