"""What the reader of a compiled job should know: how it differs from a local run, and what the cluster must have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import KubeflowConfig, PipelineConfig, PipelineKind, is_uri
from ..config.location import only_the_launcher_reads
from ..config.steps import TRAINING
from .parameters import Parameter


def notes_on(
    config: PipelineConfig, kubeflow: KubeflowConfig, pipeline: PipelineKind, parameters: Sequence[Parameter]
) -> list[str]:
    """What this job does that its reader may not expect, one sentence or two each."""
    files = sorted({Path(config.module_file).name, Path(config.preprocessing_file).name})
    notes = [f"The image must hold {' and '.join(files)} in {kubeflow.module_dir}."]
    push_to, structure = kubeflow.push_to or config.push_to, kubeflow.structure or config.retrain_pipeline.structure
    compares = config.budgets is None if pipeline == "morph" else structure is not None
    baseline = kubeflow.baseline_model if compares else None
    if pipeline == "retrain" and structure is None:
        notes.append(
            f"It retrains the structure of the newest model below {push_to} when it runs, and compares the new model "
            "with that one."
        )
        if config.data.has_spans:
            notes.append(
                "A run ends after PushedStructure where that model was trained on the newest span already, as it is "
                "there, with these settings, module files and versions."
            )
    else:
        if pipeline == "retrain":
            notes.append(f"It retrains {structure}.")
        if pipeline == "morph" and config.budgets is not None:
            notes.append(
                "The networks of several budgets are compared with each other, and with no earlier model; what "
                "'choose' picks is pushed when it meets the absolute bound."
            )
        elif kubeflow.baseline_model is None:
            notes.append(
                "No baseline: open-source Kubeflow cannot look up the latest blessed model, so a model is pushed when "
                "it meets the absolute bound. Set kubeflow.baseline_model to compare with one."
            )
        else:
            notes.append(f"A new model is compared with {kubeflow.baseline_model}, not with the latest blessed one.")
    searches, retrains = pipeline == "morph", pipeline == "retrain" or config.finish != "in_place"
    for component, there in zip(TRAINING, (searches, retrains), strict=True):
        if not there:
            continue
        if kubeflow.settings_of(component, component).accelerator is None:
            notes.append(
                f"No accelerator: {component} runs on CPUs. Otherwise set kubeflow.steps.{component}: {{profile: gpu}}."
            )
    measures = "DeviceCalibrator"
    if searches and config.calibrate is not None and kubeflow.settings_of(measures, measures).accelerator is None:
        notes.append(
            f"No accelerator: {measures} measures the CPUs of the node that it comes to. Put it on a node like those "
            f"that will serve: kubeflow.steps.{measures}: {{profile: gpu}}."
        )
    if kubeflow.checkpoint_dir is None:
        notes.append(
            "No checkpoints: a training step that is preempted starts from the beginning. Otherwise set "
            "kubeflow.checkpoint_dir to a gs:// address or a directory on a volume of the training steps."
        )
    for key, path, override in (
        ("data.path", kubeflow.data_path or config.data.path, "kubeflow.data_path"),
        ("push_to", push_to, "kubeflow.push_to"),
    ):
        if not is_uri(path):
            notes.append(f"{key} is {path}, a path that every pod must be able to see. Otherwise set {override}.")
    for key, path, override, step in (
        ("retrain_pipeline.structure", structure if pipeline == "retrain" else None, "kubeflow.structure", "Structure"),
        ("kubeflow.baseline_model", baseline, "it to an address", "BaselineModel"),
    ):
        if path is not None and not is_uri(path):
            notes.append(
                f"{key} is {path}, a path on a volume that the step {step} must mount. Otherwise set {override}."
            )
        elif path is not None and only_the_launcher_reads(path):
            notes.append(f"{key} is {path}, which must be an artifact of an earlier run: only Kubeflow reads there.")
    listed = ", ".join(f"{one.name} ({one.default if one.default != '' else 'the newest'})" for one in parameters)
    notes.append(f"A run may be given other values, by the user interface or --parameter NAME=VALUE: {listed}.")
    return notes
