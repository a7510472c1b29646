"""What steps need from the cluster: how entries combine, and what is refused."""

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config.config import KubeflowConfig, parse_config
from morph_tfx.pipelines.config.steps import COMPONENTS, check_names

BASE = """
name: digits
data: {format: tfrecord, path: data, splits: {train: train/*, eval: eval/*}}
module_file: module.py
label: label
target: 0.5
search: {epochs: 3}
retrain: {epochs: 3}
evaluate: {lower_bound: 0.9}
kubeflow: {image: x, %s}
"""


def section(text: str) -> KubeflowConfig:
    kubeflow = parse_config(BASE % text, "config.yaml", "/base").kubeflow
    assert kubeflow is not None
    return kubeflow


def error_of(text: str) -> str:
    with pytest.raises(MorphError) as caught:
        section(text)
    return str(caught.value)


def test_the_more_specific_entry_wins_value_by_value():
    kubeflow = section("steps: {'*': {cpu: 1, memory: 4Gi}, MorphTrainer: {cpu: 4}, MorphTrainer-2: {memory: 16Gi}}")
    assert kubeflow.settings_of("Pusher", "Pusher").given == {"cpu": "1", "memory": "4Gi"}
    assert kubeflow.settings_of("MorphTrainer-1", "MorphTrainer").given == {"cpu": "4", "memory": "4Gi"}
    assert kubeflow.settings_of("MorphTrainer-2", "MorphTrainer").given == {"cpu": "4", "memory": "16Gi"}


def test_names_are_joined_lists_are_added_and_null_takes_away():
    kubeflow = section(
        "steps: {'*': {env: {A: '1', B: '1'}, volumes: [{pvc: data, mount: /data}], timeout: 1h},"
        " Retrainer: {env: {B: '2'}, volumes: [{pvc: cache, mount: /cache}, {pvc: data, mount: /data}]},"
        " Pusher: {env: null, volumes: null, timeout: null}}"
    )
    retrainer = kubeflow.settings_of("Retrainer", "Retrainer")
    assert retrainer.env == {"A": "1", "B": "2"}
    assert [volume.mount for volume in retrainer.volumes or ()] == ["/data", "/cache"]
    pusher = kubeflow.settings_of("Pusher", "Pusher")
    assert (pusher.env, pusher.volumes, pusher.timeout) == (None, None, None)


def test_a_profile_lies_below_the_entry_that_names_it_and_only_the_last_one_counts():
    kubeflow = section(
        "profiles: {small: {cpu: 1, memory: 2Gi, env: {SIZE: small}}},"
        " steps: {'*': {profile: small}, MorphTrainer: {profile: gpu, shared_memory: 4Gi}, Pusher: {profile: null}}"
    )
    assert kubeflow.settings_of("Transform", "Transform").memory == "2Gi"
    trainer = kubeflow.settings_of("MorphTrainer-1", "MorphTrainer")
    assert (trainer.accelerator.type, trainer.accelerator.count) == ("nvidia.com/gpu", 1)
    assert (trainer.shared_memory, trainer.memory, trainer.env) == ("4Gi", None, None)
    assert [toleration.key for toleration in trainer.tolerations or ()] == ["nvidia.com/gpu"]
    assert kubeflow.settings_of("Pusher", "Pusher").given == {"profile": None}


def test_the_tpu_profile_selects_tpu_nodes():
    settings = section("steps: {Retrainer: {profile: tpu}}").settings_of("Retrainer", "Retrainer")
    assert settings.accelerator.is_tpu
    assert "cloud.google.com/gke-tpu-topology" in (settings.node_selector or {})


def test_the_short_keys_are_for_the_steps_that_train_and_give_way_to_their_entries():
    kubeflow = section(
        "accelerator: {count: 2}, cpu: 4, memory: 1.5, steps: {Retrainer: {memory: 8Gi, accelerator: null}}"
    )
    assert kubeflow.settings_of("Transform", "Transform").given == {}
    search = kubeflow.settings_of("MorphTrainer-1", "MorphTrainer")
    assert (search.accelerator.count, search.cpu, search.memory) == (2, "4", "1500M")
    retrainer = kubeflow.settings_of("Retrainer", "Retrainer")
    assert (retrainer.accelerator, retrainer.cpu, retrainer.memory) == (None, "4", "8Gi")


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
        ("profile: gpuu", ["unknown profile 'gpuu'; did you mean 'gpu'? The profiles are gpu, tpu"]),
    ],
)
def test_what_cannot_work_is_refused_by_name(entry, parts):
    message = error_of(f"steps: {{MorphTrainer: {entry if entry.startswith('{') else '{' + entry + '}'}}}")
    assert message.startswith("config.yaml: 1 problem\n  kubeflow")
    for part in parts:
        assert part in message


def test_entries_that_do_not_go_together_are_refused_for_the_step_that_gets_both():
    message = error_of("steps: {'*': {cpu_request: 4}, MorphTrainer: {cpu: 2}}")
    assert "the entries for the step MorphTrainer do not go together: cpu_request (4) is above cpu (2)" in message


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
    message = error_of(f"steps: {{MorphTrainer: {entry}}}")
    assert "kubeflow.steps.MorphTrainer" in message
    assert "hunter2" not in message


def test_a_variable_that_names_the_file_of_a_secret_is_no_secret():
    entry = "{env: {GOOGLE_APPLICATION_CREDENTIALS: /s/key.json}, secrets: [{name: gcs, mount: /s}]}"
    assert section(f"steps: {{'*': {entry}}}").settings_of("Pusher", "Pusher").env


def test_a_profile_does_not_take_another_one():
    assert "profiles.a: a profile cannot take another one ('gpu')" in error_of("profiles: {a: {profile: gpu}}")


def test_an_entry_for_a_step_that_no_pipeline_has_is_refused():
    job = {"MorphTrainer-1": "MorphTrainer", "Pusher": "Pusher"}
    check_names(["*", "MorphTrainer", "MorphTrainer-1", *COMPONENTS], job)
    with pytest.raises(MorphError) as caught:
        check_names(["MorphTrainer-3"], job)
    assert str(caught.value) == (
        "kubeflow.steps.MorphTrainer-3: unknown step; did you mean 'MorphTrainer-1'? The steps and components of this "
        "job are MorphTrainer-1, MorphTrainer, Pusher; '*' means every step."
    )
