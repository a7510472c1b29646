"""An example as its reader meets it: a copy of the folder, and the commands of its README as they are printed there."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Copy:
    """A copy of one example.

    Attributes:
        directory: where its files lie. The other examples are beside it.
    """

    directory: Path

    @property
    def commands(self) -> list[str]:
        """The lines of its README that are indented by four spaces, in their order."""
        return re.findall(r"^ {4}(\S.*)$", (self.directory / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    def run(self, command: str) -> str:
        """Types a command into a shell of its own in the directory, with this environment's programs.

        Returns:
            What it printed.

        Raises:
            AssertionError: it failed.
        """
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "COLUMNS": "200"}
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.directory, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def module(self, name: str) -> ModuleType:
        """One of its Python files, imported."""
        spec = importlib.util.spec_from_file_location(f"{self.directory.name}_{name}", self.directory / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def copied(name: str, directory: Path) -> Copy:
    """Copies all examples, without what earlier runs left in them, and returns one of them."""
    written = (EXAMPLES / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", *(line.rstrip("/") for line in written))
    shutil.copytree(EXAMPLES, directory / "examples", ignore=ignored)
    return Copy(directory / "examples" / name)
