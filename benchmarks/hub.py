"""Networks of keras-hub and keras.applications with random weights, for the table of what can be pruned in them.

Backbones of keras-hub are made of small values for the arguments that many share, or as `_SPECIAL` says; a task model
is made around the backbone that its class names. Networks of keras.applications are as published, on small images.
Nothing is downloaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import numpy as np

LENGTH, IMAGE, AUDIO = 12, 32, 8000

# Of SAM's inputs, of which each may be as many as one likes: two points, a box and a mask.
_PROMPTS = {"points": [2, 2], "labels": [2], "boxes": [1, 2, 2], "masks": [1, 16, 16, 1]}

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


_SMALLEST_IMAGE = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}

# Arguments of task models.
_OF_TASKS: dict[str, Any] = {"num_classes": 3}
_SPECIAL_TASKS: dict[str, dict[str, Any]] = {
    "DepthAnythingDepthEstimator": {"depth_estimation_type": "relative"},
}


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
        hidden_size=16, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_channels=8
    )
    decoder = SAMMaskDecoder(
        num_layers=2, hidden_size=16, intermediate_dim=24, num_heads=4, embedding_dim=16, num_multimask_outputs=3,
        iou_head_depth=2, iou_head_hidden_dim=16,
    )  # fmt: skip
    return keras_hub.models.SAMBackbone(encoder, prompts, decoder)


def _d_fine() -> Any:
    filters = [[16, 16, 32, 1, 1, 3], [32, 16, 32, 1, 1, 3], [32, 16, 48, 1, 1, 5], [48, 32, 64, 1, 1, 5]]
    encoder = H.HGNetV2Backbone(
        [1, 1, 1, 1], 16, [32, 32, 48, 64], [3, 16, 16], "relu", True, filters, [False, True, True, True],
        [False, False, True, True], image_shape=(64, 64, 3), out_features=["stage3", "stage4"],
    )  # fmt: skip
    return H.DFineBackbone(
        backbone=encoder, decoder_in_channels=[32, 32], encoder_hidden_dim=32, num_denoising=0, num_labels=8,
        hidden_dim=32, learn_initial_query=False, num_queries=6, anchor_image_size=(64, 64), feat_strides=[16, 32],
        num_feature_levels=2, encoder_in_channels=[48, 64], encode_proj_layers=[1], num_attention_heads=4,
        encoder_ffn_dim=48, num_encoder_layers=1, hidden_expansion=0.5, depth_multiplier=0.5, eval_idx=-1,
        num_decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48, decoder_n_points=[3, 3],
        lqe_hidden_dim=16, num_lqe_layers=2, out_features=["stage3", "stage4"], image_shape=(64, 64, 3), seed=0,
    )  # fmt: skip


def _stable_diffusion() -> Any:
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    vae = VAEBackbone([32, 32, 32, 32], [1, 1, 1, 1], [32, 32, 32, 32], [1, 1, 1, 1], image_shape=(64, 64, 3))
    texts = [CLIPTextEncoder(64, 32, 32, 2, 4, 48, "quick_gelu", -2, max_sequence_length=LENGTH) for _ in range(2)]
    return H.StableDiffusion3Backbone(2, 64, 2, 4, 16, None, None, vae, *texts, image_shape=(64, 64, 3))


H = keras_hub.models

_SPECIAL: dict[str, Callable[[], Any]] = {
    "BASNetBackbone": lambda: H.BASNetBackbone(_resnet_34(), 1, image_shape=(64, 64, 3), projection_filters=64),
    "CLIPBackbone": _clip,
    "CSPNetBackbone": lambda: H.CSPNetBackbone(
        8, 3, 2, [1, 1], [1, 2], [16, 32], "dark_block", stage_type="csp", bottle_ratio=[0.5], block_ratio=[1, 0.5],
        expand_ratio=[2, 1], stem_padding="same", image_shape=(IMAGE, IMAGE, 3),
    ),
    "DFineBackbone": _d_fine,
    "DINOV2Backbone": lambda: H.DINOV2Backbone(
        4, 2, 32, 4, 48, image_shape=(IMAGE, IMAGE, 3), position_embedding_shape=(IMAGE, IMAGE, 3)
    ),
    "DINOV3Backbone": lambda: H.DINOV3Backbone(4, 2, 32, 4, 48, image_shape=(IMAGE, IMAGE, 3)),
    # Feature maps of 2x2, which the dilation divides: TensorFlow pads others, and more is watched than was asked for.
    "DeepLabV3Backbone": lambda: H.DeepLabV3Backbone(
        _resnet_pyramid(), "P5", 8, [2, 2], low_level_feature_key="P2", projection_filters=8, image_shape=(64, 64, 3)
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
        image_ids_shape=(16, 3), text_ids_shape=(8, 3), y_shape=(32,), guidance_embed=True,
    ),
    "HGNetV2Backbone": lambda: H.HGNetV2Backbone(
        [1, 1], 16, [16, 32], [3, 8, 16], "relu", False,
        [(16, 8, 16, 1, 2, 3), (16, 16, 32, 1, 2, 3)], [False, True], [False, False],
        image_shape=(IMAGE, IMAGE, 3),
    ),
    "MiTBackbone": _mit,
    "MobileNetBackbone": lambda: H.MobileNetBackbone(
        [[16], [48, 48]], [1, 2], [[16], [24, 24]], [[3], [3, 3]], [[2], [2, 1]], [[0.25], [0.25, 0.25]],
        [["relu"], ["hard_swish", "hard_swish"]], [[1], [1, 1]], 64, 16, 2, False, 64,
        image_shape=(IMAGE, IMAGE, 3),
    ),
    "MobileNetV5Backbone": lambda: H.MobileNetV5Backbone(
        [["er"], ["uir", "mqa"]], [1, 2], [[24], [48, 48]], [[2], [2, 1]], [["relu"], ["relu", "relu"]],
        [[4.0], [6.0, 6.0]], [[0.0], [0.0, 0.0]], [[0], [5, 5]], [[0], [3, 0]], [[0], [0, 0]], [[3], [0, 0]],
        [[1], [0, 0]], [[0], [0, 4]], [[0], [0, 8]], [[0], [0, 8]], [[0], [0, 1]], [[False], [False, False]],
        num_features=64, msfa_output_resolution=4, image_shape=(64, 64, 3),
    ),
    "PARSeqBackbone": lambda: H.PARSeqBackbone(_vit_patches(), 32, LENGTH, 32, 1, 4, 48),
    "ResNetBackbone": _resnet,
    "RetinaNetBackbone": lambda: H.RetinaNetBackbone(_resnet_pyramid(), 3, 7, False, image_shape=(64, 64, 3)),
    "SAMBackbone": _sam,
    "SegFormerBackbone": lambda: H.SegFormerBackbone(_mit(), 16),
    "SigLIPBackbone": _siglip,
    "StableDiffusion3Backbone": _stable_diffusion,
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


def task(name: str) -> keras.Model:
    """A small task model with random weights: a classifier, a language model, a detector, ..."""
    kind = getattr(keras_hub.models, name)
    inside = backbone(kind.backbone_cls.__name__)
    wanted = inspect.signature(kind.__init__).parameters
    given = {key: value for key, value in _OF_TASKS.items() if key in wanted}
    return kind(backbone=inside, preprocessor=None, **{**given, **_SPECIAL_TASKS.get(name, {})})


def application(name: str) -> keras.Model:
    """A network of keras.applications with random weights, for 10 classes of small images."""
    keras.utils.set_random_seed(0)
    size = _SMALLEST_IMAGE.get(name, IMAGE)
    options = {"input_shape": (size, size, 3), "weights": None, "classes": 10, "classifier_activation": None}
    return getattr(keras.applications, name)(**options)


def network(name: str) -> keras.Model:
    """A network with random weights, by the name of its class or function."""
    if name.endswith("Backbone"):
        return backbone(name)
    return application(name) if name in application_names() else task(name)


def names() -> list[str]:
    """The backbones of keras-hub that are no base classes."""
    bases = ("Backbone", "FeaturePyramidBackbone")
    return [name for name in dir(keras_hub.models) if name.endswith("Backbone") and name not in bases]


def task_names() -> list[str]:
    """The task models of keras-hub that are no base classes, one for each class: some have two names."""
    found: dict[Any, str] = {}
    for name in dir(keras_hub.models):
        kind = getattr(keras_hub.models, name)
        if inspect.isclass(kind) and issubclass(kind, keras_hub.models.Task) and kind.backbone_cls is not None:
            found.setdefault(kind, name)
    return sorted(found.values())


def application_names() -> list[str]:
    """The networks of keras.applications."""
    return [name for name in dir(keras.applications) if name[0].isupper()]


def on_known_inputs(model: keras.Model) -> keras.Model:
    """The model called on inputs without unknown sizes, the batch excepted."""
    if not any(None in tensor.shape[1:] for tensor in model.inputs):
        return model

    def known(tensor: Any) -> Any:
        size = IMAGE if len(tensor.shape) == 4 else LENGTH
        if "audio" in tensor.name or any("encoder_input_values" in other.name for other in model.inputs):
            size = AUDIO if "decoder" not in tensor.name else LENGTH
        shape = [size if one is None else one for one in tensor.shape[1:]]
        if type(model).__name__.startswith("SAM"):
            shape = _PROMPTS.get(tensor.name, shape)
        return keras.Input(shape, dtype=tensor.dtype, name=tensor.name)

    inputs = keras.tree.map_structure(known, model._inputs_struct)
    return keras.Model(inputs, model(inputs), name=f"{model.name}_on_known_inputs")


def batch_for(model: keras.Model, count: int = 2, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)

    def draw(tensor: Any) -> np.ndarray:
        shape = (count, *tensor.shape[1:])
        if "mask" in tensor.name and len(shape) == 2:
            return (np.arange(shape[1])[None] < rng.integers(shape[1] // 2, shape[1] + 1, (count, 1))).astype("int32")
        if tensor.name == "num_steps":
            return np.full(shape, 2, tensor.dtype)
        if "int" in tensor.dtype:
            return rng.integers(0, 2, shape).astype(tensor.dtype)
        return rng.uniform(-1, 1, shape).astype("float32")

    return keras.tree.map_structure(draw, model._inputs_struct)
