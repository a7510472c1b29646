"""Runs a pipeline on this machine and tells, step by step, what happens.

The nodes run one after the other in this process, with ML metadata in a sqlite file (`step_runner`), and each is
accounted for: which step of how many, which cycle, whether the result came from the cache, how long it took. TFX, Beam
and TensorFlow log hundreds of lines per step; they are silenced, warnings included, unless the user asks for them.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator

from morph_core import MorphError
from morph_core.cost.costs import written

from ..account import Say, duration, quieten
from ..config import PipelineConfig, PipelineKind, is_uri
from ..graph.module_files import check_functions, without_wheels
from .examples import check_examples, required_by
from .leftovers import Place, clear_checkpoints, clear_executions, clear_files, in_use
from .one_at_a_time import only_run
from .outcome import OutcomeFile
from .places import check_places, make_places
from .result import RunResult
from .retention import remove_old
from .shortage import shortages_told
from .staging import importable, staged_modules, staged_structure, told_of_originals


def run_pipeline(
    config: PipelineConfig, say: Say = print, verbose: bool = False, pipeline: PipelineKind = "morph"
) -> RunResult:
    """Runs a pipeline of a configuration on this machine, with what is already done taken from the cache.

    Args:
        config: what `load_config` returned.
        say: receives each line of the account.
        verbose: lets TFX, Beam and TensorFlow log.
        pipeline: "morph" searches for a structure; "retrain" trains the latest pushed one anew, on the newest data.

    Raises:
        MorphError: something in the configuration, the data, the module file or the model stands in the way, or another
            process is running the same pipeline.

    Returns:
        What came of it. A retraining for which there is no new span is left out, when nothing else has changed either;
        its result has no steps. What became of the run is also in a file (`outcome`).
    """
    for key in ("module_file", "pipeline_root", "metadata"):
        path = getattr(config, key)
        if is_uri(path):
            raise MorphError(f"{key}: {path} is remote. A run on this machine expects a path on its own disk.")
    check_functions(config)
    check_places(config)
    original = config
    with shortages_told(config):
        config = staged_structure(staged_modules(config))
        make_places(config)
    name = config.retrain_pipeline_name if pipeline == "retrain" else config.name
    with only_run(name, config.pipeline_root):
        return _run_if_changed(config, original, say, verbose, pipeline)


def _run_if_changed(
    config: PipelineConfig, original: PipelineConfig, say: Say, verbose: bool, pipeline: PipelineKind
) -> RunResult:
    """The run, if there is anything to do, and a file that says what became of it."""
    outcome = OutcomeFile(config, pipeline)
    last = outcome.last_if_unchanged() if pipeline == "retrain" and config.data.has_spans else None
    if last is not None:
        say(
            f"No new span: the newest is {last['span']}, as in the run that ended at {last['finished']} "
            f"({last['status']}), and nothing else has changed. Nothing is run."
        )
        outcome.left_out(last)
        return RunResult((), 0.0, last)
    # Inside, so that what an alert sees is that message; outside, since the file for alerts is written then.
    with (
        shortages_told(config),
        in_use(config.pipeline_root) as place,
        outcome.around_run(),
        shortages_told(config),
    ):
        try:
            result = _run(config, say, verbose, pipeline, place)
        except MorphError as error:
            raise MorphError(told_of_originals(config, original, str(error))) from error
    outcome.finished(result)
    return result


def _run(config: PipelineConfig, say: Say, verbose: bool, pipeline: PipelineKind, place: Place) -> RunResult:
    """The run itself, once it is clear that there is something to do, in a pipeline root that it holds."""
    if not verbose:
        quieten()
    batch_sizes = {"retrain.batch_size": config.retrain.batch_size}
    if pipeline == "morph":
        batch_sizes["search.batch_size"] = config.search.batch_size
    looked_up = pipeline == "retrain" and config.retrain_pipeline.structure is None
    required = required_by(config.push_to) if looked_up else {}
    slices = config.evaluate.slices
    for remark in check_examples(config.data, config.label, batch_sizes, config.preprocessing_file, required, slices):
        say(f"Note: {remark}")
    say("Loading TensorFlow and TFX ...")
    start = time.monotonic()
    try:
        from ..graph.morph_pipeline import morph_pipeline
        from ..graph.pushed import check_pushed
        from ..graph.retrain_pipeline import retrain_pipeline
        from ..graph.workers import watch_workers
        from .findings import findings
        from .step_runner import StepRunner
    except ModuleNotFoundError as error:
        raise MorphError(
            f"Running a pipeline needs {error.name}, which is not installed. Install it with: "
            "pip install 'morph-tfx[tfx]'"
        ) from error
    say(f"... took {duration(time.monotonic() - start)}")
    if not verbose:
        quieten()  # once more: importing TFX raises the level of some loggers again
    with place.alone() as alone:
        if alone:
            clear_files(config, say)
            clear_executions(config, say)
    if looked_up:
        check_pushed(config)
    start = time.monotonic()
    with without_wheels():
        nodes = retrain_pipeline(config) if pipeline == "retrain" else morph_pipeline(config)
    watch_workers()
    runner = StepRunner(say, _about(config), lambda step: findings(step.node_id, step.outputs, config.data))
    with importable(config.module_file, config.preprocessing_file), _no_arguments(), _own_scratch():
        runner.run(nodes)
    with place.alone() as alone:
        if alone:
            clear_checkpoints(config, say)
    result = RunResult(tuple(runner.steps), time.monotonic() - start)
    if config.keep is not None:
        _keep(config, place, say)
    cached = [step for step in result.steps if step.state == "cached"]
    took = duration(result.seconds)
    if result.cached:
        say(f"Done in {took}: nothing has changed, so every step came from the cache.")
    else:
        say(
            f"Done in {took}"
            + (f": {len(cached)} of {len(result.steps)} steps came from the cache." if cached else ".")
        )
    return result


def _keep(config: PipelineConfig, place: Place, say: Say) -> None:
    """Removes what is older than the configuration keeps, unless somebody else may be reading it."""
    with place.alone() as alone:
        if alone:
            remove_old(config, say)
        else:
            say(f"Nothing old is removed: another run is using {config.pipeline_root}. The next run does it.")


def _about(config: PipelineConfig) -> dict[str, str]:
    """A few words on the steps whose names do not say enough, by node id."""
    from ..graph.frontier_pipeline import arms, references
    from ..graph.morph_pipeline import cycle_id

    cycles = range(1, config.cycles + 1)
    words = {}
    for arm in references(config) if config.budgets is None else arms(config):
        words |= {f"{step}-{arm.name}": arm.label for step in ("UniformWidths", "Retrainer", "Evaluator")}
    if config.budgets is None:
        return words | {cycle_id(cycle): _cycle(config, cycle) for cycle in cycles}
    for arm in arms(config):
        words |= {f"MorphTrainer-{arm.name}-{cycle}": _cycle(config.at(arm.target), cycle) for cycle in cycles}
    return words


def _cycle(config: PipelineConfig, cycle: int) -> str:
    expand_to = config.expansions[cycle - 1]
    if config.target is not None:
        targets = config.target if isinstance(config.target, dict) else {config.cost: config.target}
        shrink = "shrink to " + " and ".join(f"{share:.0%} of the seed's {cost}" for cost, share in targets.items())
    elif config.budget is not None:
        budgets = config.budget if isinstance(config.budget, dict) else {config.cost: config.budget}
        shrink = "shrink to " + " and ".join(f"{written(amount)} {cost}" for cost, amount in budgets.items())
    else:
        shrink = f"shrink {config.cost} with strength {config.strength:g}"
    more = f", expand to {expand_to:.0%}" if expand_to else ""
    if cycle == config.cycles and config.finish != "from_scratch":
        more += ", train what is left to the end"
    return f"cycle {cycle} of {config.cycles}: {shrink}{more}"


@contextlib.contextmanager
def _own_scratch() -> Iterator[None]:
    """Temporary files go into one directory that is removed: TFX leaves a few behind after every Beam step."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="morph-tfx-", ignore_cleanup_errors=True) as directory:
        tempfile.tempdir = directory
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    """Hides this program's arguments from TFX, which would hand them to Beam as pipeline options."""
    arguments = sys.argv[1:]
    del sys.argv[1:]
    try:
        yield
    finally:
        sys.argv[1:] = arguments
