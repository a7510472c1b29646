"""Training to the end in the run of the search: how a user asks for it, and what it cannot go together with.

The part of the epochs that the search takes is the one fact that travels: where it is there, the network is cut after
it, trained to the end and written as a model.
"""

from collections.abc import Mapping
from typing import Any

from tfx.orchestration.data_types import RuntimeParameter

import morph_core as morph
from morph_core.search.finish import last_search_epoch

from .goal import Goal

IN_PLACE, FROM_SCRATCH = "in_place", "from_scratch"

DEFAULT_FRACTION = 0.25
"""The search's part of the epochs where nobody says another one."""


def fraction_asked_for(finish: Any, search_fraction: Any) -> Any:
    """The part of the epochs that the search takes, as the execution property says it; None without `"in_place"`.

    Args:
        finish: `"in_place"` or `"from_scratch"`.
        search_fraction: a number, a `RuntimeParameter`, or None for the default.

    Raises:
        MorphError: another `finish`, or a fraction of a run that has one part only.
    """
    if finish == IN_PLACE:
        return DEFAULT_FRACTION if search_fraction is None else search_fraction
    if finish != FROM_SCRATCH:
        raise morph.MorphError(
            f"finish={finish!r}; expected {FROM_SCRATCH!r} (the structure is the result, for a Retrainer) or "
            f"{IN_PLACE!r} (the network is also cut and trained to the end, in this run). It decides which outputs "
            "there are, so it cannot be a RuntimeParameter."
        )
    if search_fraction is not None:
        raise morph.MorphError(
            f"search_fraction={search_fraction!r} with finish={FROM_SCRATCH!r}: all epochs are the search's there. "
            f"Leave search_fraction out, or ask for finish={IN_PLACE!r}."
        )
    return None


def check(goal: Goal, config: Mapping[str, Any] | None, epochs: int) -> None:
    """Checks that the rest of what was asked for leaves room for a training in place, if that was asked for.

    Args:
        goal: checked by itself.
        config: the component's `custom_config`.
        epochs: of the whole run.

    Raises:
        MorphError: one of the two parts has no whole epoch, or the training is spread over machines; or there is a
            `distill` and no such training.
    """
    distill = (config or {}).get("distill")
    if goal.search_fraction is None and distill not in (None, False):
        raise morph.MorphError(
            f"distill={distill!r} with finish={FROM_SCRATCH!r}: the seed teaches the network that is "
            f"cut and trained to the end. Ask for finish={IN_PLACE!r}, or give a Retrainer a teacher."
        )
    if goal.search_fraction is None or isinstance(goal.search_fraction, RuntimeParameter):
        return
    last_search_epoch(goal.search_fraction, epochs)
    distribution = (config or {}).get("distribution") or {}
    if distribution.get("strategy") == "multi_worker_mirrored":
        raise morph.MorphError(
            f"finish={IN_PLACE!r} with the strategy 'multi_worker_mirrored': several machines cannot go on with the "
            "network that is cut in the middle of the run. Use 'mirrored' on one machine, or "
            f"finish={FROM_SCRATCH!r} and a Retrainer."
        )
