"""tools/setup.sh on machines that we do not have: every choice it makes, and every message it ends with.

A machine here is a folder of commands that is the whole PATH: the few real tools that the script needs, and stand-ins
for those whose answers decide (uname, getconf, the Pythons, the compiler, uv).
"""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL_TOOLS = (
    "awk",
    "bash",
    "cat",
    "chmod",
    "cut",
    "dirname",
    "env",
    "head",
    "mkdir",
    "realpath",
    "rm",
    "sha256sum",
    "sort",
)

# Answers the script's questions as a Python of that version would; asked for the network, it is a real one.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *base_prefix*) echo "{version} {path}" ;;
  *Python.h*) exit {no_header} ;;
  "-m pip --version") exit {no_pip} ;;
  "-m pip install"*) exit 1 ;;
  "-m venv"*) exit 1 ;;
  *fetch_uv.py*) exit 1 ;;
  "- "*) exec {real} "$@" ;;
  *) exit 0 ;;
esac
"""

UV = """#!/usr/bin/env bash
echo "$*" >> "{log}"
case "$1" in
  --version) echo "uv {version}" ;;
  python) exit {no_download} ;;
  sync)
    env > "{log}.environment"
    [ {no_sync} = 0 ] || exit 1
    mkdir -p .venv/bin && printf '#!/usr/bin/env bash\\nexit 0\\n' > .venv/bin/python && chmod +x .venv/bin/python ;;
