"""Runs a component's executor in a process of its own, as tests of distribution need it: devices are set up before TF.

    python -m tests.components.training.distributed_run '{"devices": 2, "runs": [...], ...}'

Each run is a dict with "component", "arguments" (JSON values), "inputs" (name: [artifact class, URI, split names]) and
"output" (a directory). The last line that is printed is a JSON list: for each run, the outputs' URIs by name.
"""

import json
import pathlib
import sys

import keras
import tensorflow as tf
from tfx.types import channel_utils, standard_artifacts

from morph_tfx import components
from tests.components.conftest import make


def main(request: str) -> None:
    asked = json.loads(request)
    if asked.get("devices", 1) > 1:
        [cpu] = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * asked["devices"])
    keras.utils.set_random_seed(0)
    results = []
    for run in asked["runs"]:
        artifacts = {
            name: [make(getattr(standard_artifacts, kind, None) or getattr(components, kind), uri, splits)]
            for name, (kind, uri, splits) in run["inputs"].items()
        }
        channels = {name: channel_utils.as_channel(found) for name, found in artifacts.items()}
        component = getattr(components, run["component"])(**channels, **run["arguments"])
        outputs = {
            name: [make(channel.type, pathlib.Path(run["output"]) / name / "1")]
            for name, channel in component.outputs.items()
        }
        for [artifact] in outputs.values():
            pathlib.Path(artifact.uri).mkdir(parents=True)
        renamed = {name: list(channel.get()) for name, channel in component.inputs.items()}
        component.executor_spec.executor_class().Do(renamed, outputs, component.exec_properties)
        results.append({name: artifact.uri for name, [artifact] in outputs.items()})
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
