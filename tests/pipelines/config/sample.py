"""A configuration in which nothing is wrong, to be changed by the tests line by line."""

from collections.abc import Iterable

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config import KubeflowConfig, PipelineConfig, parse_config

GOOD = """
name: digits
data: {format: tfrecord, path: data, splits: {train: train/*, eval: eval/*}}
module_file: module.py
label: label
target: 0.5
search: {epochs: 3}
retrain: {steps: 100, batch_size: 16}
evaluate: {lower_bound: 0.9}
"""


def config_of(*changes: str) -> PipelineConfig:
    """The good configuration with top-level lines replaced or added; 'key:' alone removes the key."""
    lines = dict(line.split(":", 1) for line in GOOD.strip().splitlines())
    for change in changes:
        key, value = change.split(":", 1)
        lines.pop(key, None)
        if value:
            lines[key] = value
    return parse_config("\n".join(f"{key}:{value}" for key, value in lines.items()), "config.yaml", "/base")


def cluster_of(text: str) -> KubeflowConfig:
    """The section on the cluster, with an image and this text."""
    kubeflow = config_of(f"kubeflow: {{image: x, {text}}}").kubeflow
    assert kubeflow is not None
    return kubeflow


def error_of(*changes: str) -> str:
    """What the configuration with these changes is answered with."""
    with pytest.raises(MorphError) as caught:
        config_of(*changes)
    return str(caught.value)


def expect_refusal(changes: Iterable[str], parts: Iterable[str]) -> None:
    """The changes are one mistake, and the message has all of these parts."""
    message = error_of(*changes)
    assert message.startswith("config.yaml: 1 problem\n  "), message
    for part in parts:
        assert part in message, message
