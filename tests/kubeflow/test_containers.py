"""The image of the Dockerfile: built, looked at, and the digits job run in it, every step in a container of its own.

    .venv/bin/python -m pytest tests/kubeflow/test_containers.py -m slow

The engine is docker, podman or buildah, the first one that works here or the one that MORPH_TFX_ENGINE names. Where the
Dockerfile's base cannot be pulled, MORPH_TFX_BASE names another, such as one made from Debian's archive:

    debootstrap --variant=minbase trixie base && rm base/etc/resolv.conf base/etc/hostname
    tar -C base -c . | podman import - localhost/debian:13

MORPH_TFX_BUILD_OPTIONS are for the build, such as --network=host. MORPH_TFX_IMAGE names an image that is there already,
to be tested in the place of a new one.
"""

import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import uuid
from pathlib import Path

import pytest
import yaml

from morph_tfx.pipelines.config import KubeflowConfig, load_config
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline
from morph_tfx.pipelines.local import demo
from tests.kubeflow.containers import ContainerCluster
from tests.kubeflow.engine import Engine, engines
from tests.kubeflow.test_digits_job import LEAST_ACCURACY, SETTINGS, STEPS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
USER = "10001"
LIST_PACKAGES = """
import importlib.metadata, json
print(json.dumps({found.name: found.version for found in importlib.metadata.distributions()}))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="the build's own certificate is made with openssl"),
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    named = os.environ.get("MORPH_TFX_ENGINE")
    found = [engine for engine in engines() if named in (None, engine.program)]
    if not found:
        pytest.skip(f"{named or 'none of docker, podman and buildah'} works here, and an image needs one")
    return found[0]


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> str:
    """A certificate that the build is told to trust."""
    directory = tmp_path_factory.mktemp("authority")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=inspector"]
    command += ["-keyout", "key.pem", "-out", "ca.pem"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return (directory / "ca.pem").read_text()


@pytest.fixture(scope="module")
def image(engine, authority, tmp_path_factory):
    """The Dockerfile's image, built where this machine's own certificates may be needed to reach the package index."""
    if "MORPH_TFX_IMAGE" in os.environ:
        yield os.environ["MORPH_TFX_IMAGE"]
        return
    base = os.environ.get("MORPH_TFX_BASE") or re.findall(r"^ARG BASE=(\S+)", DOCKERFILE, re.MULTILINE)[0]
    if not engine.has(base):
        pytest.skip(f"{engine.program} has no image {base} and cannot pull it; MORPH_TFX_BASE may name another")
    trusted = ssl.get_default_verify_paths().cafile
    secret = tmp_path_factory.mktemp("secret") / "ca.pem"
    secret.write_text((Path(trusted).read_text(encoding="utf-8") if trusted else "") + authority)
    tag = f"localhost/morph-tfx-test:{uuid.uuid4().hex}"
    options = shlex.split(os.environ.get("MORPH_TFX_BUILD_OPTIONS", ""))
    built = engine.build(tag, ROOT, f"--build-arg=BASE={base}", f"--secret=id=ca,src={secret}", *options)
    assert built.returncode == 0, built.stdout[-4000:]
    yield tag
    engine.remove(tag)


@pytest.fixture(scope="module")
def printed(engine, image):
    """What a command printed that ran in the image."""

    def run(*command: str) -> str:
        done = engine.run(image, command)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_the_image_runs_as_a_user_without_rights(printed):
    assert printed("id", "-u").split() == [USER]
    assert printed("id", "-g").split() == ["0"]
    assert printed("awk", "/^CapEff:/ {print $2}", "/proc/self/status").split() == ["0" * 16]
    # What the launcher and a module file need; the environment is for reading only.
    writable = 'for path in "$@"; do if [ -w "$path" ]; then echo "$path"; fi; done'
    places = (
        "/minio",
        "/s3",
        "/gcs",
        "/tmp",
        "/home/morph",
        "/opt/morph-tfx/.venv/lib",
        "/opt/morph-tfx/modules",
        "/etc",
    )
    assert printed("sh", "-c", writable, "sh", *places).split() == list(places[:5])


def test_the_command_line_answers(printed):
    assert "Usage: morph-tfx" in printed("morph-tfx", "--help")


def test_every_package_is_one_of_the_lock(printed):
    locked = re.findall(r'^name = "(.+)"\nversion = "(.+)"', (ROOT / "uv.lock").read_text(), re.MULTILINE)
    installed = json.loads(printed("python", "-c", LIST_PACKAGES))
    assert {"tfx", "kfp", "tensorflow", "morph-tfx"} <= installed.keys()
    names = {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in installed.items()}
    assert {name for name, _ in names - set(locked)} == {"morph-tfx"}


def test_the_build_leaves_neither_its_tools_nor_its_secret_behind(printed, authority):
    bundle = printed("cat", "/etc/ssl/certs/ca-certificates.crt")
    assert bundle.count("BEGIN CERTIFICATE") > 50
    assert authority.splitlines()[5] not in bundle
    assert printed("ls", "/usr/local/share/ca-certificates") == ""
    left = 'for path in "$@"; do if [ -e "$path" ]; then echo "$path"; fi; done'
    places = ("/run/secrets", "/usr/bin/g++", "/opt/uv", "/opt/morph-tfx/uv.lock", "/opt/morph-tfx/pyproject.toml")
    assert printed("sh", "-c", left, "sh", *places) == ""


def test_every_step_of_the_job_runs_in_an_image_with_the_module_file(engine, image, tmp_path):
    volume = tmp_path / "volume"
    file = demo.prepare(volume)
    (volume / "pushed").mkdir()
    (volume / "pushed").chmod(0o777)
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(volume / "module.py", context)
    (context / "Dockerfile").write_text(
        f"FROM {image}\nCOPY module.py {KubeflowConfig.model_fields['module_dir'].default}/\n"
    )
    ours = f"localhost/morph-tfx-test:{uuid.uuid4().hex}"
    built = engine.build(ours, context)
    assert built.returncode == 0, built.stdout[-4000:]
    try:
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **SETTINGS, "kubeflow": {"image": ours}}))
        job = compile_pipeline(load_config(file), volume / "job.yaml")
        cluster = ContainerCluster(tmp_path / "cluster", engine, ours, (volume,))
        run = cluster.run(job)
    finally:
        engine.remove(ours)
    assert run.in_state("succeeded") == STEPS, str(run)
    assert "/minio/mlpipeline" not in str([artifact.metadata for artifact in cluster.artifacts])
    [model] = (volume / "pushed").iterdir()
    assert demo.pushed_accuracy(str(model), demo.load_digits()["holdout"]) > LEAST_ACCURACY
