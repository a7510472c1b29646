"""Which settings a step gets: how entries combine, and what is refused of them together."""

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config.steps import COMPONENTS, check_names
from tests.pipelines.config.sample import cluster_of, error_of


def test_the_more_specific_entry_wins_value_by_value():
    kubeflow = cluster_of("steps: {'*': {cpu: 1, memory: 4Gi}, MorphTrainer: {cpu: 4}, MorphTrainer-2: {memory: 16Gi}}")
    assert kubeflow.settings_of("Pusher", "Pusher").given == {"cpu": "1", "memory": "4Gi"}
    assert kubeflow.settings_of("MorphTrainer-1", "MorphTrainer").given == {"cpu": "4", "memory": "4Gi"}
    assert kubeflow.settings_of("MorphTrainer-2", "MorphTrainer").given == {"cpu": "4", "memory": "16Gi"}


def test_names_are_joined_lists_are_added_and_null_takes_away():
    kubeflow = cluster_of(
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
    kubeflow = cluster_of(
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
    settings = cluster_of("steps: {Retrainer: {profile: tpu}}").settings_of("Retrainer", "Retrainer")
    assert settings.accelerator.is_tpu
    assert "cloud.google.com/gke-tpu-topology" in (settings.node_selector or {})


def test_the_short_keys_are_for_the_steps_that_train_and_give_way_to_their_entries():
    kubeflow = cluster_of(
        "accelerator: {count: 2}, cpu: 4, memory: 1.5, steps: {Retrainer: {memory: 8Gi, accelerator: null}}"
    )
    assert kubeflow.settings_of("Transform", "Transform").given == {}
    search = kubeflow.settings_of("MorphTrainer-1", "MorphTrainer")
    assert (search.accelerator.count, search.cpu, search.memory) == (2, "4", "1500M")
    retrainer = kubeflow.settings_of("Retrainer", "Retrainer")
    assert (retrainer.accelerator, retrainer.cpu, retrainer.memory) == (None, "4", "8Gi")


def test_entries_that_do_not_go_together_are_refused_for_the_step_that_gets_both():
    message = error_of("kubeflow: {image: x, steps: {'*': {cpu_request: 4}, MorphTrainer: {cpu: 2}}}")
    assert "the entries for the step MorphTrainer do not go together: cpu_request (4) is above cpu (2)" in message


def test_a_profile_does_not_take_another_one():
    message = error_of("kubeflow: {image: x, profiles: {a: {profile: gpu}}}")
    assert "profiles.a: a profile cannot take another one ('gpu')" in message


def test_a_profile_that_does_not_exist_is_compared_with_those_that_do():
    message = error_of("kubeflow: {image: x, steps: {MorphTrainer: {profile: gpuu}}}")
    assert "unknown profile 'gpuu'; did you mean 'gpu'? The profiles are gpu, tpu" in message


def test_an_entry_for_a_step_that_no_pipeline_has_is_refused():
    job = {"MorphTrainer-1": "MorphTrainer", "Pusher": "Pusher"}
    check_names(["*", "MorphTrainer", "MorphTrainer-1", *COMPONENTS], job)
    with pytest.raises(MorphError) as caught:
        check_names(["MorphTrainer-3"], job)
    assert str(caught.value) == (
        "kubeflow.steps.MorphTrainer-3: unknown step; did you mean 'MorphTrainer-1'? The steps and components of this "
        "job are MorphTrainer-1, MorphTrainer, Pusher; '*' means every step."
    )
