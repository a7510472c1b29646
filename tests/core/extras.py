"""Tests of what an extra brings are skipped where it is not installed."""

import importlib.util

import pytest


def has_onnx() -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnxruntime", "tf2onnx"))


needs_onnx = pytest.mark.skipif(not has_onnx(), reason="the extra onnx is not installed")
without_onnx = pytest.mark.skipif(has_onnx(), reason="the extra onnx is installed")
