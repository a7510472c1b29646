"""Other people's networks: small backbones of keras-hub. Nothing of them may be wrong, and most of it can be pruned."""

from __future__ import annotations

import importlib.util
import re

import keras
import pytest

if importlib.util.find_spec("keras_hub") is None:
    pytest.skip("keras-hub is not installed; make setup brings it", allow_module_level=True)
if keras.backend.backend() != "tensorflow":
    pytest.skip("FLOPs are watched on TensorFlow", allow_module_level=True)

from benchmarks import coverage

# Of the parameters outside of embeddings, what can be pruned at least; 0.7 of all others.
LESS = {
    "DebertaV3Backbone": 0.4,  # heads meet in a pick by position, whose numbers are spread over all of them
    "XLNetBackbone": 0.0,  # a layer that says another shape than it makes
}
# Layers of their own with neither an argument's value in their configuration nor code that opens.
REFUSED = {"DFineBackbone", "StableDiffusion3Backbone"}
# A small layer that stays closed is named as not counted, and TensorFlow counts it.
NAMED = {"SAMBackbone"}
# Keras 3.15 refuses to make these at the sizes of this table.
NOT_EVERYWHERE = {"DepthAnythingBackbone", "XLNetBackbone"}
QUICK = ["BertBackbone", "GPT2Backbone", "LlamaBackbone", "DeiTBackbone", "BloomBackbone", "MixtralBackbone"]
# Networks of the same blocks as another one of the table, or inside of one of the task models.
RELATED = {
    "BartBackbone", "DINOV2Backbone", "DINOV3Backbone", "DepthAnythingBackbone", "DistilBertBackbone", "ESMBackbone",
    "ElectraBackbone", "FalconBackbone", "GemmaBackbone", "Llama3Backbone", "MistralBackbone", "MoonshineBackbone",
    "PaliGemmaBackbone", "Qwen2Backbone", "Qwen3Backbone", "Qwen3MoeBackbone", "QwenBackbone", "T5GemmaBackbone",
    "RetinaNetBackbone", "RobertaBackbone", "SegFormerBackbone", "SigLIPBackbone", "SmolLM3Backbone", "SmolLMBackbone",
    "ViTBackbone", "ViTDetBackbone", "XLMRobertaBackbone",
}  # fmt: skip
# Two ResNets in one take half a minute.
RARE = RELATED | {"BASNetBackbone"}
NAMES = sorted(set(coverage.names()) - REFUSED)


# The table is of Keras 3.12; other versions are tried on all of it by `make test-all`.
WHEN = pytest.mark.thorough if keras.__version__.startswith("3.12.") else pytest.mark.slow


def when(name):
    return [] if name in QUICK else [pytest.mark.slow] if name in RARE else [WHEN]


@pytest.mark.parametrize("name", [pytest.param(name, marks=when(name)) for name in NAMES])
def test_backbones_of_keras_hub(name):
    row = coverage.examine(name)
    if name in NOT_EVERYWHERE and row.error.startswith("not made"):
        pytest.skip(f"Keras {keras.__version__} does not make it at this size")
    assert not row.error
    assert row.whole <= 1e-5 and row.loaded <= 1e-5
    assert row.masks <= 1e-5
    assert row.prunable >= LESS.get(name, 0.7)
    # Tables that the code computes anew at each call are numbers in the opened network, and so no work in it.
    is_named = row.uncounted > (0 if name in NAMED else 0.01)
    assert is_named or (abs(row.counted - 1) <= 2e-3 and abs(row.pruned_count - 1) <= 2e-3)


TASKS = [
    "BartSeq2SeqLM", "BertMaskedLM", "BloomCausalLM", "MixtralCausalLM", "MoonshineAudioToText",
    "ResNetImageClassifier",
    "RetinaNetObjectDetector", "RobertaClassifier", "SegFormerImageSegmenter",
]  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=WHEN) for name in TASKS])
def test_task_models_of_keras_hub(name):
    row = coverage.examine(name)
    assert not row.error
    assert row.whole <= 1e-5 and row.loaded <= 1e-5 and row.masks <= 1e-5
    assert row.prunable >= 0.7
    assert abs(row.counted - 1) <= 2e-3 and abs(row.pruned_count - 1) <= 2e-3


@pytest.mark.parametrize("name", [pytest.param(name, marks=WHEN) for name in sorted(REFUSED)])
def test_backbones_that_cannot_be_rebuilt_say_which_layer(name):
    assert re.search("not rebuilt: MorphError: (Layer|Weight) '", coverage.examine(name).error)
