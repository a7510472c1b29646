"""What a step can ask of the cluster: what cannot work, and secrets, which are refused and not repeated."""

import pytest

from tests.pipelines.config.sample import cluster_of, error_of, expect_refusal


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("acelerator: {}", ["acelerator: unknown key; did you mean 'accelerator'?"]),
        ("accelerator: {count: 0}", ["accelerator.count: expected 1, 2, 4, 8 or 16, got 0"]),
        ("accelerator: {type: gpu}", ["accelerator.type: expected text that matches", "such as nvidia.com/gpu"]),
        ("cpu: 0", ["cpu: more than no CPU is expected, got 0"]),
        ("memory: 16", ["memory: a number with its unit is expected, got 16 without one"]),
        ("memory: 16GB", ["memory: expected text that matches", "got '16GB'", "For example: memory: 16Gi"]),
        ("timeout: 90", ["timeout: a number with its unit is expected, got 90"]),
        ("timeout: 2 hours", ["timeout: expected text that matches", "got '2 hours'", "s, m, h or d"]),
        ("retries: -1", ["retries.count: expected greater than or equal to 0, got -1"]),
        ("retries: {count: 1, longest: 2h}", ["retries: backoff <= longest <= 1h is expected", "got 30s and 2h"]),
        ("{cpu: 1, cpu_request: 1500m}", ["cpu_request (1500m) is above cpu (1), the limit"]),
        ("{memory: 1G, memory_request: 1Gi}", ["memory_request (1Gi) is above memory (1G), the limit"]),
        ("{memory: 2Gi, shared_memory: 2Gi}", ["shared_memory (2Gi) counts as memory", "(2Gi). Raise memory"]),
        ("tolerations: [{key: a}]", ["tolerations: operator Equal needs 'key' and 'value'"]),
        ("tolerations: [{key: a, operator: Exists, value: b}]", ["operator Exists takes no 'value'"]),
        ("tolerations: [{operator: Exists, seconds: 3}]", ["'seconds' counts with effect NoExecute only"]),
        ("volumes: [{pvc: a, mount: data}]", ["volumes.mount: expected text that matches", "absolute path"]),
        ("volumes: [{pvc: a, mount: /minio/x}]", ["volumes mounts /minio/x, where Kubeflow's launcher puts artifacts"]),
        ("volumes: [{pvc: a, mount: /x}, {pvc: b, mount: /x}]", ["volumes and volumes both mount /x"]),
        (
            "{shared_memory: 1Gi, volumes: [{pvc: a, mount: /dev/shm}]}",
            ["volumes and shared_memory both mount /dev/shm"],
        ),
        ("secrets: [{name: a}]", ["secrets: exactly one of 'env'", "got neither"]),
        (
            "{env: {A: b}, secrets: [{name: s, env: {A: key}}]}",
            ["the variable A is given by env and by secret s; one is expected"],
        ),
        (
            "{profile: tpu, tolerations: [{key: nvidia.com/gpu, operator: Exists}]}",
            ["accelerator.type is google.com/tpu, but toleration nvidia.com/gpu is of other nodes"],
        ),
        (
            "{accelerator: {type: google.com/tpu}, node_selector: {cloud.google.com/gke-accelerator: nvidia-l4}}",
            ["accelerator.type is google.com/tpu, but node_selector cloud.google.com/gke-accelerator: nvidia-l4 is of"],
        ),
        (
            "{profile: gpu, node_selector: {cloud.google.com/gke-tpu-topology: 2x2}}",
            ["accelerator.type is nvidia.com/gpu, but node_selector cloud.google.com/gke-tpu-topology: 2x2 is of"],
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(entry, parts):
    settings = entry if entry.startswith("{") else f"{{{entry}}}"
    expect_refusal([f"kubeflow: {{image: x, steps: {{MorphTrainer: {settings}}}}}"], ["\n  line 9: kubeflow", *parts])


@pytest.mark.parametrize(
    "entry",
    [
        "{env: {DB_PASSWORD: hunter2}}",
        "{env: {X: [hunter2]}}",
        "{secrets: hunter2}",
        "{secrets: [{name: s, value: hunter2}]}",
        "{secrets: [{name: hunter2 is no name, mount: /x}]}",
        "{secrets: [{name: s, env: {KEY: [hunter2]}}]}",
    ],
)
def test_a_secret_given_as_a_value_is_refused_and_not_repeated(entry):
    message = error_of(f"kubeflow: {{image: x, steps: {{MorphTrainer: {entry}}}}}")
    assert "kubeflow.steps.MorphTrainer" in message
    assert "hunter2" not in message


def test_a_variable_that_names_the_file_of_a_secret_is_no_secret():
    entry = "{env: {GOOGLE_APPLICATION_CREDENTIALS: /s/key.json}, secrets: [{name: gcs, mount: /s}]}"
    assert cluster_of(f"steps: {{'*': {entry}}}").settings_of("Pusher", "Pusher").env
