"""Which of keras-hub's networks the library can prune, and how much of them: one row for each backbone.

    python -m benchmarks.coverage [NAME ...]

Each backbone is made small, with random weights, on the CPU, and called on inputs of known shape as a user would call
it. Needs keras-hub 0.25.1 beside the library; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np

import morph_core as morph
from benchmarks.watched import watched_flops
from morph_core.arrays import as_numpy, weight_of

LENGTH, IMAGE, AUDIO = 12, 32, 8000

# Small values for arguments that many backbones share.
_SMALL: dict[str, Any] = {
    "vocabulary_size": 64, "vocab_size": 64, "num_layers": 2, "num_heads": 4, "num_attention_heads": 4,
    "num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 32, "hidden_size": 32, "embedding_dim": 16,
    "intermediate_dim": 48, "mlp_dim": 48, "head_dim": 8, "head_size": 8, "max_sequence_length": 64,
    "num_experts": 4, "top_k": 2, "moe_intermediate_dim": 24, "shared_expert_intermediate_dim": 24,
    "image_size": IMAGE, "image_shape": (IMAGE, IMAGE, 3), "patch_size": 4, "dropout": 0.1,
    "bucket_size": 16, "num_mels": 8, "max_encoder_sequence_length": 2 * LENGTH, "max_decoder_sequence_length": 16,
    "filter_dim": 32, "encoder_num_layers": 2, "decoder_num_layers": 2, "encoder_num_heads": 4, "decoder_num_heads": 4,
    "attention_bias": False, "attention_dropout": 0.1, "rope_layer_enabled_list": [True, True],
    "layer_types": ["full_attention", "full_attention"], "mlp_bias": False, "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 64, "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
    "encoder_hidden_dim": 32, "encoder_intermediate_dim": 48, "encoder_num_attention_heads": 4,
    "encoder_num_key_value_heads": 2, "encoder_head_dim": 8, "encoder_layer_types": ["full_attention"] * 2,
    "decoder_hidden_dim": 32, "decoder_intermediate_dim": 48, "decoder_num_attention_heads": 4,
    "decoder_num_key_value_heads": 2, "decoder_head_dim": 8, "decoder_layer_types": ["full_attention"] * 2,
    "num_labels": 8, "vit_patch_size": 4, "vit_num_heads": 4, "vit_hidden_dim": 32, "vit_num_layers": 2,
    "projection_dim": 16,
}  # fmt: skip


def _resnet() -> Any:
    return keras_hub.models.ResNetBackbone(
        [64], [7], [64, 128], [1, 1], [1, 2], "basic_block", image_shape=(IMAGE, IMAGE, 3)
    )


def _resnet_pyramid() -> Any:
    return keras_hub.models.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [1, 1, 1, 1], [1, 2, 2, 2], "bottleneck_block", image_shape=(64, 64, 3)
    )


def _vit() -> Any:
    return keras_hub.models.ViTBackbone((IMAGE, IMAGE, 3), (4, 4), 2, 4, 32, 48)


def _clip() -> Any:
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

    vision = CLIPVisionEncoder(4, 32, 2, 4, 48, "quick_gelu", image_shape=(IMAGE, IMAGE, 3))
    text = CLIPTextEncoder(64, 32, 32, 2, 4, 48, "quick_gelu", max_sequence_length=LENGTH)
    return keras_hub.models.CLIPBackbone(vision, text, 16)


def _siglip() -> Any:
    from keras_hub.src.models.siglip.siglip_text_encoder import SigLIPTextEncoder
    from keras_hub.src.models.siglip.siglip_vision_encoder import SigLIPVisionEncoder

    vision = SigLIPVisionEncoder(4, 32, 2, 4, 48, image_shape=(IMAGE, IMAGE, 3))
    text = SigLIPTextEncoder(64, 32, 32, 2, 4, 48, max_sequence_length=LENGTH)
    return keras_hub.models.SigLIPBackbone(vision, text)


def _mit() -> Any:
    return keras_hub.models.MiTBackbone(
        [1, 1], 2, [1, 2], [2, 1], 0.1, [7, 3], [4, 2], image_shape=(IMAGE, IMAGE, 3), hidden_dims=[16, 32]
    )


def _sam() -> Any:
    from keras_hub.src.models.sam.sam_mask_decoder import SAMMaskDecoder
    from keras_hub.src.models.sam.sam_prompt_encoder import SAMPromptEncoder

    encoder = keras_hub.models.ViTDetBackbone(
        32, 2, 48, 4, [1], image_shape=(64, 64, 3), patch_size=16, num_output_channels=16, window_size=2
    )
    prompts = SAMPromptEncoder(
        hidden_dim=16, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_channels=8
    )
    decoder = SAMMaskDecoder(
        num_layers=2, hidden_dim=16, intermediate_dim=24, num_heads=4, embedding_dim=16, num_multimask_outputs=3,
        iou_head_depth=2, iou_head_hidden_dim=16,
    )  # fmt: skip
    return keras_hub.models.SAMBackbone(encoder, prompts, decoder)


H = keras_hub.models

_SPECIAL: dict[str, Callable[[], Any]] = {
    "BASNetBackbone": lambda: H.BASNetBackbone(_resnet_34(), 1, image_shape=(64, 64, 3), projection_filters=64),
    "CLIPBackbone": _clip,
    "CSPNetBackbone": lambda: H.CSPNetBackbone(
        8, 3, 2, [1, 1], [1, 2], [16, 32], "dark_block", stage_type="csp", image_shape=(IMAGE, IMAGE, 3)
    ),
    "DINOV2Backbone": lambda: H.DINOV2Backbone(
        4, 2, 32, 4, 48, image_shape=(IMAGE, IMAGE, 3), position_embedding_shape=(IMAGE, IMAGE, 3)
    ),
    "DINOV3Backbone": lambda: H.DINOV3Backbone(4, 2, 32, 4, 48, image_shape=(IMAGE, IMAGE, 3)),
    "DeepLabV3Backbone": lambda: H.DeepLabV3Backbone(
        _resnet_pyramid(), "P5", 32, [6, 12], low_level_feature_key="P2", projection_filters=8, image_shape=(64, 64, 3)
    ),
    "DeiTBackbone": lambda: H.DeiTBackbone((IMAGE, IMAGE, 3), (4, 4), 2, 4, 32, 48),
    "DenseNetBackbone": lambda: H.DenseNetBackbone([2, 2], image_shape=(IMAGE, IMAGE, 3), growth_rate=8),
    "DepthAnythingBackbone": lambda: H.DepthAnythingBackbone(
        H.DINOV2Backbone(8, 4, 32, 4, 48, image_shape=(IMAGE, IMAGE, 3), position_embedding_shape=(IMAGE, IMAGE, 3)),
        [4, 2, 1, 0.5], [8, 16, 24, 32], 8, 8, -1, feature_keys=["stage1", "stage2", "stage3", "stage4"],
    ),
    "EfficientNetBackbone": lambda: H.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0, 1.0], stackwise_depth_coefficients=[1.0, 1.0], stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2], stackwise_input_filters=[16, 24], stackwise_output_filters=[24, 32],
        stackwise_expansion_ratios=[1, 4], stackwise_squeeze_and_excite_ratios=[0.25, 0.25], stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"], stackwise_force_input_filters=[0, 0], stackwise_nores_option=[False, False],
        input_shape=(IMAGE, IMAGE, 3), num_features=64,
    ),
    "FluxBackbone": lambda: H.FluxBackbone(
        input_channels=16, hidden_size=32, mlp_ratio=2.0, num_heads=4, depth=1, depth_single_blocks=1,
        axes_dim=[2, 2, 4], theta=10000, use_bias=True, image_shape=(16, 16), text_shape=(8, 32),
        image_ids_shape=(16, 3), text_ids_shape=(8, 3), y_shape=(32,),
    ),
    "HGNetV2Backbone": lambda: H.HGNetV2Backbone(
        [1, 1], 16, [16, 32], [3, 8, 16], "relu", False,
        [(16, 8, 16, 1, 2, 3), (16, 16, 32, 1, 2, 3)], [False, True], [False, False],
        image_shape=(IMAGE, IMAGE, 3),
    ),
    "MiTBackbone": _mit,
    "MobileNetBackbone": lambda: H.MobileNetBackbone(
        [[16], [48, 48]], [1, 2], [[16], [24, 24]], [[3], [3, 3]], [[2], [2, 1]], [[0.25], [0.25, 0.25]],
        [["relu"], ["hard_swish", "hard_swish"]], [[1], [1, 1]], 64, 16, 2, False, None,
        image_shape=(IMAGE, IMAGE, 3),
    ),
    "PARSeqBackbone": lambda: H.PARSeqBackbone(_vit_patches(), 32, 8, 32, 1, 4, 48),
    "ResNetBackbone": _resnet,
    "RetinaNetBackbone": lambda: H.RetinaNetBackbone(_resnet_pyramid(), 3, 7, False, image_shape=(64, 64, 3)),
    "SAMBackbone": _sam,
    "SegFormerBackbone": lambda: H.SegFormerBackbone(_mit(), 16),
    "SigLIPBackbone": _siglip,
    "VGGBackbone": lambda: H.VGGBackbone([1, 2], [8, 16], image_shape=(IMAGE, IMAGE, 3)),
    "ViTBackbone": _vit,
    "ViTDetBackbone": lambda: H.ViTDetBackbone(
        32, 2, 48, 4, [1], image_shape=(64, 64, 3), patch_size=16, num_output_channels=16, window_size=2
    ),
    "WhisperBackbone": lambda: H.WhisperBackbone(
        64, 2, 4, 32, 48, num_mels=8, max_encoder_sequence_length=2 * LENGTH, max_decoder_sequence_length=LENGTH
    ),
    "XceptionBackbone": lambda: H.XceptionBackbone(
        [[8, 16], [24, 24]], [True, False], image_shape=(IMAGE, IMAGE, 3)
    ),
}  # fmt: skip


def _resnet_34() -> Any:
    return H.ResNetBackbone([64], [7], [64, 128, 256, 512], [1, 1, 1, 1], [1, 2, 2, 2], "basic_block")


def _vit_patches() -> Any:
    return H.ViTBackbone((IMAGE, IMAGE, 3), (4, 4), 2, 4, 32, 48, use_class_token=False)


def backbone(name: str) -> keras.Model:
    """A small backbone with random weights."""
    keras.utils.set_random_seed(0)
    if name in _SPECIAL:
        return _SPECIAL[name]()
    kind = getattr(keras_hub.models, name)
    wanted = inspect.signature(kind.__init__).parameters
    given = {
        key: _SMALL[key] for key, one in wanted.items() if key in _SMALL and one.default is inspect.Parameter.empty
    }
    if "max_sequence_length" in wanted:
        given["max_sequence_length"] = _SMALL["max_sequence_length"]
    return kind(**given)


def names() -> list[str]:
    """The backbones of keras-hub that are no base classes."""
    bases = ("Backbone", "FeaturePyramidBackbone")
    return [name for name in dir(keras_hub.models) if name.endswith("Backbone") and name not in bases]


def on_known_inputs(model: keras.Model) -> keras.Model:
    """The model called on inputs without unknown sizes, the batch excepted."""
    if not any(None in tensor.shape[1:] for tensor in model.inputs):
        return model

    def known(tensor: Any) -> Any:
        size = IMAGE if len(tensor.shape) == 4 else LENGTH
        if "audio" in tensor.name:
            size = AUDIO
        shape = [size if one is None else one for one in tensor.shape[1:]]
        return keras.Input(shape, dtype=tensor.dtype, name=tensor.name)

    inputs = keras.tree.map_structure(known, model._inputs_struct)
    return keras.Model(inputs, model(inputs), name=f"{model.name}_on_known_inputs")


def batch_for(model: keras.Model, count: int = 2, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)

    def draw(tensor: Any) -> np.ndarray:
        shape = (count, *tensor.shape[1:])
        if "mask" in tensor.name and len(shape) == 2:
            return (np.arange(shape[1])[None] < rng.integers(shape[1] // 2, shape[1] + 1, (count, 1))).astype("int32")
        if "int" in tensor.dtype:
            return rng.integers(0, 2, shape).astype(tensor.dtype)
        return rng.uniform(-1, 1, shape).astype("float32")

    return keras.tree.map_structure(draw, model._inputs_struct)


def difference(one: Any, other: Any) -> float:
    """The largest difference of two lists of outputs, over the largest output."""
    worst = 0.0
    for first, second in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        first, second = as_numpy(first).astype("float64"), as_numpy(second).astype("float64")
        worst = max(worst, float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-12)))
    return worst


@dataclasses.dataclass
class Row:
    """What is known of one network.

    Attributes:
        parameters: of the network.
        calls: of layers and operations, composite layers opened.
        seconds: of processor time, from the model to its channels and FLOPs.
        closed: why layers could not be opened, by their path.
        groups: that can be pruned.
        prunable: share of the parameters outside of embeddings that are in weights of which channels can go.
        counted: FLOPs by the library over FLOPs that TensorFlow was watched to spend; 1 is right.
        uncounted: share of the parameters in layers whose work is not known.
        whole: how far the rebuilt network of full width is from the seed, relative to the largest output.
        masks: the worst of three random structures, rebuilt against masked.
        pruned_count: as `counted`, for the rebuilt network of half of the channels.
        loaded: how far the rebuilt network is from itself, saved and loaded.
        error: what failed, and at which stage.
    """

    name: str
    parameters: int = 0
    calls: int = 0
    seconds: float = math.nan
    closed: dict[str, str] = dataclasses.field(default_factory=dict)
    groups: int = 0
    prunable: float = math.nan
    counted: float = math.nan
    uncounted: float = math.nan
    whole: float = math.nan
    masks: float = math.nan
    pruned_count: float = math.nan
    loaded: float = math.nan
    error: str = ""


def prunable_share(graph: morph.ChannelGraph) -> float:
    """Of the parameters outside of embeddings, the share in weights along whose axes some channel can go."""
    total, prunable, seen = 0, 0, set()
    for call, rule, axes in zip(graph.trace.calls, graph.rules, graph.axes, strict=True):
        if (
            "embedding" in f"{call.name} {call.kind}".lower()
            or id(call.layer) in seen
            or not isinstance(call.layer, keras.Layer)
        ):
            continue
        seen.add(id(call.layer))
        total += call.layer.count_params()
        for path, follows in rule.weights.items():
            weight: Any = weight_of(call.layer, path)
            units = [axes[name] for name in follows if name in axes]
            if weight is not None and any(graph.prunable[graph.group_of[one[one >= 0]]].any() for one in units):
                prunable += math.prod(weight.shape)
    return prunable / max(total, 1)


def random_structure(graph: morph.ChannelGraph, share: float, seed: int) -> morph.Structure:
    """A share of the channels of each group that can be pruned, by chance, and at least one."""
    rng = np.random.default_rng(seed)
    alive = {
        group.name: sorted(rng.choice(group.size, max(1, round(share * group.size)), replace=False).tolist())
        for group in graph.groups
        if group.prunable
    }
    return morph.describe(graph, {name: len(kept) for name, kept in alive.items()}, alive)


def watched(model: keras.Model) -> int:
    """FLOPs that TensorFlow spends on one example."""
    example = batch_for(model, count=1)
    return sum(watched_flops(lambda: model(example, training=False)).values())


def examine(name: str) -> Row:
    """Everything about one backbone."""
    row = Row(name)
    stage = "made"
    try:
        model = on_known_inputs(backbone(name))
        row.parameters = model.count_params()
        inputs = batch_for(model)
        expected = model(inputs, training=False)
        stage = "followed"
        start = time.process_time()
        graph = morph.ChannelGraph.from_model(model)
        flops = graph.cost("flops")
        row.seconds = time.process_time() - start
        row.calls = len(graph.trace.calls)
        row.closed = dict(note.split(" stays closed: ", 1) for note in graph.notes if " stays closed: " in note)
        row.groups, row.prunable = int(graph.prunable.sum()), prunable_share(graph)
        row.uncounted = sum(layer.share for layer in graph.uncounted.values())
        row.counted = flops / watched(model)
        stage = "rebuilt"
        whole = morph.rebuild(model, random_structure(graph, 1.0, 0), weights="inherit")
        row.whole = difference(expected, whole(inputs, training=False))
        stage = "pruned"
        structures = [random_structure(graph, 0.5, seed) for seed in range(3)]
        row.masks = max(morph.verify(model, structure, inputs) for structure in structures)
        student = morph.rebuild(model, structures[0], weights="inherit")
        row.pruned_count = graph.cost("flops", structures[0]) / watched(student)
        stage = "saved and loaded"
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "student.keras")
            student.save(path)
            again = keras.models.load_model(path)(inputs, training=False)
        row.loaded = difference(student(inputs, training=False), again)
    except Exception as error:  # noqa: BLE001 -- a table of what works needs the rows of what does not
        row.error = f"not {stage}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args().names or names()
    titles = (
        "backbone, parameters, calls, CPU s, groups, prunable, FLOPs against watched, uncounted, whole, at masks, "
        "pruned FLOPs against watched, loaded, what is closed or failed"
    ).split(", ")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name in chosen:
        row = examine(name)
        closed = "; ".join(f"{path}: {reason}" for path, reason in row.closed.items())
        print(
            f"| {row.name} | {row.parameters} | {row.calls} | {row.seconds:.2f} | {row.groups} | {row.prunable:.2f} | "
            f"{row.counted:.4f} | {row.uncounted:.3f} | {row.whole:.0e} | {row.masks:.0e} | {row.pruned_count:.4f} | "
            f"{row.loaded:.0e} | {row.error} {closed} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
