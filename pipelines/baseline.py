"""Which model a new one has to beat: the latest blessed model, other than the new one itself.

TFX's own LatestBlessedModelStrategy takes any blessed model. When nothing has changed, the retrained model of a second
run *is* the latest blessed one (it comes from the cache), so it would be evaluated against itself, blessed anew and
pushed a second time. Leaving it out keeps a second run entirely in the cache. It also knows the models of its own
pipeline only; a retrained model has to beat those of the morph pipeline, and the other way round.
"""

from __future__ import annotations

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx
from tfx.types import standard_artifacts

from .lineage import artifacts_of


class LatestOtherBlessedModel(tfx.dsl.experimental.LatestBlessedModelStrategy):
    """Resolves `model` and `model_blessing` to the latest blessed model that is not `candidate`.

    As TFX's strategy, it gives empty lists when there is none, and Evaluator then checks the absolute bound only.

    Args:
        pipelines: names of the pipelines whose models count.
    """

    def __init__(self, pipelines: list[str]):
        self._pipelines = pipelines

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        candidates = {artifact.id for artifact in input_dict["candidate"]}
        models = artifacts_of(store, self._pipelines, standard_artifacts.Model)
        others: dict[str, list[types.Artifact]] = {
            "model": [model for model in models if model.id not in candidates],
            "model_blessing": list(artifacts_of(store, self._pipelines, standard_artifacts.ModelBlessing)),
        }
        resolved = super().resolve_artifacts(store, others)
        return None if resolved is None else {**resolved, "candidate": input_dict["candidate"]}
