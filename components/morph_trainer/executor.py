"""Runs one search: builds the user's network, narrows it while it trains, widens it again, exports the structure.

With a `search_fraction` the narrowed network is trained to the end in the same run, and exported, too.
"""

import dataclasses
from typing import Any

import keras
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

import morph_core as morph
from morph_core.cost.costs import unit_of, written
from morph_core.report.wording import measured_in_words
from morph_core.search.checkpoint import Storage

from ..artifacts.calibration import measured_device
from ..artifacts.staging import emptied_on_failure
from ..structure_exporter import StructureExporter
from ..training import checkpoints, distribution, loop, serving, trained_model
from ..training import inputs as training_inputs
from ..training.custom_config import custom_config_of
from ..training.progress import ProgressCallback
from . import in_place
from .goal import Goal

# What rounding explains, relative to the largest output: float32 networks agree to about 1e-6, half precision to 1e-3.
_ROUNDING, _HALF_ROUNDING = 1e-4, 1e-2


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What one run has found.

    Attributes:
        structure: relative to the user's own network, whatever the search started from.
        network: of that structure, with trained weights; None where nobody asked for it.
        results: the last epoch's values.
        progress: what showed the training, and knows how long it took.
    """

    structure: morph.Structure
    network: keras.Model | None
    results: dict[str, float]
    progress: ProgressCallback


class Executor(base_executor.BaseExecutor):
    """Executor of `MorphTrainer`."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Searches, and writes the structure and, where it was trained to the end, the model.

        Args:
            input_dict: `examples`, `transform_graph` or `schema`, maybe `hyperparameters`, `seed_structure` and
                `calibration`.
            output_dict: `structure` and `model_run`; `model` where exec_properties have a `search_fraction`.
            exec_properties: those of `MorphTrainerSpec`.

        Raises:
            MorphError: what was given cannot be searched; raised before training starts, and nothing stays behind.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        device = measured_device(input_dict.get("calibration"))
        goal = Goal.from_properties(exec_properties).check(calibrated=device is not None)
        if device is not None:
            goal = goal.on_device(device)
        exporter = StructureExporter(artifact_utils.get_single_instance(output_dict["structure"]))
        config = custom_config_of(exec_properties)
        with (
            distribution.training_scope(config, output_dict),
            emptied_on_failure(artifact_utils.get_single_uri(output_dict["model_run"])) as log_dir,
        ):
            inputs = training_inputs.read(input_dict, exec_properties)
            in_place.check(goal, config, inputs.epochs)
            keep_weights = bool(config.get("keep_weights"))
            if keep_weights and goal.expand_to is not None:
                raise morph.MorphError(
                    f"keep_weights=True with expand_to={goal.expand_to!r}: the channels that widening adds were not "
                    "trained, so there is nothing to keep for them. Leave one of the two away."
                )
            seed = inputs.module.seed(inputs.hparams)
            graph = morph.ChannelGraph.from_model(seed)
            inputs.check_labels(seed)
            checkpoint = checkpoints.place(self._context, input_dict, exec_properties, graph.fingerprint)
            found = _search(
                goal,
                inputs,
                graph,
                seed,
                input_dict.get("seed_structure"),
                log_dir,
                checkpoint,
                keep_weights,
                bool(config.get("allow_uncounted")),
                config.get("distill"),
            )
            loop.record_time(artifact_utils.get_single_instance(output_dict["model_run"]), found.progress)
            lines = [_summary(found.structure), f"Report: {exporter.report_path}"]
            if goal.search_fraction is not None:
                model = artifact_utils.get_single_instance(output_dict["model"])
                _write_model(model, found, exporter.artifact.uri, inputs)
                lines.append(f"Model: {path_utils.serving_model_dir(model.uri)}")
            cycle = f", cycle {inputs.cycle}" if inputs.cycle else ""
            exporter.write(
                found.structure, f"Learned structure{cycle}", trained=found.network if keep_weights else None
            )
            checkpoints.clear(checkpoint)
        print(*lines, sep="\n", flush=True)


