"""The distributions installed into fresh environments, as users install them: resolved anew, not from the lock.

Whole TFX stacks take a minute and gigabytes each, so those tests are slow ones. The interpreter that runs the tests is
the one installed for, which decides the stack.
"""

import http.client
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.packaging.source import ROOT

# Where a proxy inspects TLS, its certificate is in the system's store, which uv reads only when it is told to.
STORES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
NETWORK = {"UV_SYSTEM_CERTS": "true"} if any(map(os.path.exists, STORES)) else {}

# What only the core needs: everything up to a rebuilt network, where there is no TensorFlow.
CORE = """
import importlib.util
assert not [name for name in ("tensorflow", "tfx", "click", "matplotlib") if importlib.util.find_spec(name)]
import keras
import numpy as np
import morph_core as morph
inputs = keras.Input((8,))
hidden = keras.layers.Dense(24, activation="relu")(keras.layers.Dense(24, activation="relu")(inputs))
model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
data, labels = np.random.default_rng(0).normal(size=(256, 8)), np.arange(256) % 3
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
search = morph.StructureSearch(model, cost="flops", target=0.5, gate="logistic_sigmoid")
search.compile("adam", loss)
search.fit(data, labels, epochs=3, verbose=0)
structure = search.structure()
small = morph.rebuild(model, structure)
small.compile("adam", loss)
small.fit(data, labels, verbose=0)
graph = morph.ChannelGraph.from_model(model)
print(keras.backend.backend(), graph.cost("flops", structure) <= 0.5 * graph.cost("flops"))
print(small.count_params() == graph.cost("params", structure) < model.count_params())
"""

KUBEFLOW = """
kubeflow:
  image: registry.example.com/morph-tfx:1
  module_dir: /opt/morph-tfx/modules
  data_path: /data
  pipeline_root: /pipeline_root
  push_to: /pushed
"""


def uv() -> str:
    found = shutil.which("uv", path=f"{ROOT}/.tools/uv/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("neither PATH nor .tools/uv has uv")
    return found


def index_answers() -> bool:
    try:
        urllib.request.urlopen(os.environ.get("UV_DEFAULT_INDEX", "https://pypi.org/simple/") + "pip/", timeout=10)
    except urllib.error.HTTPError:
        return True  # an answer, if not a welcome
    except (OSError, http.client.HTTPException):
        return False
    return True


class Environment:
    """A fresh virtual environment; `run` starts a program of its bin folder, from a folder that is not the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "environment/bin"
        subprocess.run(
            [uv(), "venv", "--quiet", "--python", sys.executable, folder / "environment"], check=True, timeout=60
        )

    def install(self, *requirements: str) -> None:
        command = [uv(), "pip", "install", "--quiet", "--python", str(self.bin / "python"), *requirements]
        result = subprocess.run(command, env={**NETWORK, **os.environ}, text=True, capture_output=True, timeout=900)
        if result.returncode and not index_answers():
            pytest.skip("the package index does not answer")
        assert result.returncode == 0, result.stderr

    def run(self, program: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        names = ("PATH", "LANG", "TF_CPP_MIN_LOG_LEVEL", "NO_GCE_CHECK")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder, env={**kept, "HOME": str(self.folder), **variables},
            text=True, capture_output=True, timeout=600,
        )  # fmt: skip

    def output(self, program: str, *arguments: str, **variables: str) -> str:
        result = self.run(program, *arguments, **variables)
        assert result.returncode == 0, result.stderr
        return result.stdout


def requirement(distribution: Path, extras: str) -> str:
    return f"morph-tfx{extras} @ {distribution.as_uri()}"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def test_one_lock_holds_both_stacks_and_is_that_of_pyproject():
    command = [uv(), "lock", "--check", "--python", sys.executable]
    result = subprocess.run(
        command, cwd=ROOT, env={**NETWORK, **os.environ}, text=True, capture_output=True, timeout=300
    )
    if result.returncode and not index_answers():
        pytest.skip("the package index does not answer")
    assert result.returncode == 0, result.stderr
    locked = re.findall(r'^name = "tfx"\nversion = "(.*)"', (ROOT / "uv.lock").read_text(), flags=re.MULTILINE)
    assert sorted(locked) == ["1.16.0", "1.21.0"]


@pytest.mark.parametrize("kind", ["wheel", "source"])
def test_the_core_alone_searches_and_rebuilds_on_jax_without_tensorflow(
    environment: Environment, distributions: dict[str, Path], kind: str
):
    environment.install(requirement(distributions[kind], ""), "jax")
    assert environment.output("python", "-c", CORE, KERAS_BACKEND="jax").split() == ["jax", "True", "True"]

    command = environment.run("morph-tfx", "--help")
    assert command.returncode == 1
    assert command.stderr == (
        "morph-tfx: the commands need the TFX stack. Install it with: pip install 'morph-tfx[tfx]'\n"
    )
    for package, name in (("components", "MorphTrainer"), ("pipelines", "load_config")):
        result = environment.run("python", "-c", f"from morph_tfx.{package} import {name}", KERAS_BACKEND="jax")
        assert result.stderr.splitlines()[-1].startswith(f"ModuleNotFoundError: morph_tfx.{package} needs ")
        assert result.stderr.endswith("Install what is missing with: pip install 'morph-tfx[tfx]'\n")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "source"])
@pytest.mark.parametrize("extras", ["[tfx]", "[tfx,kubeflow]"])
def test_the_extras_bring_what_the_commands_need(
    environment: Environment, distributions: dict[str, Path], kind: str, extras: str
):
    environment.install(requirement(distributions[kind], extras))
    stack = "1.16.0" if sys.version_info < (3, 11) else "1.21.0"
    installed = "from importlib.metadata import version; print(version('tfx'), version('morph-tfx'))"
    version = environment.output("morph-tfx", "--version").split()[-1]
    assert environment.output("python", "-c", installed).split() == [stack, version]
    environment.output("morph-tfx", "init", "mine")
    with (environment.folder / "mine/config.yaml").open("a") as config:
        config.write(KUBEFLOW)
    compiled = environment.run("morph-tfx", "compile", "--config", "mine/config.yaml", "--output", "job.yaml")
    if "kubeflow" not in extras:
        assert compiled.returncode == 2
        assert "pip install 'morph-tfx[tfx,kubeflow]'" in compiled.stderr
        environment.output("morph-tfx", "demo", "demo")
    else:
        assert compiled.returncode == 0, compiled.stderr
        assert (environment.folder / "job.yaml").is_file()
