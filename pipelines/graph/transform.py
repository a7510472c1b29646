"""TFX's Transform, with the user's module file importable in Beam's other processes on this machine.

What `preprocessing_fn` gets wrong is told in one message, and labels that it leaves text become numbers by a vocabulary
(`Preprocessing`).

Workers unpickle what they run by the names of modules, and TFX imports a module file under a name that exists in its
own process only (`user_module_0`). Workers of the direct runner inherit the environment, so while the step runs, a
directory is on their path that has the file under that very name. Its neighbours are there, too, under their own:
those that this process finds beside the file, so that one called like a library does not hide it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tfx import types
from tfx import v1 as tfx
from tfx.components.transform import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils
from tfx.utils import import_utils, io_utils, json_utils

from morph_core import MorphError
from morph_tfx.components.training.labels import LABEL_CLASSES
from morph_tfx.components.training.user_module import place_in

from .environment import environment_variable

_STORED = (tf.float32, tf.int64, tf.string)  # what a tf.train.Example can hold, as Transform insists

LABEL = "label"
"""The entry of Transform's `custom_config` that names the label, where it may be text."""

# Python imports it when it starts. When a worker ends, objects of TensorFlow outlive the modules that they need, and
# would say so on the standard error, in the middle of the account.
_SITECUSTOMIZE = """
import sys

def unless_it_ends(raised, ends=sys.is_finalizing, tell=sys.__unraisablehook__):
    if not ends():
        tell(raised)

sys.unraisablehook = unless_it_ends
"""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """A user's `preprocessing_fn`, whose mistakes end in one message, and whose labels end as numbers.

    A label that is still text afterwards becomes its number in a vocabulary of all labels of the training split, in an
    order that does not depend on how often each is there, so that a retraining on other examples keeps it.

    Attributes:
        function: the user's.
        source: the file that it is in, for messages.
        label: the name of the label, if it may be text.
    """

    function: Callable[..., Any]
    source: str
    label: str | None = None

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        try:
            outputs = self.function(inputs)
        except KeyError as error:
            if error.args and error.args[0] in inputs:
                raise
            place = place_in(self.function, self.source, error)
            raise MorphError(
                f"preprocessing_fn in {place} asks for {error}, which is not there. The examples have the features "
                f"{', '.join(sorted(inputs))}."
            ) from error
        except (TypeError, ValueError, AttributeError, tf.errors.OpError) as error:
            received = ", ".join(f"{name}: {_described(value)}" for name, value in sorted(inputs.items()))
            place = place_in(self.function, self.source, error)
            raise MorphError(
                f"preprocessing_fn in {place} fails: {type(error).__name__}: {error}. It was given "
                f"{received}. Make it fit these features, or correct the examples."
            ) from error
        if not isinstance(outputs, Mapping):
            raise MorphError(
                f"preprocessing_fn in {self.source} returned a {type(outputs).__name__}; expected a dict of tensors by "
                "name. A forgotten `return` gives None."
            )
        for name, made in outputs.items():
            if getattr(made, "dtype", tf.float32) not in _STORED:
                raise MorphError(
                    f"preprocessing_fn in {self.source} makes {name!r} of {made.dtype.name}, and examples hold "
                    "float32, int64 and text only. Cast it: "
                    f"tf.cast(..., tf.{'float32' if made.dtype.is_floating else 'int64'})."
                )
        value = outputs.get(self.label) if self.label else None
        if getattr(value, "dtype", None) != tf.string:
            return outputs
        numbers = tft.compute_and_apply_vocabulary(value, vocab_filename=LABEL_CLASSES, fingerprint_shuffle=True)
        return {**outputs, self.label: numbers}


def _described(value: Any) -> str:
    sparse = "" if isinstance(value, tf.Tensor) else "sparse "
    return f"{sparse}{value.dtype.name} {tuple(value.shape)}"


class Executor(executor.Executor):
    """TFX's executor, whose direct workers find the module file."""

    _source, _label = "the module file", None

    def _GetPreprocessingFn(self, inputs: Mapping[str, Any], unused_outputs: Mapping[str, Any]) -> Preprocessing:
        return Preprocessing(super()._GetPreprocessingFn(inputs, unused_outputs), self._source, self._label)

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        self._label = (json_utils.loads(exec_properties.get("custom_config") or "null") or {}).get(LABEL)
        # A packed module is `name@path/of/the.whl`.
        self._source = exec_properties.get("module_file") or str(exec_properties.get("module_path")).split("@")[0]
        if not exec_properties.get("module_file"):  # packed into a wheel, which TFX hands to the workers itself
            with told_by_feature(input_dict["examples"]):
                super().Do(input_dict, output_dict, exec_properties)
            return
        file = io_utils.ensure_local(exec_properties["module_file"])
        with importable_in_workers(file), told_by_feature(input_dict["examples"]):
            super().Do(input_dict, output_dict, {**exec_properties, "module_file": file})


class Transform(tfx.components.Transform):
    """TFX's component with our `Executor`."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)


# How TFX says, from deep inside of Beam, that an example does not have what the schema says of a feature.
_DEPARTURES = re.compile(
    r"""handling tensor '(?P<lacking>[^']+)'|wrong type, expected .* for feature "(?P<other>[^"]+)\""""
)


@contextlib.contextmanager
def told_by_feature(examples: Sequence[types.Artifact]) -> Iterator[None]:
    """Turns Beam's account of an example that departs from the schema into a message that names feature and record.

    Args:
        examples: that are read in the block.

    Raises:
        MorphError: an example lacks a feature of the schema, or has it in another type.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        departure = None if isinstance(error, MorphError) else _DEPARTURES.search(str(error))
        if departure is None:
            raise
        name = departure["lacking"] or departure["other"]
        reason = "is missing in some examples" if departure["lacking"] else "is of another type in some examples"
        raise MorphError(
            f"The feature {name!r} {reason}, and the schema says that all have it alike: {_record_of(examples, name)}. "
            "Correct the examples; or search anew, which infers another schema."
        ) from error


def _record_of(examples: Sequence[types.Artifact], name: str) -> str:
    """Where the first record lies that lacks a feature, or has another type of it than the records before."""
    usual = None
    for artifact in examples:
        for split in artifact_utils.decode_split_names(artifact.split_names):
            pattern = os.path.join(artifact_utils.get_split_uri([artifact], split), "*")
            for path in sorted(tf.io.gfile.glob(pattern)):
                records = tf.data.TFRecordDataset(path, compression_type="GZIP" if path.endswith(".gz") else "")
                for number, record in enumerate(records.as_numpy_iterator(), 1):
                    feature = tf.train.Example.FromString(record).features.feature
                    kind = feature[name].WhichOneof("kind") if name in feature else None
                    if not kind or not getattr(feature[name], kind).value or kind != (usual or kind):
                        return f"record {number} of split {split!r} in {path} has {kind or 'none'}"
                    usual = kind
    return f"all have {usual}"


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
