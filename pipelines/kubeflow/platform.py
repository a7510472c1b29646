"""Adds to a compiled job what its steps need from the cluster: in the job itself, and in a second YAML document.

A job for Kubeflow Pipelines v2 may consist of two documents. The first says, for every platform alike, which image a
step runs in, with how much CPU and memory, with which accelerators and environment, how often it is started again. The
second, `platforms.kubernetes`, holds what Kubernetes alone understands: node selectors, tolerations, volumes, secrets,
time-outs. TFX's compiler writes little of the first and nothing of the second.

Neither is written by hand here. Each step's settings are given to a task of kfp's own, through the public calls of kfp
and kfp-kubernetes, in a pipeline of that one task; what their compiler makes of it is moved into the job that TFX
compiled. So the spelling of every field is the libraries', whichever version is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from google.protobuf import json_format
from kfp import dsl

from morph_core import MorphError

from ..config import KubeflowConfig, PipelineConfig, TrainingConfig
from ..config.quantities import seconds_of
from ..config.step_settings import StepSettings
from ..config.steps import check_names


def apply_settings(
    spec: dict[str, Any], config: PipelineConfig, kubeflow: KubeflowConfig, components: Mapping[str, str]
) -> dict[str, Any]:
    """Adds every step's settings to a job.

    Args:
        spec: the job as TFX compiled it, changed in place.
        config: how its steps train.
        kubeflow: the configuration's section on the cluster.
        components: what each step is, such as {"MorphTrainer-2": "MorphTrainer"}; a step that is missing here is known
            by its own name.

    Returns:
        The job's second document; empty when no step needs anything of Kubernetes' own.

    Raises:
        MorphError: an entry of `kubeflow.steps` speaks of no step or of one that runs no container, or the entries for
            a step do not go together or with its training's distribution, or kfp-kubernetes is needed and missing.
    """
    executors = spec["deploymentSpec"]["executors"]
    steps = {name: (task, label) for name, task, label in _steps(spec) if "container" in executors[label]}
    check_names(kubeflow.steps, {name: components.get(name, name) for name in steps})
    trainings = {"MorphTrainer": config.search, "Retrainer": config.retrain}
    platform: dict[str, Any] = {}
    for name, (task, label) in sorted(steps.items()):
        component = components.get(name, name)
        settings = kubeflow.settings_of(name, component)
        if component in trainings:
            check_distribution(component, trainings[component], settings)
        made, on_kubernetes = _made_by_kfp(settings)
        container = executors[label]["container"]
        if settings.image is not None:
            container["image"] = settings.image
        [made_executor] = made["deploymentSpec"]["executors"].values()
        for key in ("resources", "env"):
            if key in made_executor["container"]:
                container[key] = made_executor["container"][key]
        [made_task] = made["root"]["dag"]["tasks"].values()
        if "retryPolicy" in made_task:
            task["retryPolicy"] = made_task["retryPolicy"]
        if settings.cache is not None:
            task["cachingOptions"] = made_task["cachingOptions"]
        if on_kubernetes:
            platform[label] = on_kubernetes
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": platform}}}} if platform else {}


def check_distribution(component: str, training: TrainingConfig, settings: StepSettings) -> None:
    """Refuses a distribution of the training that the step's pod cannot serve.

    Args:
        component: "MorphTrainer" or "Retrainer".
        training: what the configuration says of its training.
        settings: of its step.

    Raises:
        MorphError: it cannot work.
    """
    if training.distribution is None:
        return
    strategy, accelerator = training.distribution.strategy, settings.accelerator
    if strategy == "multi_worker_mirrored" and "TF_CONFIG" not in (settings.env or {}):
        raise MorphError(
            f"{component}: a step of Kubeflow Pipelines is one pod, which does not know of others, so the strategy "
            "multi_worker_mirrored has no machines to share with. Use mirrored with several accelerators in one pod, "
            f"or set TF_CONFIG in kubeflow.steps.{component}.env."
        )
    if strategy == "tpu" and not (accelerator and accelerator.is_tpu):
        raise MorphError(
            f"{component}: the strategy tpu needs a TPU, but the step has "
            f"{accelerator.type if accelerator else 'no accelerator'}. Set kubeflow.steps.{component}: "
            "{profile: tpu}."
        )
    if strategy != "tpu" and accelerator and accelerator.is_tpu:
        raise MorphError(
            f"{component}: the strategy {strategy} trains on GPUs, but the step has {accelerator.type}. "
            f"Use strategy: tpu, or kubeflow.steps.{component}: {{profile: gpu}}."
        )


def _steps(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, task and executor label of every task of the job, those inside its conditions included."""
    components = spec["components"]
    for owner in (spec["root"], *components.values()):
        for name, task in owner.get("dag", {}).get("tasks", {}).items():
            component = components[task["componentRef"]["name"]]
            if "executorLabel" in component:
                yield name, task, component["executorLabel"]