esac
"""


class Machine:
    """A checkout and a PATH; `run` is `tools/setup.sh` there."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.bin, self.log = folder / "checkout", folder / "bin", folder / "uv.log"
        (self.checkout / "tools").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("pyproject.toml", "setup.py", "tools/setup.sh", "tools/fetch_uv.py"):
            shutil.copy(ROOT / name, self.checkout / name)
        (self.checkout / "uv.lock").write_text("version = 1\n")
        for name in REAL_TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.variables = {"PATH": str(self.bin), "HOME": str(folder), "UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple/"}
        self.system("Linux", "x86_64").glibc("2.36").compiler().uv()

    def command(self, name: str, text: str) -> "Machine":
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return self

    def system(self, name: str, machine: str) -> "Machine":
        return self.command("uname", f'#!/usr/bin/env bash\n[ "$1" = -s ] && echo {name} || echo {machine}\n')

    def glibc(self, version: str | None) -> "Machine":
        answer = f"echo glibc {version}" if version else "exit 1"
        return self.command("getconf", f"#!/usr/bin/env bash\n{answer}\n")

    def compiler(self) -> "Machine":
        return self.command("c++", "#!/usr/bin/env bash\nexit 0\n")

    def python(
        self,
        version: str,
        name: str | None = None,
        *,
        header: bool = True,
        pip: bool = True,
        folder: Path | None = None,
    ) -> "Machine":
        path = (folder or self.bin) / (name or "python" + ".".join(version.split(".")[:2]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            PYTHON.format(
                version=version, path=path, no_header=int(not header), no_pip=int(not pip), real=sys.executable
            )
        )
        path.chmod(0o755)
        return self

    def uv(self, version: str = "0.13.8", *, downloads: bool = False, syncs: bool = True) -> "Machine":
        text = UV.format(log=self.log, version=version, no_download=int(not downloads), no_sync=int(not syncs))
        return self.command("uv", text)

    def without(self, name: str) -> "Machine":
        (self.bin / name).unlink()
        return self

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.checkout / "tools/setup.sh", *arguments],
            env={**self.variables, **variables},
            text=True,
            capture_output=True,
            timeout=60,
        )

    def choice(self, **variables: str) -> str:
        """What `--check` says on this machine, where nothing is missing."""
        result = self.run("--check", **variables)
        assert result.returncode == 0, result.stderr
        return only_line(result.stderr)

    def refusal(self, *arguments: str, **variables: str) -> str:
        """The one line with which the script ends; lines before it may say what was tried."""
        result = self.run(*arguments, **variables)
        assert result.returncode == 1, result.stderr
        return result.stderr.splitlines()[-1]

    def calls(self, command: str) -> list[str]:
        return (
            [line for line in self.log.read_text().splitlines() if line.startswith(command)]
            if self.log.exists()
            else []
        )


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def index():
    """A package index that answers, if only with 404: the network is there."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
    server.shutdown()
    server.server_close()


# --- the choice -------------------------------------------------------------------------------------------------------


def test_an_old_glibc_chooses_python_3_10_and_tfx_1_16(machine: Machine):
    line = machine.python("3.10.13").python("3.11.2").choice()
    assert line == (
        f"setup: TFX 1.16 on Python 3.10 ({machine.bin}/python3.10): "
        "TFX 1.21 would need glibc 2.39, this machine has 2.36."
    )


@pytest.mark.parametrize(
    ("pythons", "chosen", "stack"),
    [
        (["3.13.5"], "3.13", "TFX 1.21"),
        (["3.11.9", "3.12.3"], "3.12", "TFX 1.21"),
        (["3.10.13", "3.11.9"], "3.11", "TFX 1.21"),
        (["3.10.13"], "3.10", "TFX 1.16"),
        (["3.14.0", "3.10.13"], "3.10", "TFX 1.16"),
    ],
)
def test_a_new_glibc_chooses_the_newest_python_that_is_there(
    machine: Machine, pythons: list[str], chosen: str, stack: str
):
    machine.glibc("2.41")
    for version in pythons:
        machine.python(version)
    assert machine.choice().startswith(f"setup: {stack} on Python {chosen} ({machine.bin}/python{chosen}): the newest")


def test_exactly_glibc_2_39_is_new(machine: Machine):
    assert "TFX 1.21 on Python 3.12" in machine.glibc("2.39").python("3.12.3").choice()


def test_python3_is_found_by_its_version_not_by_its_name(machine: Machine):
    line = machine.glibc("2.41").python("3.13.5", name="python3").choice()
    assert f"TFX 1.21 on Python 3.13 ({machine.bin}/python3)" in line


def test_a_python_under_pyenv_is_found_where_no_shim_offers_it(machine: Machine, tmp_path: Path):
    folder = tmp_path / ".pyenv/versions/3.10.13/bin"
    line = machine.python("3.10.13", name="python", folder=folder).python("3.11.2", name="python3").choice()
    assert f"TFX 1.16 on Python 3.10 ({folder}/python)" in line


@pytest.mark.parametrize(("asked", "stack"), [("3.10", "TFX 1.16"), ("3.10.13", "TFX 1.16"), ("3.12", "TFX 1.21")])
def test_a_python_that_is_asked_for_is_taken(machine: Machine, asked: str, stack: str):
    machine.glibc("2.41").python("3.10.13").python("3.12.3").python("3.13.5")
    line = machine.choice(MORPH_PYTHON=asked)
    assert line.startswith(f"setup: {stack} on Python {asked} (") and f"MORPH_PYTHON={asked} asks for it" in line


def test_a_python_can_be_asked_for_by_its_path(machine: Machine, tmp_path: Path):
    machine.glibc("2.41").python("3.12.3", name="mine", folder=tmp_path / "elsewhere").python("3.13.5")
    path = str(tmp_path / "elsewhere/mine")
    assert machine.choice(MORPH_PYTHON=path).startswith(f"setup: TFX 1.21 on Python 3.12.3 ({path}): ")


# --- what is not supported --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "architecture"),
    [
        ("Linux", "aarch64"),
        ("Linux", "i686"),
        ("Linux", "ppc64le"),
        ("Darwin", "arm64"),
        ("Darwin", "x86_64"),
        ("FreeBSD", "amd64"),
        ("MINGW64_NT-10.0-19045", "x86_64"),
    ],
)
def test_other_platforms_are_refused(machine: Machine, system: str, architecture: str):
    line = machine.system(system, architecture).python("3.10.13").refusal("--check")
    assert line.startswith(f"setup: this is {system} on {architecture}, but TFX's wheels are for Linux on x86_64 only.")
    assert "`pip install morph-tfx` brings the core alone anywhere" in line


@pytest.mark.parametrize("version", [None, "3.10", "3.13"])
def test_musl_is_refused_whatever_python_is_asked_for(machine: Machine, version: str | None):
    machine.glibc(None).python("3.10.13").python("3.13.5")
    line = machine.refusal("--check", **({"MORPH_PYTHON": version} if version else {}))
    assert line == (
        "setup: no glibc here (musl, as on Alpine?), but TFX's wheels need it. "
        "Use Debian, Ubuntu or another glibc distribution."
    )


def test_a_glibc_too_old_for_any_stack_is_refused(machine: Machine):
    line = machine.glibc("2.12").python("3.10.13").refusal("--check")
    assert line.startswith("setup: glibc 2.12 is too old: TFX 1.16 needs 2.17 or newer.")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.13.5"])
@pytest.mark.parametrize("glibc", ["2.31", "2.36", "2.38"])
def test_a_glibc_too_old_for_the_python_asked_for_is_refused(machine: Machine, version: str, glibc: str):
    line = machine.glibc(glibc).python("3.13.5").refusal("--check", MORPH_PYTHON=version)
    assert line == (
        f"setup: Python {version} means TFX 1.21, which needs glibc 2.39 or newer (Debian 13, Ubuntu 24.04); this "
        f"machine has {glibc}. Unset MORPH_PYTHON or set it to 3.10, for TFX 1.16."
    )


@pytest.mark.parametrize("version", ["2.7", "3.1", "3.8", "3.9", "3.14", "3.100", "4", "pypy"])
@pytest.mark.parametrize("glibc", ["2.36", "2.41"])
def test_a_python_without_a_tfx_is_refused(machine: Machine, version: str, glibc: str):
    line = machine.glibc(glibc).refusal("--check", MORPH_PYTHON=version)
    assert line.startswith(f"setup: Python {version} is not supported")
    assert "Set MORPH_PYTHON to 3.10 (TFX 1.16) or to 3.11, 3.12 or 3.13 (TFX 1.21)." in line


@pytest.mark.parametrize("version", ["3.9.18", "3.14.0"])
def test_a_path_to_a_python_without_a_tfx_is_refused_by_its_version(machine: Machine, tmp_path: Path, version: str):
    machine.glibc("2.41").python("3.10.13").python(version, name="mine", folder=tmp_path / "elsewhere")
    line = machine.refusal("--check", MORPH_PYTHON=str(tmp_path / "elsewhere/mine"))
    assert line.startswith(f"setup: Python {version} is not supported: no TFX that we know runs on it.")


def test_a_path_to_a_python_whose_stack_needs_a_newer_glibc_is_refused(machine: Machine, tmp_path: Path):
    machine.python("3.10.13").python("3.12.3", name="mine", folder=tmp_path / "elsewhere")
    line = machine.refusal("--check", MORPH_PYTHON=str(tmp_path / "elsewhere/mine"))
    assert line.startswith("setup: Python 3.12.3 means TFX 1.21, which needs glibc 2.39 or newer")
    assert "this machine has 2.36" in line


def test_a_path_that_is_no_python_is_refused(machine: Machine):
    line = machine.refusal("--check", MORPH_PYTHON="/no/such/python")
    assert line.startswith("setup: MORPH_PYTHON=/no/such/python is not a Python that runs.")


def test_an_unknown_argument_is_refused(machine: Machine):
    assert machine.refusal("--chekc") == "setup: unknown argument '--chekc'. Usage: tools/setup.sh [--check]"


# --- what is missing --------------------------------------------------------------------------------------------------


def test_a_missing_compiler_is_named(machine: Machine):
    line = machine.without("c++").python("3.10.13").refusal("--check")
    assert line.startswith("setup: no C++ compiler") and line.endswith("apt-get install g++")


def test_missing_headers_are_named(machine: Machine):
    line = machine.python("3.10.13", header=False).refusal("--check")
    assert line.startswith(f"setup: {machine.bin}/python3.10 has no Python.h")
    assert line.endswith("apt-get install python3-dev")


def test_without_the_tfx_extra_no_compiler_is_needed(machine: Machine):
    machine.without("c++").python("3.10.13", header=False)
    assert "TFX 1.16" in machine.choice(MORPH_EXTRAS="test")


def test_a_machine_without_any_python_is_told_so(machine: Machine):
    line = machine.without("uv").refusal()
    assert line.startswith("setup: no Python found") and line.endswith("apt-get install python3")


def test_a_python_that_uv_cannot_download_is_named(machine: Machine):
    line = machine.python("3.11.2", name="python3").refusal()
    assert line.startswith("setup: no Python 3.10 on this machine, and uv could not download one.")
    assert "pyenv install 3.10" in line and "MORPH_PYTHON" in line


@pytest.mark.parametrize("pip", [True, False], ids=["with pip", "without pip and venv"])
def test_no_network_is_named_when_uv_is_fetched(machine: Machine, pip: bool):
    line = machine.without("uv").python("3.10.13", pip=pip).refusal()
    assert line.startswith("setup: no network: the package index does not answer, so uv and TFX cannot be fetched.")


def test_an_index_without_uv_is_named(machine: Machine, index: str):
    line = machine.without("uv").python("3.10.13").refusal(UV_DEFAULT_INDEX=index)
    assert line.startswith("setup: the package index did not give us uv 0.13.8; its answer is above.")


def test_no_network_is_named_when_packages_are_fetched(machine: Machine):
    line = machine.uv(syncs=False).python("3.10.13").refusal()
    assert line.startswith("setup: no network: the package index does not answer.")


def test_packages_that_do_not_install_are_not_blamed_on_the_network(machine: Machine, index: str):
    line = machine.uv(syncs=False).python("3.10.13").refusal(UV_DEFAULT_INDEX=index)
    assert line == "setup: uv could not install the locked packages; its reason is above."


def test_a_uv_too_old_for_the_lock_is_not_used(machine: Machine):
    machine.uv("0.4.30").python("3.10.13").refusal()
    assert machine.calls("--version") and not machine.calls("sync")


# --- what it does -----------------------------------------------------------------------------------------------------


def test_the_lock_is_installed_with_every_extra_on_the_chosen_python(machine: Machine):
    assert machine.python("3.10.13").run().returncode == 0
    assert machine.calls("sync") == [
        f"sync --frozen --python {machine.bin}/python3.10 "
        "--extra tfx --extra kubeflow --extra test --extra lint --extra docs"
    ]


def test_extras_can_be_chosen_and_left_out(machine: Machine):
    machine.python("3.10.13")
    assert machine.run(MORPH_EXTRAS="test").returncode == 0
    assert machine.run(MORPH_EXTRAS="").returncode == 0
    assert [call.partition("python3.10")[2] for call in machine.calls("sync")] == [" --extra test", ""]


def test_a_second_run_does_nothing(machine: Machine):
    machine.python("3.10.13")
    assert machine.run().returncode == 0
    machine.log.unlink()
    again = machine.run()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert not machine.log.exists()


@pytest.mark.parametrize("change", ["the lock", "the Python asked for", "the extras", "an interpreter that is gone"])
def test_a_change_sets_up_again(machine: Machine, change: str):
    machine.python("3.10.13")
    assert machine.run().returncode == 0
    variables = {}
    if change == "the lock":
        (machine.checkout / "uv.lock").write_text("version = 2\n")
    elif change == "the Python asked for":
        variables["MORPH_PYTHON"] = "3.10.13"
    elif change == "the extras":
        variables["MORPH_EXTRAS"] = "tfx test"
    else:
        (machine.checkout / ".venv/bin/python").unlink()
    assert machine.run(**variables).returncode == 0
    assert len(machine.calls("sync")) == 2


def test_a_failed_setup_is_tried_again(machine: Machine):
    machine.python("3.10.13")
    assert machine.run().returncode == 0
    (machine.checkout / "uv.lock").write_text("version = 2\n")
    machine.uv(syncs=False).refusal()
    assert machine.uv().run().returncode == 0
    assert len(machine.calls("sync")) == 3


def test_the_shells_own_settings_stay_outside(machine: Machine):
    leaks = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "VIRTUAL_ENV")
    assert machine.python("3.10.13").run(**dict.fromkeys(leaks, "/elsewhere")).returncode == 0
    seen = Path(f"{machine.log}.environment").read_text()
    assert "PATH=" in seen and not [name for name in leaks if f"\n{name}=" in f"\n{seen}"]


def test_this_machine_can_run_a_stack():
    result = subprocess.run(
        [ROOT / "tools/setup.sh", "--check"], env={**os.environ, "MORPH_EXTRAS": ""}, text=True, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    assert "setup: TFX 1." in result.stderr
