"""What every kind of layer does with channels: one table, one row a kind.

A row says how channels flow through the layer (`flow`), which constructor arguments are its widths (`widths`), along
which axes its weights follow the channels (`weights`), where a closed gate is felt (`gates`), and at how many positions
each kernel is applied (`kernels`), from which its parameters and multiply-adds follow. The rest of the library never
asks what kind a layer is. A layer without a row is probed (see `probe`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import layers

from ..errors import MorphError
from . import flows, masking, products, resize
from .flows import Flow, Labelled
from .probe import probe
from .standins import Constant, KeepInputs, Kernel, Sized, TrainingLoss, Weight, flat_terms
from .trace import Call, Ref

Axes = Mapping[str, tuple[str | None, ...]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A row of the table. Axes are the named ones that the flow function records.

    Attributes:
        flow: labels of the inputs -> labels of the output, or a list of them for several outputs.
        widths: for each constructor argument that is a width, the axis whose channels it counts. A dot leads into the
            configuration of a layer inside, as in "layer.config.units".
        weights: for each weight, by attribute path, the axis that each of its last dimensions follows; None for one
            that does not follow channels.
        gates: for each kernel that mixes channels, the axis whose closed gates it must not see; () for a layer that
            mixes in another way.
        kernels: for each kernel, whether it is applied once per position of the layer's "input" or "output", or of the
            argument of that name.
        products: multiply-adds that are no kernel's: `CallWidths` -> float, see `products`. A layer with neither
            multiplies nothing; one whose work is not known has `products.unknown`.
        joins: how it merges tensors of which some are dead: "merge" leaves them out, and the last one left passes
            unchanged; "first" passes the first when all others are dead; "append" lays what is left end to end; ""
            cannot do without any.
        passes: computes nothing at inference; its output is its input, perhaps under another shape.
        masked: for a layer with statistics over channels: (layer, gate of each channel, inputs) -> outputs.
        scales: whether a call is positively homogeneous channel by channel: with a channel multiplied by z >= 0 in all
            inputs that hold it, the same channel comes out multiplied by z; None for one that is not.
        resize: changes a layer's configuration or a call's arguments that hold sizes of tensors.
    """

    flow: Callable[[Flow], Labelled]
    widths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: Axes = dataclasses.field(default_factory=dict)
    gates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kernels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    products: Callable[[Any], Any] | None = None
    joins: str = ""
    passes: bool = False
    masked: Callable[..., Any] | None = None
    scales: Callable[[Call], bool] | None = None
    resize: Callable[[resize.Resize], None] | None = None


def _per_channel(*names: str) -> Axes:
    return dict.fromkeys(names, ("out",))


def _always(call: Call) -> bool:
    return True


def _without_constants(call: Call) -> bool:
    return all(isinstance(leaf, Ref) for leaf in keras.tree.flatten((call.args, call.kwargs)))


def _is_plain_relu(call: Call) -> bool:
    layer: Any = call.layer
    return layer.max_value is None and not layer.threshold


def _is_homogeneous_activation(call: Call) -> bool:
    layer: Any = call.layer
    homogeneous = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
    return any(layer.activation is function for function in homogeneous)


def _is_of_places(call: Call) -> bool:
    """For means and sums: whether it runs over other axes than the last, on which the channels may be."""
    axes = getattr(call.layer, "axis", None)
    return axes is not None and -1 not in ((axes,) if isinstance(axes, int) else tuple(axes))


def _has_no_offset(call: Call) -> bool:
    """For convolutions of each channel by itself."""
    layer: Any = call.layer
    return not layer.use_bias and _is_homogeneous_activation(call)