def _made_by_kfp(settings: StepSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pipeline of one task with these settings, as kfp compiles it, and what Kubernetes is to know of the task."""

    @dsl.container_component
    def step():  # pyright: ignore[reportRedeclaration]
        return dsl.ContainerSpec(image=settings.image or "image")

    @dsl.pipeline(name="one-step")
    def one_step():
        task = step()
        _set_common(task, settings)
        _set_kubernetes(task, settings)

    compiled: Any = one_step
    platforms = json_format.MessageToDict(compiled.platform_spec).get("platforms", {})
    executors = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    [on_kubernetes] = executors.values() or [{}]
    return json_format.MessageToDict(compiled.pipeline_spec), on_kubernetes


def _set_common(task: Any, settings: StepSettings) -> None:
    """What every platform knows."""
    for value, set_value in (
        (settings.cpu, task.set_cpu_limit),
        (settings.cpu_request, task.set_cpu_request),
        (settings.memory, task.set_memory_limit),
        (settings.memory_request, task.set_memory_request),
        (settings.cache, task.set_caching_options),
    ):
        if value is not None:
            set_value(value)
    if settings.accelerator is not None:
        task.set_accelerator_type(settings.accelerator.type)
        task.set_accelerator_limit(settings.accelerator.count)
    for name, value in sorted((settings.env or {}).items()):
        task.set_env_variable(name, value)
    if settings.retries is not None:
        task.set_retry(
            num_retries=settings.retries.count,
            backoff_duration=f"{seconds_of(settings.retries.backoff)}s",
            backoff_factor=settings.retries.factor,
            backoff_max_duration=f"{seconds_of(settings.retries.longest)}s",
        )


def _set_kubernetes(task: Any, settings: StepSettings) -> None:
    """What Kubernetes alone knows."""
    own = (
        "node_selector",
        "tolerations",
        "volumes",
        "shared_memory",
        "secrets",
        "image_pull_secrets",
        "timeout",
    )
    if not any(getattr(settings, name) for name in own):
        return
    try:
        from kfp import kubernetes
    except ImportError as error:
        raise MorphError(
            "kubeflow.steps asks for what only Kubernetes knows (node selectors, tolerations, volumes, shared memory, "
            "secrets or a time-out), which needs kfp-kubernetes. Install it with: pip install 'morph-tfx[tfx,kubeflow]'"
        ) from error
    try:
        _ask_kubernetes(kubernetes, task, settings)
    except AttributeError as error:
        if error.obj is not kubernetes:
            raise
        raise MorphError(
            f"kubeflow.steps asks for what needs kfp-kubernetes' {error.name}, and version {version('kfp-kubernetes')} "
            "has none. Beside TFX 1.16 pip chooses this old one, since tensorflow-metadata declares an older protobuf "
            "than it runs on. Install newer ones, and let pip warn: "
            "pip install 'kfp==2.13.*' 'kfp-kubernetes==1.5.*'"
        ) from error


def _ask_kubernetes(kubernetes: Any, task: Any, settings: StepSettings) -> None:
    """Calls of kfp-kubernetes, the module that is handed in, what the settings ask for."""
    for key, value in sorted((settings.node_selector or {}).items()):
        kubernetes.add_node_selector(task, key, value)
    for taint in settings.tolerations or ():
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect, taint.seconds)
    for volume in settings.volumes or ():
        kubernetes.mount_pvc(task, volume.pvc, volume.mount)
    if settings.shared_memory is not None:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", settings.shared_memory)
    for secret in settings.secrets or ():
        if secret.mount is not None:
            kubernetes.use_secret_as_volume(task, secret.name, secret.mount)
        else:
            keys: dict[str, list[str]] = {}
            for variable, key in sorted((secret.env or {}).items()):
                keys.setdefault(key, []).append(variable)
            # kfp-kubernetes takes one variable for a key; a key that two variables want is asked for twice.
            while keys:
                kubernetes.use_secret_as_env(task, secret.name, {key: names.pop(0) for key, names in keys.items()})
                keys = {key: names for key, names in keys.items() if names}
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))
    if settings.timeout is not None:
        kubernetes.set_timeout(task, seconds_of(settings.timeout))
