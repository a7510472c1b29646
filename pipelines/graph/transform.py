"""TFX's Transform, with the user's module file importable in Beam's other processes on this machine.

Workers unpickle what they run by the names of modules, and TFX imports a module file under a name that exists in its
own process only (`user_module_0`). Workers of the direct runner inherit the environment, so while the step runs, a
directory is on their path that has the file under that very name. Its neighbours are there, too, under their own:
those that this process finds beside the file, so that one called like a library does not hide it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfx import types
from tfx import v1 as tfx
from tfx.components.transform import executor
from tfx.dsl.components.base import executor_spec
from tfx.utils import import_utils, io_utils

from .environment import environment_variable

# Python imports it when it starts. When a worker ends, objects of TensorFlow outlive the modules that they need, and
# would say so on the standard error, in the middle of the account.
_SITECUSTOMIZE = """
import sys

def unless_it_ends(raised, ends=sys.is_finalizing, tell=sys.__unraisablehook__):
    if not ends():
        tell(raised)

sys.unraisablehook = unless_it_ends
"""


class Executor(executor.Executor):
    """TFX's executor, whose direct workers find the module file."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        if not exec_properties.get("module_file"):  # packed into a wheel, which TFX hands to the workers itself
            super().Do(input_dict, output_dict, exec_properties)
            return
        file = io_utils.ensure_local(exec_properties["module_file"])
        with importable_in_workers(file):
            super().Do(input_dict, output_dict, {**exec_properties, "module_file": file})


class Transform(tfx.components.Transform):
    """TFX's component with our `Executor`."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)


@contextlib.contextmanager
def importable_in_workers(file: str) -> Iterator[None]:
    """Lets processes that are started inside import what TFX makes of a module file.

    Args:
        file: path of the module file, with `preprocessing_fn`.
    """
    # TFX loads a file once and remembers its name; its executor will get the same one.
    import_utils.import_func_from_source(file, "preprocessing_fn")
    names = [name for name, module in list(sys.modules.items()) if _origin(getattr(module, "__spec__", None)) == file]
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        for name in names:
            (Path(directory) / f"{name}.py").symlink_to(file)
        for neighbour in Path(file).parent.glob("*.py"):
            name = neighbour.stem
            if name.isidentifier() and _origin(importlib.util.find_spec(name)) == str(neighbour):
                (Path(directory) / neighbour.name).symlink_to(neighbour)
        path = os.pathsep.join(filter(None, (directory, os.environ.get("PYTHONPATH"))))
        with environment_variable("PYTHONPATH", path):
            yield


def _origin(spec: Any) -> str | None:
    return getattr(spec, "origin", None)