_CARRY = Rule(flows.carry)
_SCALED = Rule(flows.carry, scales=_always)
_PASS = Rule(flows.carry, passes=True)
_PASS_SCALED = dataclasses.replace(_PASS, scales=_always)
_JOIN = Rule(flows.join, joins="merge")
_SUM = dataclasses.replace(_JOIN, scales=_without_constants)
_ALL_NEEDED = Rule(flows.join)
_ALL_NEEDED_SCALED = Rule(flows.join, scales=_without_constants)
_CONCATENATE = Rule(flows.concatenate, joins="append", scales=_always)
_MOVE = Rule(flows.move, scales=_always)
_RESHAPE = Rule(flows.move, passes=True, scales=_always, resize=resize.target_shape)
_REDUCE = Rule(flows.reduce)
_COMPETE = Rule(flows.compete)
_MEAN = Rule(flows.reduce, scales=_always)
_DENSE = Rule(
    flows.mix,
    widths={"units": "out"},
    weights={"kernel": ("in", "out"), "bias": ("out",)},
    gates={"kernel": "in"},
    kernels={"kernel": "output"},
)
_CONVOLUTION = Rule(
    flows.mix_in_groups,
    widths={"filters": "out"},
    weights={"kernel": ("in_per_group", "out"), "bias": ("out",)},
    gates={"kernel": "in_per_group"},
    kernels={"kernel": "output"},
    resize=resize.one_group_a_channel,
)
_TRANSPOSED = Rule(
    flows.mix,
    widths={"filters": "out"},
    weights={"kernel": ("out", "in"), "bias": ("out",)},
    gates={"kernel": "in"},
    kernels={"kernel": "input"},
)
_DEPTHWISE = Rule(
    flows.depthwise,
    weights={"kernel": ("in", None), "bias": ("out",)},
    kernels={"kernel": "output"},
    scales=_has_no_offset,
)
_SEPARABLE = Rule(
    flows.separable,
    widths={"filters": "out"},
    weights={"depthwise_kernel": ("in", None), "pointwise_kernel": ("between", "out"), "bias": ("out",)},
    gates={"depthwise_kernel": "in"},
    kernels={"depthwise_kernel": "output", "pointwise_kernel": "output"},
)
_RECURRENT = Rule(
    flows.recur,
    widths={"units": "out"},
    weights={"cell.kernel": ("in", "gates"), "cell.recurrent_kernel": ("out", "gates"), "cell.bias": ("gates",)},
    gates={"cell.kernel": "in", "cell.recurrent_kernel": "out"},
    kernels={"cell.kernel": "sequences", "cell.recurrent_kernel": "sequences"},
)
_ATTENTION_GATES = {
    "_query_dense.kernel": "in_query",
    "_key_dense.kernel": "in_key",
    "_value_dense.kernel": "in_value",
}
_ATTENTION = Rule(
    flows.attend,
    widths={"num_heads": "heads", "output_shape": "out"},
    weights={
        "_query_dense.kernel": ("in_query", "heads", None),
        "_key_dense.kernel": ("in_key", "heads", None),
        "_value_dense.kernel": ("in_value", "heads", None),
        "_query_dense.bias": ("heads", None),
        "_key_dense.bias": ("heads", None),
        "_value_dense.bias": ("heads", None),
        "_output_dense.kernel": ("heads", None, "out"),
        "_output_dense.bias": ("out",),
    },
    gates={**_ATTENTION_GATES, "_output_dense.kernel": "heads"},
    kernels={
        "_query_dense.kernel": "query",
        "_key_dense.kernel": "key",
        "_value_dense.kernel": "value",
        "_output_dense.kernel": "output",
    },
    products=products.attention_products,
)
_GROUPED_ATTENTION = dataclasses.replace(
    _ATTENTION,
    flow=flows.attend_in_groups,
    widths={"num_query_heads": "query_heads", "num_key_value_heads": "heads"},
    weights={
        "_query_dense.kernel": ("in_query", "query_heads", None),
        "_key_dense.kernel": ("in_key", "heads", None),
        "_value_dense.kernel": ("in_value", "heads", None),
        "_query_dense.bias": ("query_heads", None),
        "_key_dense.bias": ("heads", None),
        "_value_dense.bias": ("heads", None),
        "_output_dense.kernel": ("query_heads", None, "in_query"),
        "_output_dense.bias": ("in_query",),
    },
    gates={**_ATTENTION_GATES, "_output_dense.kernel": "query_heads"},
)


def _inside(rule: Rule, layer: str, config: str, axis: str = "") -> Rule:
    """A row for a layer that stands inside another, by its attribute and its place in the configuration.

    Its axes get the prefix `axis`.
    """
    return dataclasses.replace(
        rule,
        widths={f"{config}.config.{argument}": axis + name for argument, name in rule.widths.items()},
        weights={
            f"{layer}.{path}": tuple(name and axis + name for name in names) for path, names in rule.weights.items()
        },
        gates={f"{layer}.{path}": axis + name for path, name in rule.gates.items()},
        kernels={f"{layer}.{path}": side for path, side in rule.kernels.items()},
    )


def _both_ways(rule: Rule) -> Rule:
    """A row for a layer that runs one of this row in both directions."""
    forward = _inside(rule, "forward_layer", "layer", "forward_")
    backward = _inside(rule, "backward_layer", "backward_layer", "backward_")
    return dataclasses.replace(
        rule,
        flow=flows.recur_both_ways,
        widths={**forward.widths, **backward.widths},
        weights={**forward.weights, **backward.weights},
        gates={**forward.gates, **backward.gates},
        kernels={**forward.kernels, **backward.kernels},
    )


