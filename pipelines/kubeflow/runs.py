"""Starts a run of a compiled job on Kubeflow Pipelines, and no second one when an answer is lost.

A run has a name of its own, chosen before the first request.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from .api import KubeflowApi
from .upload import Job, Version, runtime_config, upload, version_of, version_reference


@dataclass(frozen=True)
class Run:
    """A run that was started."""

    run_id: str
    name: str
    url: str
    version: Version
    started: bool  # by this call


def experiment_id(api: KubeflowApi, name: str) -> str:
    """The id of an experiment, which is created where there is none of this name."""

    def find() -> Any:
        listed = api.experiments.experiment_service_list_experiments
        return next(api.each("look for the experiment", listed, "experiments", name, **api.scope), None)

    body = kfp_server_api.V2beta1Experiment(display_name=name, **api.scope)
    what = f"create the experiment {name!r}"
    make = api.experiments.experiment_service_create_experiment
    found, _ = api.create(what, find, make, body, key="experiment_id")
    return found.experiment_id


def submit(
    api: KubeflowApi,
    job: Job,
    experiment: str | None = None,
    run_name: str | None = None,
    service_account: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Run:
    """Uploads a job and starts one run of it.

    Args:
        experiment: the experiment that the run belongs to; by default it is named after the pipeline.
        run_name: by default one that no other run has. With a name of your own, a run of this job that has it already
            is the run that is meant, and none is started.
        parameters: values that this run is given, by name, as `values_of` makes them.

    Raises:
        MorphError: as `KubeflowApi.call`.
    """
    version = upload(api, job)
    experiment_ = experiment_id(api, experiment or job.pipeline)
    moment = datetime.datetime.now(datetime.timezone.utc)
    name = run_name or f"{job.version}-{moment:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"

    def runs() -> list[Any]:
        listed = api.each("look for the run", api.runs.run_service_list_runs, "runs", name, experiment_id=experiment_)
        same = [run for run in listed if version_of(run) == (version.pipeline_id, version.version_id)]
        return sorted(same, key=lambda run: run.created_at)

    body = kfp_server_api.V2beta1Run(
        display_name=name,
        experiment_id=experiment_,
        pipeline_version_reference=version_reference(version.pipeline_id, version.version_id),
        runtime_config=runtime_config(job.root, parameters or {}),
        service_account=service_account,
    )
    what = f"start the run {name!r}"
    again = f"Give the command with --run-name {name}, which starts no second run."
    started, made = api.create(
        what, lambda: next(iter(runs()), None), api.runs.run_service_create_run, body, key="run_id", again=again
    )
    if made:
        # A request that timed out can be executed after we looked for its effect and asked again.
        first, *surplus = runs() or [started]
        for run in surplus:
            api.say(f"{name!r} was started twice, because an answer was lost; removing {run.run_id}.")
            api.remove(f"stop the run {run.run_id}", api.runs.run_service_terminate_run, run.run_id)
            api.remove(f"delete the run {run.run_id}", api.runs.run_service_delete_run, run.run_id)
        started = first
    return Run(started.run_id, name, f"{api.endpoint}/#/runs/details/{started.run_id}", version, made)
