"""Which model a new one has to beat: the latest blessed model that was pushed, other than the new one itself.

TFX's own LatestBlessedModelStrategy takes any blessed model of its own pipeline. When nothing has changed, the
retrained model of a second run *is* the latest blessed one (it comes from the cache), so it would be evaluated against
itself, blessed anew and pushed a second time; leaving it out keeps a second run entirely in the cache. A retrained
model also has to beat those of the morph pipeline, and the other way round. And where several budgets are compared,
networks are blessed that are there to compare with only: what counts is what was pushed, for as long as it is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx
from tfx.utils import path_utils

from morph_tfx.components.artifacts.saved_model import fault_of

from .pushed import pushed_models


class LatestOtherBlessedModel(tfx.dsl.experimental.ResolverStrategy):
    """Resolves `model` to the latest blessed and pushed model that is none of the other inputs, the candidates.

    It gives an empty list when there is none, and Evaluator then checks the absolute bound only.

    Args:
        pipelines: names of the pipelines whose models count.
    """

    def __init__(self, pipelines: list[str]):
        self._pipelines = pipelines

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        others = {name: artifacts for name, artifacts in input_dict.items() if name != "model"}
        candidates = {artifact.id for artifacts in others.values() for artifact in artifacts}
        latest = next(self._usable(store, candidates), None)
        return {"model": [] if latest is None else [latest], **others}

    def _usable(self, store: mlmd.MetadataStore, candidates: Collection[int]) -> Iterator[types.Artifact]:
        """The models that were pushed, are still there, and load: Evaluator reads the artifact, not the pushed copy."""
        for _, model in pushed_models(store, self._pipelines, print):
            if model.id in candidates:
                continue
            directory = path_utils.serving_model_path(model.uri)
            fault = fault_of(directory)
            if fault is None:
                yield model
            else:
                print(f"{directory} is passed over as the model to compare with: {fault}.", flush=True)