_BOTH_WAYS = _both_ways(_RECURRENT)
_AFFINE = _per_channel("gamma", "beta", "moving_mean", "moving_variance")


def _rows(rule: Rule, *names: str) -> dict[type, Rule]:
    """The same row for several layers of keras.layers; one that this Keras does not have yet is left out."""
    return {getattr(layers, name): rule for name in names if hasattr(layers, name)}


def _ranks(rule: Rule, *names: str) -> dict[type, Rule]:
    """The same row for the one-, two- and three-dimensional kinds."""
    return _rows(rule, *(f"{name.format(rank)}" for name in names for rank in ("1D", "2D", "3D")))


RULES: dict[type, Rule] = {
    **_rows(_DENSE, "Dense"),
    **_ranks(_CONVOLUTION, "Conv{}"),
    **_ranks(_TRANSPOSED, "Conv{}Transpose"),
    **_ranks(_DEPTHWISE, "DepthwiseConv{}"),
    **_ranks(_SEPARABLE, "SeparableConv{}"),
    **_rows(_RECURRENT, "LSTM", "GRU", "SimpleRNN"),
    **_rows(_ATTENTION, "MultiHeadAttention"),
    **_rows(_GROUPED_ATTENTION, "GroupQueryAttention"),
    **_rows(Rule(flows.embed, widths={"output_dim": "out"}, weights={"embeddings": (None, "out")}), "Embedding"),
    **_rows(Rule(flows.normalize, weights=_AFFINE), "BatchNormalization"),
    **_rows(
        Rule(flows.normalize_last, weights=_AFFINE, masked=masking.masked_layer_normalization), "LayerNormalization"
    ),
    **_rows(
        Rule(flows.normalize_last, weights=_per_channel("scale"), masked=masking.masked_rms_normalization),
        "RMSNormalization",
    ),
    **_rows(
        Rule(
            flows.normalize_groups,
            weights=_AFFINE,
            masked=masking.masked_group_normalization,
            resize=resize.one_group_a_channel,
        ),
        "GroupNormalization",
    ),
    **_rows(Rule(flows.normalize_last, masked=masking.masked_unit_normalization), "UnitNormalization"),
    **_rows(Rule(flows.normalize_data), "Normalization"),
    **_rows(Rule(flows.compare), "Masking"),
    **_rows(Rule(flows.activate, scales=_is_homogeneous_activation), "Activation"),
    **_rows(Rule(flows.slope, weights={"alpha": ("out",)}), "PReLU"),
    **_rows(Rule(flows.rescale), "Rescaling"),
    **_rows(_CARRY, "ELU"),
    **_rows(Rule(flows.carry, scales=_is_plain_relu), "ReLU"),
    **_rows(_SCALED, "LeakyReLU"),
    **_rows(_PASS, "ActivityRegularization", "GaussianNoise", "AlphaDropout"),
    **_rows(_PASS_SCALED, "Identity", "Dropout", "GaussianDropout"),
    **_ranks(_PASS_SCALED, "SpatialDropout{}"),
    **_ranks(_SCALED, "MaxPooling{}", "AveragePooling{}"),
    **_ranks(_SCALED, "ZeroPadding{}", "Cropping{}", "UpSampling{}"),
    **_ranks(Rule(flows.pool_all, scales=_always), "GlobalAveragePooling{}", "GlobalMaxPooling{}"),
    **_rows(Rule(flows.flatten, passes=True, scales=_always), "Flatten"),
    **_rows(_RESHAPE, "Reshape"),
    **_rows(_MOVE, "Permute", "RepeatVector"),
    **_rows(_CONCATENATE, "Concatenate"),
    **_rows(_SUM, "Add"),
    **_rows(_JOIN, "Multiply"),
    **_rows(_ALL_NEEDED_SCALED, "Subtract", "Average", "Maximum", "Minimum"),
    **_rows(_COMPETE, "Softmax"),
    Constant: Rule(flows.tabulate, resize=resize.rows_of_table),
    Sized: Rule(
        flows.spread,
        products=lambda call: products.formula_of(call.layer.operation)(call),
        resize=resize.spread_sizes,
    ),
    TrainingLoss: Rule(flows.lead_to_loss, joins="first"),
    KeepInputs: Rule(flows.carry, passes=True, joins="first", scales=_always),
}

