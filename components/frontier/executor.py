"""Reads what every branch cost and how good it is, writes the report, and copies the chosen model."""

import json
import os
from typing import Any

import tensorflow_model_analysis as tfma
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

import morph_core as morph
from morph_core.report import frontier_page
from morph_core.report.frontier import Frontier, Point

from ..artifacts.evaluation import measured, without_differences
from ..artifacts.model_assets import evaluated_card, put
from ..artifacts.properties import custom_properties, set_custom_properties
from ..artifacts.staging import complete_or_absent
from ..artifacts.structure_properties import counted_as
from ..structure_exporter import StructureExporter

FRONTIER_FILE, REPORT_FILE, PICTURE_FILE = "frontier.json", "report.html", "frontier.svg"


class Executor(base_executor.BaseExecutor):
    """Executor of `Frontier`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Compares and chooses.

        Args:
            input_dict: `model_N`, `evaluation_N` and `structure_N` of every branch.
            output_dict: `frontier`, `model` and `blessing`.
            exec_properties: those of `FrontierSpec`.

        Raises:
            MorphError: a branch lacks the cost or the metric.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        artifacts = {name: artifact_utils.get_single_instance(found) for name, found in input_dict.items() if found}
        outputs = {name: artifact_utils.get_single_instance(found) for name, found in output_dict.items()}
        branches = json.loads(exec_properties["branches"])
        cost = counted_as(exec_properties["cost"], StructureExporter(artifacts["structure_0"]).read())
        points, metrics = [], []
        for number, branch in enumerate(branches):
            point, metric = _point(branch, number, artifacts, cost)
            points.append(point)
            metrics.append(metric)
        if len(set(metrics)) != 1:
            raise morph.MorphError(
                f"The evaluations have different metrics: {', '.join(sorted(set(metrics)))}. Give every branch's "
                "Evaluator the same configuration."
            )
        frontier = Frontier(
            tuple(points),
            cost=cost,
            metric=metrics[0],
            higher_is_better=bool(exec_properties["higher_is_better"]),
            min_accuracy=exec_properties.get("min_accuracy"),
            max_cost=exec_properties.get("max_cost"),
            max_behind_uniform=exec_properties.get("max_behind_uniform"),
        )
        chosen = frontier.chosen()
        source = artifacts[f"model_{points.index(chosen)}"] if chosen is not None else None
        if source is not None:
            evaluation = artifacts[f"evaluation_{points.index(chosen)}"]
            with complete_or_absent(outputs["model"].uri) as directory:
                io_utils.copy_dir(source.uri, directory)
                served = path_utils.serving_model_path(directory)
                put(served, evaluated_card(served, evaluation.uri))
            set_custom_properties(outputs["model"], custom_properties(source))
        _bless(outputs["blessing"], source)
        _write(outputs["frontier"], frontier)
        print(frontier.verdict(), f"Report: {os.path.join(outputs['frontier'].uri, REPORT_FILE)}", sep="\n", flush=True)


def _point(branch: dict[str, Any], number: int, artifacts: dict[str, Artifact], cost: str) -> tuple[Point, str]:
    """One branch as a point, and the name of its metric."""
    structure = StructureExporter(artifacts[f"structure_{number}"]).read()
    if cost not in structure.costs:
        raise morph.MorphError(
            f"{branch['label']}: its structure has not counted {cost!r}, only {', '.join(structure.costs)}. Search "
            "for it with the same cost."
        )
    evaluation = artifacts[f"evaluation_{number}"].uri
    found = measured(evaluation)
    metrics = {name: value for name, value in without_differences(found).items() if name != "example_count"}
    if len(metrics) != 1:
        raise morph.MorphError(
            f"{branch['label']}: expected one metric in its evaluation, found {', '.join(metrics) or 'none'}."
        )
    [(metric, accuracy)] = metrics.items()
    verdict = tfma.load_validation_result(evaluation)
    counted, examples = structure.costs[cost], found.get("example_count")
    point = Point(
        label=branch["label"],
        kind=branch["kind"],
        cost=float(counted["structure"]),
        fraction=float(counted["structure"] / counted["seed"]),
        accuracy=float(accuracy),
        passed=verdict is not None and bool(verdict.validation_ok),
        examples=None if examples is None else int(examples),
    )
    return point, metric


def _bless(blessing: Artifact, model: Artifact | None) -> None:
    """Says, as Evaluator does, whether a model may be pushed and which one that is."""
    blessed = model is not None
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")
    properties: dict[str, str | int | float] = {
        constants.ARTIFACT_PROPERTY_BLESSED_KEY: (constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE)
    }
    if model is not None:
        properties[constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY] = model.uri
        properties[constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY] = model.id
    set_custom_properties(blessing, properties)


def _write(artifact: Artifact, frontier: Frontier) -> None:
    files = {
        FRONTIER_FILE: frontier.to_json().encode(),
        REPORT_FILE: frontier_page.html(frontier).encode(),
        PICTURE_FILE: frontier_page.picture(frontier),
    }
    with complete_or_absent(artifact.uri) as directory:
        for name, content in files.items():
            with fileio.open(os.path.join(directory, name), "wb") as file:
                file.write(content)
    properties: dict[str, str | int | float] = {"cost": frontier.cost, "metric": frontier.metric}
    chosen = frontier.chosen()
    if chosen is not None:
        properties |= {"chosen": chosen.label, "fraction": chosen.fraction, "accuracy": chosen.accuracy}
    set_custom_properties(artifact, properties)