def _search(
    goal: Goal,
    inputs: training_inputs.TrainingInputs,
    graph: morph.ChannelGraph,
    seed: keras.Model,
    start: list[Artifact] | None,
    log_dir: str,
    checkpoint: Storage | None,
    keep_weights: bool,
    allow_uncounted: bool,
    distill: Any,
) -> _Outcome:
    """Trains; the network is that of the end of the training or, to keep the weights of a search, of its end."""
    to_the_end = goal.search_fraction is not None
    first = StructureExporter(artifact_utils.get_single_instance(start)).read(graph) if start else None
    costs = [cost for cost, _ in goal.costs.values()]
    seed_costs = {cost.name: graph.cost(cost) for cost in costs}
    start_costs = {cost.name: graph.cost(cost, first) for cost in costs}
    model = seed if first is None else morph.rebuild(seed, first, weights="fresh")
    removed = first.removed["layers"] if first is not None else []
    search = morph.StructureSearch(
        model,
        **goal.search_arguments(seed_costs, start_costs, removed),
        allow_uncounted=allow_uncounted,
        distill=distill,
    )
    search.compile(**morph.compile_arguments(seed))
    inputs.check_fit(model)
    if to_the_end:  # the network to be exported is made later, and has the same inputs and outputs
        serving.signatures(model, inputs.spec, inputs.module)
    progress = ProgressCallback(
        task="search",
        epochs=inputs.epochs,
        steps_per_epoch=inputs.steps_per_epoch,
        cycle=inputs.cycle,
        scales={cost: start_costs[cost] / seed_costs[cost] for cost in seed_costs},
        then="train" if to_the_end else "",
    )
    for group, reason in search.fixed().items():
        print(f"kept whole: {group}: {reason}", flush=True)
    results = loop.train(search, inputs, log_dir, progress, checkpoint)
    structure = search.structure()
    _prove(model, structure, next(iter(inputs.evaluation))[0])
    network = None
    if to_the_end:
        network = search.result()
        distribution.to_float32(network)
    elif keep_weights:
        network = morph.rebuild(model, structure, weights="inherit")
    if first is not None:
        structure = morph.chain(first, structure)
        # The structure to start from may have been found by other costs.
        sought = {
            cost.name: {"seed": seed_costs[cost.name], "structure": graph.cost(cost, structure)} for cost in costs
        }
        structure = dataclasses.replace(structure, costs={**structure.costs, **sought})
    if goal.expand_to is not None:
        fractions = dict.fromkeys(goal.costs, float(goal.expand_to))
        structure = morph.expand(structure, graph, goal.cost, target=fractions, multiple_of=goal.multiple_of or 1)
    structure = _measured(seed, structure, goal)
    # The user's own words, where the search of a later cycle was given the budget of its smaller network.
    return _Outcome(dataclasses.replace(structure, goal=goal.asked), network, results, progress)


def _write_model(
    artifact: Artifact, found: _Outcome, structure_uri: str, inputs: training_inputs.TrainingInputs
) -> None:
    model: Any = found.network
    signatures = serving.signatures(model, inputs.spec, inputs.module)
    trained_model.write(artifact, model, signatures, found.structure, structure_uri, inputs.spec, found.results)


def _measured(seed: keras.Model, structure: morph.Structure, goal: Goal) -> morph.Structure:
    """The structure, with what the clock says of it where the goal is a latency that was measured on this machine."""
    calibration = next((cost.calibration for cost, _ in goal.costs.values() if cost.calibration is not None), None)
    if calibration is None:
        return structure
    try:
        return morph.measure(seed, structure, calibration).noted_in(structure)
    except morph.MorphError as error:
        print(f"The latency of the result was not measured: {error}", flush=True)
        return structure


def _prove(model: keras.Model, structure: morph.Structure, features: Any) -> None:
    """Raise unless the rebuilt network answers like the searched one with the missing channels' gates closed."""
    error = morph.verify(model, structure, features)
    rounding = _ROUNDING if all(layer.compute_dtype == "float32" for layer in model.layers) else _HALF_ROUNDING
    if not error < rounding:
        raise morph.MorphError(
            f"The network rebuilt from the structure answers differently from the one that was searched (by {error:.1e}"
            f" of the largest output; rounding explains {rounding:.0e}). Nothing was written. A layer of your own may "
            "treat channels in a way that its rule or the probe does not know: correct its rule with "
            "morph_core.register_rule, or take the layer out and report it."
        )


def _summary(structure: morph.Structure) -> str:
    """The costs before and after, one line each, with their unit."""
    lines = []
    for name, cost in structure.costs.items():
        before, after, unit = written(cost["seed"]), written(cost["structure"]), unit_of(name)
        fraction = cost["structure"] / cost["seed"]
        lines.append(f"{name}: {before} -> {after} ({fraction:.1%} of the seed{unit and f'; {unit}'})")
    if latency := measured_in_words(structure):
        lines.append(latency)
    if "granularity" in structure.settings.get("budget", {}):
        lines.append(structure.settings["budget"]["granularity"])
    return "\n".join(lines)
