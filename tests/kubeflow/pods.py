"""Python modules run as a container would run them, but forked from a process that has imported TFX already.

Importing TFX takes most of the time of a small step. What is forked has loaded other people's packages and none of
ours; it gets the arguments, the working directory, the variables and the search path of a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINER = "__container__"  # what this file is called where it is run in the place of a container
# Any of these that were to run operations when imported would start threads, which do not survive a fork.
LOADED = ["tensorflow", "keras", "apache_beam", "tensorflow_transform", "tensorflow_model_analysis", "tfx.v1"]


def run_module(
    module: str, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` in a directory, with these variables alone.

    Returns:
        The exit status, negative for a signal, and what was printed to either stream.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    with tempfile.NamedTemporaryFile() as printed:
        asked = (module, list(arguments), str(directory), dict(environment), printed.name)
        # By path: where TFX is loaded, the name `tests` may belong to somebody else's package.
        process = context.Process(target=runpy.run_path, args=(__file__, {"ASKED": asked}, CONTAINER))
        process.start()
        process.join()
        log = Path(printed.name).read_text(encoding="utf-8", errors="replace")
    command = ["python", "-m", module, *arguments]
    return subprocess.CompletedProcess(command, process.exitcode or 0, stdout=log)


def _run(module: str, arguments: list[str], directory: str, environment: dict[str, str], printed: str) -> None:
    with open(printed, "wb") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    # As the interpreter would have it with -m: neither the tests nor the checkout can be imported by chance.
    own = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    others = [place for place in sys.path if place and Path(place) != ROOT and place not in own]
    sys.path[:] = [directory, *own, *others]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == CONTAINER:
    _run(*globals()["ASKED"])