# Operations of keras.ops, and of Python's operators on tensors, by the name of their class.
OPERATIONS: dict[str, Rule] = {
    "Add": _SUM,
    "Multiply": _JOIN,
    **dict.fromkeys(("Subtract", "Maximum", "Minimum"), _ALL_NEEDED_SCALED),
    **dict.fromkeys(
        "Divide TrueDivide DivideNoNan Power Where Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd "
        "LogicalOr LogicalXor".split(),
        _ALL_NEEDED,
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _COMPETE),
    "DotProductAttention": Rule(flows.attend_by_operation, products=products.OF_OPERATIONS["DotProductAttention"]),
    "Clip": Rule(flows.clip),
    "Einsum": Rule(flows.contract, products=products.OF_OPERATIONS["Einsum"]),
    "Matmul": Rule(flows.multiply_matrices, products=products.OF_OPERATIONS["Matmul"]),
    "Repeat": Rule(flows.repeat),
    "Stack": Rule(flows.stack, scales=_without_constants),
    "Take": Rule(flows.look_up),
    **dict.fromkeys(
        "Cast Celu Cos Elu Erf Exp Expm1 Gelu HardSigmoid HardSilu HardTanh HardSwish Isfinite Isinf Isnan "
        "Log Log1p LogSigmoid LogicalNot Mish Relu6 Round Rsqrt Selu Sigmoid Sign Silu Sin SoftShrink Softplus "
        "Softsign Sqrt Square Swish Tanh TanhShrink Threshold OnesLike ZerosLike".split(),
        _CARRY,
    ),
    **dict.fromkeys(("Abs", "Absolute", "LeakyRelu", "Negative", "Relu"), _SCALED),
    "StopGradient": _PASS,
    "Mean": Rule(flows.summarise, scales=_is_of_places, masked=masking.masked_mean),
    "Sum": Rule(flows.summarise, scales=_is_of_places, masked=masking.masked_sum),
    **dict.fromkeys(("Max", "Min", "Amax", "Amin"), _MEAN),
    **dict.fromkeys(("Var", "Std"), _REDUCE),
    **dict.fromkeys(("Transpose", "Moveaxis", "Swapaxes"), _MOVE),
    **dict.fromkeys(("ExpandDims", "Squeeze"), Rule(flows.move, passes=True, scales=_always)),
    "Concatenate": _CONCATENATE,
    "Reshape": _RESHAPE,
    "Split": Rule(flows.move, scales=_always, resize=resize.split_points),
    "GetItem": Rule(flows.slice_evenly, scales=_always, resize=resize.slice_ends),
    "Slice": Rule(flows.cut_out, scales=_always, resize=resize.cut_sizes),
}

UNKNOWN = Rule(probe, products=products.by_running, resize=resize.take_as_it_comes)


@functools.cache
def _unknown(formula: products.Formula) -> Rule:
    """The row of a layer whose channels are probed, and whose work is counted in this way."""
    return UNKNOWN if formula is products.by_running else dataclasses.replace(UNKNOWN, products=formula)


def register_rule(layer_class: type, rule: Rule) -> None:
    """Teach the library a layer of your own: from now on its channels can be pruned.

    Args:
        layer_class: the layer's exact class.
        rule: its row, made of the functions of `morph_core.network.flows`.

    Raises:
        MorphError: `layer_class` is not a Keras layer class, or a weight follows an axis in `gates` that it does not
            have.

    Example:
        >>> import keras, morph_core as morph
        >>> class Scale(keras.layers.Layer):
        ...     def __init__(self, channels, **options):
        ...         super().__init__(**options)
        ...         self.channels = channels
        ...     def build(self, shape):
        ...         self.scale = self.add_weight(shape=(self.channels,), initializer="ones")
        ...     def call(self, x):
        ...         return x * self.scale
        >>> row = morph.Rule(morph.flows.follow_last, widths={"channels": "out"}, weights={"scale": ("out",)})
        >>> morph.register_rule(Scale, row)
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise MorphError(f"register_rule: {layer_class!r} is not a class of Keras layers.")
    for path, axis in rule.gates.items():
        if axis not in rule.weights.get(path, ()):
            raise MorphError(
                f"register_rule: the gates of {layer_class.__name__} name axis '{axis}' of weight '{path}', but "
                f"`weights` says it follows {rule.weights.get(path, ())}."
            )
    RULES[layer_class] = rule


def rule_for(layer: Any) -> Rule:
    """The row of a layer's exact class: a subclass may do anything in `call`, so it needs a row of its own."""
    if isinstance(layer, keras.Layer):
        if type(layer) is Weight:
            return _rule_of_weight(len(layer.shape))
        if type(layer) is Kernel:
            return _rule_of_kernel(layer.equation)
        if type(layer) is layers.EinsumDense and layers.EinsumDense not in RULES:
            return _rule_of_equation(layer)
        known = RULES.get(type(layer)) or _rule_of_wrapper(layer) or _rule_inside_keras(type(layer))
        return known or _unknown(products.formula_of(layer))
    if type(layer).__module__.split(".")[0] == "keras" and type(layer).__name__ in OPERATIONS:
        return OPERATIONS[type(layer).__name__]
    return _unknown(products.formula_of(layer))


