"""Shields the tests from the shell: Keras, TensorFlow, Matplotlib and Rich read these settings when first imported.

`make test` clears the environment too; this file does it for a `pytest` started by hand, and for ~/.keras/keras.json,
where somebody's float16 would change every number.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = os.environ.get("MORPH_TEST_BACKEND", "tensorflow")
os.environ["KERAS_HOME"] = str(Path(__file__).parent / "build" / "keras")
os.environ["MPLBACKEND"] = "agg"
os.environ["TERM"] = "xterm-256color"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_GCE_CHECK", "true")
for name in ("TF_USE_LEGACY_KERAS", "TF_XLA_FLAGS", "PYTHONDONTWRITEBYTECODE", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)
