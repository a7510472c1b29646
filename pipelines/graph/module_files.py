"""The user's module files: that they hold the functions a pipeline calls, and that TFX leaves them as files.

TFX packs a module file into a wheel and has pip install it in every step. The runners here do something simpler: a
local run takes a copy that is named by its content, and a compiled job names the file inside the container image, whose
tag plays the same part. Importing this does not import TFX.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
from collections.abc import Collection, Mapping
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


def check_features_read(file: Path, features: Collection[str]) -> None:
    """Looks for features that `preprocessing_fn` asks for by name and that no example has, without running the file.

    Only what is plain to see is found: `inputs["age"]`, and `inputs[AGE]` where AGE is a text at the file's top level.
    What the function tests for or sets itself is left to it.

    Args:
        file: with `preprocessing_fn`.
        features: that the examples have.

    Raises:
        MorphError: it asks for one that is not among them; file and line are named.
    """
    tree = ast.parse(file.read_bytes(), filename=str(file))
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name == "preprocessing_fn" and function.args.args:
            for name, line in _keys_read(function, function.args.args[0].arg, constants):
                if name not in features:
                    close = difflib.get_close_matches(name, features, n=1)
                    hint = f" Did you mean {close[0]!r}?" if close else ""
                    raise MorphError(
                        f"{file}, line {line}: preprocessing_fn asks for the feature {name!r}, which the examples do "
                        f"not have.{hint} They have: {', '.join(sorted(features))}."
                    )


def _keys_read(function: ast.FunctionDef, inputs: str, constants: Mapping[str, str]) -> list[tuple[str, int]]:
    """The keys that a function takes out of its argument in any case, each with its line."""
    nodes = list(ast.walk(function))
    if any(isinstance(node, ast.Try) for node in nodes):
        return []
    if any(isinstance(node, ast.Name) and node.id == inputs and isinstance(node.ctx, ast.Store) for node in nodes):
        return []

    def key_of(node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return constants.get(node.id)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

    known = {
        key_of(node.left)
        for node in nodes
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn)
    }
    read = []
    for node in nodes:
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == inputs:
            key = key_of(node.slice)
            if isinstance(node.ctx, ast.Store):
                known.add(key)
            elif key is not None:
                read.append((key, node.lineno))
    return [(key, line) for key, line in read if key not in known]


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
