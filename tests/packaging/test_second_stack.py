"""tools/second_stack.sh and .ci/run: what they say where the second stack cannot be made, and what a killed run leaves.

The root of these tests is a folder with bash and a few other programs, made by a stand-in for debootstrap. The mounts
and processes in it are real, so these tests run where root may make namespaces, and say so where not.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("bash", "cat", "sleep")
FIRST = "sleep 301"  # what stands for the first stack's tests where .ci/run is killed

# Makes a root whose only program of note is `make`: it writes down what it was asked and what it saw.
DEBOOTSTRAP = """#!/usr/bin/env bash
echo "$*" >> {folder}/debootstrap.log
root=${{@: -2:1}}
mkdir -p "$root"/{{usr/bin,dev,proc,etc,tmp}} && ln -s usr/bin "$root/bin"
[ ! -e {folder}/slow ] || {{ touch {folder}/started; sleep 300; }}
for name in {programs}; do
  cp "$(command -v $name)" "$root/usr/bin/$name"
  for library in $(ldd "$(command -v $name)" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname $library)" && cp -L "$library" "$root$library"
  done
done
cp {folder}/make "$root/usr/bin/make"
[ ! -e {folder}/broken ] || {{ echo "E: no such suite"; exit 1; }}
"""
MAKE = """#!/bin/bash
echo "make $*"
declare -x
for file in /src/morph-tfx/* /etc/resolv.conf; do echo "$file: $(cat $file)"; done
while read -r _ mounted _; do echo "mounted: $mounted"; done < /proc/mounts
[ "${!#}" != ARGS=fail ] || exit 2
[ "${!#}" != ARGS=wait ] || { echo started; sleep 300; }
"""


class Machine:
    """A checkout, a folder of commands that goes before PATH, and what the two scripts say there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkout, self.bin = folder, folder / "checkout", folder / "bin"
        self.root = self.checkout / ".tools/debian13/root"
        self.bin.mkdir()
        for name in ("tools/second_stack.sh", ".ci/run"):
            (self.checkout / name).parent.mkdir(parents=True)
            shutil.copy(ROOT / name, self.checkout / name)
        (self.checkout / "module.py").write_text("tracked")
        (self.checkout / ".gitignore").write_text(".tools/\nbuild/\nignored.txt\n")
        (self.checkout / "ignored.txt").write_text("secret")
        subprocess.run(["git", "init", "--quiet"], cwd=self.checkout, check=True)
        self.command("make", MAKE, folder)
        self.command("debootstrap", DEBOOTSTRAP.format(folder=folder, programs=" ".join(PROGRAMS)))

    def command(self, name: str, text: str, folder: Path | None = None) -> "Machine":
        path = (folder or self.bin) / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return self

    def says(self, name: str, answer: str, status: int = 0) -> "Machine":
        return self.command(name, f"#!/usr/bin/env bash\necho '{answer}'\nexit {status}\n")

    def without(self, name: str) -> "Machine":
        """A PATH that has everything but this command."""
        for folder in os.environ["PATH"].split(os.pathsep):
            for path in Path(folder).glob("*"):
                if not (self.bin / path.name).exists():
                    (self.bin / path.name).symlink_to(path)
        (self.bin / name).unlink(missing_ok=True)
        return self

    @property
    def environment(self) -> dict[str, str]:
        path = os.environ["PATH"]
        if (self.bin / "env").exists():
            path = ""
        return {**os.environ, "PATH": f"{self.bin}{os.pathsep}{path}", "HOME": str(self.folder), "LEAK": "secret"}

    def run(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.checkout / "tools/second_stack.sh", *arguments],
            env={**self.environment, **variables}, text=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def refusal(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.returncode == 77, result.stderr
        return result.stderr.splitlines()[-1]

    def start(self, *arguments: str, script: str = "tools/second_stack.sh") -> "subprocess.Popen[bytes]":
        # What runs under nohup ignores SIGHUP, and so would the script, without a way to change it.
        with (self.folder / "output").open("wb") as output:
            return subprocess.Popen(
                ["env", "--default-signal=HUP", self.checkout / script, *arguments],
                env=self.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def processes(self, *, first_stack: bool = True) -> list[str]:
        """The commands that a script of this checkout started, in the root or outside."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode().replace("\0", " ")
                ours = str(self.folder) in f"{os.readlink(process / 'root')} {(process / 'environ').read_bytes()!r}"
            except OSError:
                continue  # it ended meanwhile, or is the kernel's
            if ours and command and (first_stack or FIRST not in command):
                found.append(command)
        return found


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def able(machine: Machine) -> Machine:
    result = machine.run("--check")
    if result.returncode == 77:
        pytest.skip(result.stderr.strip())
    assert result.stderr == "second stack: can be made here\n"
    return machine


# --- where it cannot be made ------------------------------------------------------------------------------------------


def test_another_platform_is_named(machine: Machine):
    machine.command("uname", "#!/usr/bin/env bash\n[ $1 = -s ] && echo Darwin || echo arm64\n")
    assert "NOT RUN: it cannot be made here: this is Darwin on arm64" in machine.refusal()


def test_a_user_who_is_not_root_is_told_so(machine: Machine):
    assert "a Debian root can be made by root only. Run it with sudo" in machine.says("id", "1000").refusal()


def test_a_missing_debootstrap_is_named(machine: Machine):
    line = machine.says("id", "0").without("debootstrap").refusal()
    assert line.endswith("debootstrap is missing. Install it: apt-get install debootstrap")


def test_a_container_without_the_right_to_mount_is_named(machine: Machine):
    line = machine.says("id", "0").says("unshare", "unshare failed: Operation not permitted", 1).refusal("--check")
    assert "does not let root make a mount namespace" in line


def test_a_failed_debootstrap_is_shown_and_leaves_no_root(able: Machine):
    (able.folder / "broken").touch()
    result = able.run()
    assert result.returncode == 77
    assert "E: no such suite" in result.stderr
    assert "Another mirror can be named with MORPH_DEBIAN_MIRROR" in result.stderr.splitlines()[-1]
    assert sorted(path.name for path in able.root.parent.iterdir()) == ["debootstrap.log", "lock"]


CLASSIC = """# a comment
deb http://one/debian bookworm main
deb [arch=amd64 signed-by=/key] https://two/debian bookworm main
deb http://security/debian-security bookworm-security main
deb-src http://source/debian bookworm main
"""
DEB822 = """Types: deb
URIs: http://three/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://other/debian
Suites: stable
"""


@pytest.mark.parametrize(
    ("system", "files", "expected"),
    [
        ("debian", {"sources.list": CLASSIC}, ["http://one/debian", "https://two/debian"]),
        ("debian", {"sources.list.d/more.list": CLASSIC}, ["http://one/debian", "https://two/debian"]),
        ("debian", {"sources.list.d/debian.sources": DEB822}, ["http://three/debian"]),
        (
            "debian",
            {"sources.list": CLASSIC, "sources.list.d/debian.sources": DEB822},
            ["http://three/debian", "http://one/debian", "https://two/debian"],
        ),
        ("debian", {}, []),
        ("ubuntu", {"sources.list": CLASSIC}, []),
    ],
)
def test_debian_comes_from_this_machines_own_mirrors_and_then_from_debians(
    able: Machine, system: str, files: dict[str, str], expected: list[str]
):
    """The machine's apt and release are shown to the script in a mount namespace, which ends with it."""
    (able.folder / "os-release").write_text(f"ID={system}\nVERSION_CODENAME=bookworm\n")
    for name, text in {"sources.list.d/unrelated.list": "", **files}.items():
        (able.folder / "apt" / name).parent.mkdir(parents=True, exist_ok=True)
        if text:
            (able.folder / "apt" / name).write_text(text)
    (able.folder / "broken").touch()  # so that every mirror is tried
    shown = 'mount --bind "$0/apt" /etc/apt && mount --bind "$0/os-release" "$(realpath /etc/os-release)" && exec "$@"'
    command = ["unshare", "--mount", "bash", "-c", shown, able.folder, able.checkout / "tools/second_stack.sh"]
    result = subprocess.run(command, env=able.environment, text=True, capture_output=True, timeout=60)
    assert result.returncode == 77, result.stderr
    tried = [line.split()[-1] for line in (able.folder / "debootstrap.log").read_text().splitlines()]
    assert tried == [*expected, "http://deb.debian.org/debian"]


def test_an_unknown_argument_is_refused(machine: Machine):
    result = machine.run("--chekc")
    assert result.returncode == 2
    assert result.stderr.startswith("second stack: unknown argument '--chekc'. Usage: ")


# --- what it does -----------------------------------------------------------------------------------------------------


def test_the_tests_run_in_a_root_that_is_made_once(able: Machine):
    first = able.run("--", "tests/core", "-x", MORPH_DEBIAN_MIRROR="http://mirror/debian")
    assert first.returncode == 0, first.stderr
    assert "make test ARGS=tests/core -x\n" in first.stdout
    assert "second stack: passed after 0 min" in first.stderr
    (call,) = (able.folder / "debootstrap.log").read_text().splitlines()
    assert "--force-check-gpg" in call and call.endswith(f"trixie {able.root}.partial http://mirror/debian")

    (able.checkout / "module.py").unlink()
    (able.checkout / "new.py").write_text("untracked")
    second = able.run()
    assert "make test ARGS=tests/core tests/components tests/e2e/" in second.stdout
    assert "new.py: untracked" in second.stdout and "module.py" not in second.stdout
    assert (able.folder / "debootstrap.log").read_text().splitlines() == [call]


def test_the_root_sees_the_checkouts_files_and_the_settings_of_the_network_only(able: Machine):
    seen = able.run(https_proxy="http://proxy:3128", UV_DEFAULT_INDEX="http://mirror/simple/").stdout
    assert "/src/morph-tfx/module.py: tracked" in seen
    assert 'https_proxy="http://proxy:3128"' in seen and 'UV_DEFAULT_INDEX="http://mirror/simple/"' in seen
    assert f"/etc/resolv.conf: {Path('/etc/resolv.conf').read_text().strip()}" in seen
    assert "secret" not in seen
    assert (able.root / "etc/resolv.conf").read_text() == "", "shown to the root, not copied into it"


def test_failing_tests_fail_the_run(able: Machine):
    result = able.run("--", "fail")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "second stack: FAILED (2) after 0 min"


def test_a_root_half_made_when_the_run_was_killed_is_made_anew(able: Machine):
    (able.folder / "slow").touch()
    process = able.start()
    until((able.folder / "started").exists)
    process.kill()
    process.wait()
    until(lambda: able.processes() == [])
    assert not able.root.exists()
    (able.folder / "slow").unlink()
    assert able.run().returncode == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("script", ["tools/second_stack.sh", ".ci/run"])
def test_a_killed_run_leaves_no_mount_and_no_process(able: Machine, how: signal.Signals, script: str):
    able.command("make", "#!/bin/bash\necho started; sleep 300\n", able.folder)
    able.command("make", f"#!/bin/bash\nexec {FIRST}\n").says("apt-get", "").says("python3", "").says("c++", "")
    able.command("tools/setup.sh", "#!/bin/bash\n", able.checkout)
    process = able.start(script=script)
    output = able.checkout / "build/second_stack.log" if script == ".ci/run" else able.folder / "output"
    until(lambda: output.exists() and "\nstarted\n" in output.read_text())
    until(lambda: "sleep 300 " in able.processes())  # the test sees what runs in the root
    process.send_signal(how)
    process.wait()
    until(lambda: able.processes(first_stack=False) == [])
    assert str(able.folder) not in Path("/proc/self/mountinfo").read_text()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


# --- .ci/run ----------------------------------------------------------------------------------------------------------


OLD = "TFX 1.16 on Python 3.10 (/usr/bin/python3.10): TFX 1.21 would need glibc 2.39, this machine has 2.36."
NEW = "TFX 1.21 on Python 3.13 (/usr/bin/python3.13): the newest that this machine has; glibc 2.41 runs TFX 1.21."


def ci(
    machine: Machine, *, first: int, second: int, said: str, checked: int = 0, own: str = OLD
) -> "subprocess.CompletedProcess[str]":
    """.ci/run on a machine of its `own` stack, where `make test` and the second stack end so."""
    machine.says("make", "first ran", first).says("apt-get", "").says("c++", "").says("python3", "")
    machine.command("tools/setup.sh", f"#!/bin/bash\necho 'setup: {own}' >&2\n", machine.checkout)
    stand_in = f"""#!/bin/bash
echo 'second stack: {said}' >&2
if [ "${{1:-}}" = --check ]; then exit {checked}; else exit {second}; fi
"""
    machine.command("tools/second_stack.sh", stand_in, machine.checkout)
    return subprocess.run(
        [machine.checkout / ".ci/run"], env=machine.environment, text=True, capture_output=True, timeout=60
    )


@pytest.mark.parametrize(("first", "second", "status"), [(0, 0, 0), (2, 0, 1), (0, 2, 1), (0, 77, 0), (2, 77, 1)])
def test_ci_fails_when_either_stack_does_and_says_how_each_ended(
    machine: Machine, first: int, second: int, status: int
):
    result = ci(machine, first=first, second=second, said="it ended so")
    assert result.returncode == status, result.stderr
    own, other = result.stdout.splitlines()[-2:]
    assert own == f"ci: this machine's stack: {'FAILED (2)' if first else 'passed'} after 0 min"
    assert other == "ci: second stack: it ended so"


def test_ci_says_at_both_ends_why_the_second_stack_is_not_run(machine: Machine):
    result = ci(machine, first=0, second=0, said="NOT RUN: it cannot be made here: no.", checked=77)
    assert result.returncode == 0, result.stderr
    line = "ci: second stack: NOT RUN: it cannot be made here: no."
    assert line in result.stderr and result.stdout.splitlines()[-1] == line


def test_ci_runs_no_second_stack_where_it_is_the_machines_own(machine: Machine):
    result = ci(machine, first=0, second=2, said="it ended so", own=NEW)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith(
        "ci: second stack: NOT RUN apart: this machine's own stack is TFX 1.21"
    )
    assert "it ended so" not in result.stdout
