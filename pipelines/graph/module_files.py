"""The user's module files: that they hold the functions a pipeline calls, and that TFX leaves them as files.

TFX packs a module file into a wheel and has pip install it in every step. The runners here do something simpler: a
local run takes a copy that is named by its content, and a compiled job names the file inside the container image, whose
tag plays the same part. Importing this does not import TFX.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
from pathlib import Path

from morph_core import MorphError

from ..config import PipelineConfig
from .environment import environment_variable


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
    check_is_python(key, file)
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


def check_is_python(key: str, file: Path) -> None:
    """Raises MorphError when there is no Python file; `key` is the one of the configuration that names it."""
    if not file.is_file() or file.suffix != ".py":
        raise MorphError(
            f"{key}: {file} is {'not a Python file' if file.exists() else 'not there'}. Expected the .py file with "
            "build_model and input_fn, or preprocessing_fn; 'morph-tfx init DIR' writes one to start from."
        )


def without_wheels() -> contextlib.AbstractContextManager[None]:
    """Components made inside keep their module files as they are, instead of packing them into wheels."""
    # TFX's switch, read by the components' constructors.
    return environment_variable("UNSUPPORTED_DO_NOT_PACKAGE_USER_MODULES", "1")
