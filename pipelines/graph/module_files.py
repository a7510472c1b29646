"""Where a user's module files lie while a pipeline runs.

TFX packs a module file into a wheel and has pip install it in every step. The runners here do something simpler. A
local run takes a copy of the module's directory under a name that is a hash of its content: editing the file in the
middle of a run changes nothing, and editing it before the next run makes TFX's cache notice. A compiled job names the
file inside the container image, whose tag plays the same part.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from morph_core import MorphError

from ..config import PipelineConfig


def check_functions(config: PipelineConfig) -> None:
    """Looks for the functions that the pipeline calls, without running the files: a slip is found before TFX is loaded.

    Raises:
        MorphError: a file is missing, is no Python, or lacks a function.
    """
    preprocessing_key = "module_file" if config.transform_module_file is None else "transform_module_file"
    for key, file, functions in (
        ("module_file", config.module_file, ("build_model", "input_fn")),
        (preprocessing_key, config.preprocessing_file, ("preprocessing_fn",)),
    ):
        defined = _names_in(key, Path(file))
        for function in functions:
            if "*" in defined or function in defined:
                continue
            close = difflib.get_close_matches(function, defined, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            where = "; or name the file that has it as transform_module_file" if function == "preprocessing_fn" else ""
            raise MorphError(
                f"{key}: {file} defines no {function}.{hint} Expected {', '.join(functions)} there{where}. "
                "'morph-tfx init DIR' writes a module to compare with."
            )


def _names_in(key: str, file: Path) -> set[str]:
    """Every name that a file defines or imports anywhere; '*' stands for a star import."""
    _check_is_python(key, file)
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise MorphError(f"{key}: {file}, line {error.lineno}: not valid Python: {error.msg}.") from error
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _check_is_python(key: str, file: Path) -> None:
    if not file.is_file() or file.suffix != ".py":
        raise MorphError(
            f"{key}: {file} is {'not a Python file' if file.exists() else 'not there'}. Expected the .py file with "
            "build_model and input_fn, or preprocessing_fn; 'morph-tfx init DIR' writes one to start from."
        )


def staged(config: PipelineConfig) -> PipelineConfig:
    """The configuration with its module files replaced by copies below its pipeline root, named by content."""
    files = {"module_file": config.module_file}
    if config.transform_module_file is not None:
        files["transform_module_file"] = config.transform_module_file
    update = {key: str(_stage(key, Path(file), Path(config.pipeline_root))) for key, file in files.items()}
    return config.model_copy(update=update)


def _stage(key: str, file: Path, pipeline_root: Path) -> Path:
    _check_is_python(key, file)
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
