"""Which model a new one has to beat: the latest blessed model, other than the new one itself.

TFX's own LatestBlessedModelStrategy takes any blessed model. When nothing has changed, the retrained model of a second
run *is* the latest blessed one (it comes from the cache), so it would be evaluated against itself, blessed anew and
pushed a second time. Leaving it out keeps a second run entirely in the cache.
"""

from __future__ import annotations

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx


class LatestOtherBlessedModel(tfx.dsl.experimental.LatestBlessedModelStrategy):
    """Resolves `model` and `model_blessing` to the latest blessed model that is not `candidate`.

    As TFX's strategy, it gives empty lists when there is none, and Evaluator then checks the absolute bound only.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        candidates = {artifact.id for artifact in input_dict["candidate"]}
        others = {
            "model": [model for model in input_dict["model"] if model.id not in candidates],
            "model_blessing": list(input_dict["model_blessing"]),
        }
        resolved = super().resolve_artifacts(store, others)
        return None if resolved is None else {**resolved, "candidate": input_dict["candidate"]}
