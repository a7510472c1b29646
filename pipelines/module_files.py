"""Where a user's module files lie while a pipeline runs.

TFX packs a module file into a wheel and has pip install it in every step. The runners here do something simpler. A
local run takes a copy of the module's directory under a name that is a hash of its content: editing the file in the
middle of a run changes nothing, and editing it before the next run makes TFX's cache notice. A compiled job names the
file inside the container image, whose tag plays the same part.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from morph_core import MorphError

from .config import PipelineConfig


def staged(config: PipelineConfig) -> PipelineConfig:
    """The configuration with its module files replaced by copies below its pipeline root, named by content."""
    files = {"module_file": config.module_file}
    if config.transform_module_file is not None:
        files["transform_module_file"] = config.transform_module_file
    update = {key: str(_stage(key, Path(file), Path(config.pipeline_root))) for key, file in files.items()}
    return config.model_copy(update=update)


def _stage(key: str, file: Path, pipeline_root: Path) -> Path:
    if not file.is_file() or file.suffix != ".py":
        raise MorphError(
            f"{key}: {file} is {'not a Python file' if file.exists() else 'not there'}. Expected the .py file with "
            "build_model and input_fn, or preprocessing_fn; 'morph-tfx init DIR' writes one to start from."
        )
    # The neighbours too, as TFX packs them: a module may import from them.
    sources = sorted(file.parent.glob("*.py"))
    digest = hashlib.sha256()
    for source in sources:
        content = source.read_bytes()
        digest.update(f"{source.name}\0{len(content)}\0".encode() + content)
    directory = pipeline_root / "_modules" / digest.hexdigest()[:16]
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent))
        for source in sources:
            shutil.copyfile(source, temporary / source.name)
        temporary.chmod(0o755)
        try:
            temporary.rename(directory)
        except OSError:
            shutil.rmtree(temporary)
            if not directory.is_dir():  # otherwise another run was faster, with the same content
                raise
    return directory / file.name


@contextlib.contextmanager
def importable(*files: str) -> Iterator[None]:
    """The directories of these files on `sys.path`, so that a module file can import its neighbours."""
    directories = list(dict.fromkeys(str(Path(file).parent) for file in files))
    sys.path += directories  # at the end: a neighbour called like a library must not hide it
    try:
        yield
    finally:
        for directory in directories:
            with contextlib.suppress(ValueError):
                sys.path.remove(directory)


@contextlib.contextmanager
def without_wheels() -> Iterator[None]:
    """Components made inside keep their module files as they are, instead of packing them into wheels."""
    name = "UNSUPPORTED_DO_NOT_PACKAGE_USER_MODULES"  # TFX's switch, read by the components' constructors
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
