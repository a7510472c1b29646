"""Shields the tests from the shell: Keras, TensorFlow, Matplotlib and Rich read these settings when first imported.

`make test` clears the environment too; this file does it for a `pytest` started by hand, and for ~/.keras/keras.json,
where somebody's float16 would change every number. And says which files under tests/ are no tests, and where random
numbers start.
"""

import gc
import os
import random
import sys
from pathlib import Path

import pytest

# Modules of a few hundred megabytes are imported, and no part of them becomes garbage; see `pytest_collection_finish`.
gc.disable()

os.environ["KERAS_BACKEND"] = os.environ.get("MORPH_TEST_BACKEND", "tensorflow")
os.environ["KERAS_HOME"] = str(Path(__file__).parent / "build" / "keras")
os.environ["MPLBACKEND"] = "agg"
os.environ["TERM"] = "xterm-256color"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_GCE_CHECK", "true")
for name in ("TF_USE_LEGACY_KERAS", "TF_XLA_FLAGS", "PYTHONDONTWRITEBYTECODE", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)


def pytest_collection_finish() -> None:
    """Lets garbage be collected from here on, but seldom, and not looked for among what was imported.

    With Python's defaults that takes a sixth of the CPU time of a test of the core.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out programs that tests start: for doctests, pytest would import every module that it finds."""
    beside_tests = Path(__file__).parent / "tests" in collection_path.parents
    return True if beside_tests and collection_path.suffix == ".py" and collection_path.name[:5] != "test_" else None


def _start_random_numbers() -> None:
    """The same for every test, in any order: one that fails fails again."""
    random.seed(0)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(0)
    # Keras is not imported for it: some tests are of what is told before TensorFlow is loaded.
    if (keras := sys.modules.get("keras")) is not None:
        keras.utils.set_random_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before the fixtures."""
    _start_random_numbers()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Again, since a fixture that several tests share is made for the first of them only."""
    _start_random_numbers()