@functools.cache
def _rule_of_weight(rank: int) -> Rule:
    """The row of a weight by itself: its channels lie along its last axis."""
    return Rule(flows.hold, widths={f"shape.{rank - 1}": "out"} if rank else {}, weights={"weight": ("out",)})


@functools.cache
def _rule_of_kernel(equation: str) -> Rule:
    """The row of a weight that a tensor is multiplied with, whose equation says what each of its axes is."""
    roles = flows.kernel_roles(equation)
    if roles is None:
        return _unknown(products.of_kernel)
    _, kernel, _ = flat_terms(equation)
    names = {roles.read: "read", **{letter: f"made {letter}" for letter in roles.made}}
    return Rule(
        flows.multiply_by_kernel,
        widths={f"shape.{place}": names[letter] for place, letter in enumerate(kernel) if letter in names},
        weights={"weight": tuple(names.get(letter) for letter in kernel)},
        gates={"weight": "read"},
        products=products.of_kernel,
    )


def _rule_of_equation(layer: Any) -> Rule:
    """The row of an EinsumDense, whose equation says what each axis of its kernel is."""
    roles = flows.einsum_roles(layer)
    if roles is None or layer.lora_enabled or layer.quantization_mode is not None:
        return _unknown(products.of_equation)
    _, kernel, made = flows.einsum_terms(layer)
    names: dict[str, str | None] = {roles.read: "read", roles.made: "out"}
    rule = Rule(
        flows.mix_by_equation,
        widths={f"output_shape.{made.index(roles.made) - 1}": "out"},
        weights={"kernel": tuple(names.get(letter) for letter in kernel)},
        gates={"kernel": "read"},
        products=products.of_equation,
    )
    if layer.bias_axes:
        first = min(made.index(letter) for letter in layer.bias_axes)
        follows = tuple(names.get(letter) if letter in layer.bias_axes else None for letter in made[first:])
        if roles.made not in layer.bias_axes:
            follows = (None,) * len(follows)
        rule = dataclasses.replace(rule, weights={**rule.weights, "bias": follows})
    return rule


def _rule_of_wrapper(layer: Any) -> Rule | None:
    """The row of a layer around another, made from the inner one's where that says all."""
    if type(layer) is layers.Bidirectional:
        directions = (layer.forward_layer, layer.backward_layer)
        return _BOTH_WAYS if all(rule_for(one) is _RECURRENT for one in directions) else None
    if type(layer) is not layers.TimeDistributed:
        return None
    inner = rule_for(layer.layer)
    inner_resize = inner.resize
    # Statistics over channels, sizes of whole tensors and nested wrappers are left to the probe, and so are channels
    # on another axis than the last, since the places of a kernel are then others, too.
    if flows.channel_axis(layer.layer) == 1:
        return None
    if inner.flow is probe or inner.products or inner.masked or inner.flow in (flows.move, flows.recur_both_ways):
        return None
    if inner_resize not in (None, resize.one_group_a_channel):
        return None
    return dataclasses.replace(
        _inside(inner, "layer", "layer"),
        flow=flows.each_step(inner.flow),
        scales=None,
        resize=inner_resize and (lambda change: inner_resize(_for_inner_layer(change))),
    )


def _for_inner_layer(change: resize.Resize) -> resize.Resize:
    return dataclasses.replace(change, config=change.config["layer"]["config"])


# Layers that keras.applications defines for itself, by module and name.
_INSIDE_KERAS = {
    ("keras.src.applications.convnext", "LayerScale"): Rule(
        flows.follow_last, widths={"projection_dim": "out"}, weights=_per_channel("gamma")
    ),
    ("keras.src.applications.convnext", "StochasticDepth"): _PASS,
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"): Rule(flows.join, joins="first"),
}


def _rule_inside_keras(kind: type) -> Rule | None:
    return _INSIDE_KERAS.get((kind.__module__, kind.__name__))
