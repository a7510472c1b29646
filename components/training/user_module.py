"""The user's module file: packing it for executors elsewhere, loading its functions, and checking what they return.

The module is plain Keras and tf.data; nothing in it knows about morphing. It reaches the executor as a path
(`module_file`) or, packed by TFX into a wheel, as `name@wheel` (`module_path`); TFX's own loader takes both.
"""

import dataclasses
import difflib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras.src.utils import naming
from tfx.components.util import udf_utils
from tfx.dsl.components.base import base_component

from morph_core import MorphError

TRAINING = "training"
"""The argument by which an `input_fn` that has it is told whether its examples are trained on."""

# Each function: how many arguments it is called with, whether the module must have it, and how to say so.
CONTRACT = {
    "build_model": (1, True, "build_model(hparams) -> a compiled keras.Model"),
    "input_fn": (
        4,
        True,
        "input_fn(file_pattern, data_accessor, spec, batch_size) -> a tf.data.Dataset of (features, label), maybe "
        "with a fifth argument named training",
    ),
    "signatures": (2, False, "signatures(model, spec) -> {name: (function, input_signature)}"),
}


@dataclasses.dataclass(frozen=True)
class UserModule:
    """The functions of one module file."""

    source: str
    build_model: Callable[..., Any]
    input_fn: Callable[..., Any]
    signatures: Callable[..., Any] | None

    def seed(self, hparams: Mapping[str, Any]) -> keras.Model:
        """Calls `build_model` and checks that a compiled Keras 3 model comes back.

        Args:
            hparams: handed to `build_model` as a dict.

        Raises:
            MorphError: it fails, or something else came back.
        """
        # Keras numbers layers that the user did not name, per process. Numbering starts again here, so that the same
        # build_model gives the same names, and so the same fingerprint, in every component and every run. The public
        # clear_session would end the distribution strategy and the precision that the model is to be built under.
        naming.reset_uids()
        model = self._called(self.build_model, dict(hparams))
        if not isinstance(model, keras.Model):
            kind = f"{type(model).__module__}.{type(model).__qualname__}"
            advice = (
                "That is a Keras 2 model: build it with `import keras`, not tf_keras."
                if type(model).__module__.split(".")[0] == "tf_keras"
                else "Return the compiled model; a forgotten `return` gives None."
            )
            raise MorphError(
                f"build_model in {self.source} returned a {kind}; expected a compiled keras.Model. {advice}"
            )
        if not getattr(model, "compiled", False):
            raise MorphError(
                f"build_model in {self.source} returned a model that is not compiled. Training takes the "
                "optimizer, the loss and the metrics from it: call model.compile(optimizer=..., loss=..., "
                "metrics=[...]) before `return`."
            )
        return model

    def dataset(
        self, files: list[str], data_accessor: Any, spec: Any, batch_size: int, *, training: bool
    ) -> tf.data.Dataset:
        """Calls `input_fn` and checks that a dataset of (features, label) comes back.

        Args:
            files: of the split.
            data_accessor: TFX's, which reads them.
            spec: the `tft.TFTransformOutput`, or the schema.
            batch_size: examples in a batch.
            training: whether the examples are trained on; told to an `input_fn` that has an argument of that name.

        Raises:
            MorphError: it fails, or something else came back.
        """
        told = {TRAINING: training} if _asks_for_training(self.input_fn) else {}
        dataset = self._called(self.input_fn, files, data_accessor, spec, batch_size, **told)
        if not isinstance(dataset, tf.data.Dataset):
            raise MorphError(
                f"input_fn in {self.source} returned a {type(dataset).__name__}; expected a tf.data.Dataset that "
                "yields batches of (features, label)."
            )
        element = dataset.element_spec
        if not isinstance(element, tuple) or len(element) not in (2, 3):
            raise MorphError(
                f"input_fn in {self.source} yields {element}; expected tuples (features, label), or (features, label, "
                "sample_weight). With tfxio.TensorFlowDatasetOptions, label_key=... splits the label off."
            )
        return dataset

    def _called(self, function: Callable[..., Any], *arguments: Any, **told: Any) -> Any:
        try:
            return function(*arguments, **told)
        except MorphError:
            raise
        except Exception as error:
            raise MorphError(
                f"{function.__name__} in {place_in(function, self.source, error)} fails: {type(error).__name__}: "
                f"{str(error).rstrip('.')}. Correct it there; with --verbose, morph-tfx run shows the traceback."
            ) from error


def place_in(function: Callable[..., Any], source: str, error: BaseException) -> str:
    """The user's file, with the last line in it that an exception came through: "module.py, line 7,".

    Args:
        function: of the file, that was called; maybe bound to arguments by functools.partial.
        source: what to call the file.
        error: that it raised.
    """
    code = getattr(getattr(function, "func", function), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if code is not None and frame.filename == code.co_filename]
    return f"{source}, line {lines[-1]}," if lines else source


def load(exec_properties: Mapping[str, Any]) -> UserModule:
    """Loads the module that a component's execution properties name.

    Args:
        exec_properties: with `module_path` (`name@wheel` or an importable module) or `module_file` (a path).

    Raises:
        MorphError: the module cannot be found or parsed, or lacks a function.
    """
    properties = dict(exec_properties)
    # A packed module is `name@path/of/the.whl`; in messages the name says more.
    source = (properties.get("module_path") or "").split("@")[0] or properties.get("module_file")
    if not source:
        raise MorphError("No user module: give the component module_file=... (a path) or module_path=... (a module).")
    try:
        # TFX's loader hands out one function per call and loads the module anew for each. Asked for the name that every
        # module has, it loads once and tells where in sys.modules the module is.
        name: Any = udf_utils.get_fn(properties, "__name__")
    except (ImportError, OSError, SyntaxError) as error:
        reason = error.__cause__ or error
        raise MorphError(
            f"The user module {source} cannot be loaded: {type(reason).__name__}: {reason}. Check the path, and that "
            "everything the module imports is installed where the component runs."
        ) from error
    module = sys.modules[name]
    functions = {role: _function(module, role, source) for role in CONTRACT}
    return UserModule(source=source, **functions)


def package_user_module(component: base_component.BaseComponent) -> None:
    """Has TFX pack the module file into a wheel when the pipeline is compiled, as for its own Trainer.

    The wheel lies under the pipeline root, so that the module reaches executors on other machines; the packing fills
    `module_path` and clears `module_file`. A path given as a `RuntimeParameter` cannot be packed and stays a path.
    """
    if component.exec_properties.get("module_file") and udf_utils.should_package_user_modules():
        udf_utils.add_user_module_dependency(component, "module_file", "module_path")


def _asks_for_training(input_fn: Callable[..., Any]) -> bool:
    parameter = inspect.signature(input_fn).parameters.get(TRAINING)
    return parameter is not None and parameter.kind is not parameter.VAR_KEYWORD


def _function(module: Any, role: str, source: str) -> Any:
    arguments, required, expected = CONTRACT[role]
    function = getattr(module, role, None)
    if function is None and not required:
        return None
    if not callable(function):
        own = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        close = difflib.get_close_matches(role, own, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Its functions: {', '.join(sorted(own)) or 'none'}."
        raise MorphError(f"The user module {source} has no function {role}; expected {expected}. {hint}")
    try:
        told = {TRAINING: True} if role == "input_fn" and _asks_for_training(function) else {}
        inspect.signature(function).bind(*[None] * arguments, **told)
    except TypeError as error:
        raise MorphError(
            f"{role}{inspect.signature(function)} in {source} cannot be called as it will be: {error}. Expected "
            f"{expected}."
        ) from error
    return function
