"""The table of rules against the probe, and the probe against layers that try to fool it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.network import probe, rules, trial
from morph_core.network.dependence import sources_of
from morph_core.network.flows import Flow
from morph_core.network.grouping import channels_of
from morph_core.network.labels import Labels
from morph_core.network.trace import trace
from tests.core.networks import batch_for, conv, network, random_structure, sizes

# --- every row of the table, tried -----------------------------------------------------------------------------------

CHANNELS = 8
Shapes = list[tuple[int, ...]]


@pytest.fixture(autouse=True)
def _on_a_busy_machine(monkeypatch):
    """What a layer does with channels must not depend on how fast it was tried."""
    monkeypatch.setattr(trial, "_SECONDS", 300.0)


def places(rank: int, channels: int = CHANNELS) -> Shapes:
    return [(*[6] * rank, channels)]


def of_rank(rank: int) -> dict[str, list[tuple[Callable, Shapes]]]:
    """Samples of the layers for images of one, two and three dimensions."""
    pool = {"pool_size": 2, "strides": 2, "padding": "same"}
    kinds = {
        "Conv{}D": [
            {"filters": 5, "kernel_size": 3},
            {"filters": 6, "kernel_size": 3, "groups": 2},
            {"filters": 16, "kernel_size": 3, "groups": CHANNELS, "padding": "same"},
        ],
        "Conv{}DTranspose": [{"filters": 5, "kernel_size": 3, "strides": 2}],
        "DepthwiseConv{}D": [{"kernel_size": 3}, {"kernel_size": 3, "depth_multiplier": 2, "activation": "relu"}],
        "SeparableConv{}D": [{"filters": 5, "kernel_size": 3, "depth_multiplier": 2}],
        "SpatialDropout{}D": [{"rate": 0.5}],
        "MaxPooling{}D": [pool],
        "AveragePooling{}D": [pool],
        "ZeroPadding{}D": [{"padding": 1}],
        "Cropping{}D": [{"cropping": 1}],
        "UpSampling{}D": [{"size": 2}],
        "GlobalAveragePooling{}D": [{}, {"keepdims": True}],
        "GlobalMaxPooling{}D": [{}],
    }
    return {
        name.format(rank): [
            (lambda name=name, options=options: getattr(layers, name.format(rank))(**options), places(rank))
            for options in several
        ]
        for name, several in kinds.items()
        if hasattr(layers, name.format(rank))
    }


IMAGE = places(2)
STEPS = places(1)
TWO_IMAGES = [*IMAGE, *IMAGE]

SAMPLES: dict[str, list[tuple[Callable, Shapes]]] = {
    **of_rank(1),
    **of_rank(2),
    **of_rank(3),
    "Dense": [(lambda: layers.Dense(5), [(CHANNELS,)]), (lambda: layers.Dense(5, activation="softmax"), IMAGE)],
    "LSTM": [(lambda: layers.LSTM(5), STEPS), (lambda: layers.LSTM(5, return_sequences=True), STEPS)],
    "GRU": [(lambda: layers.GRU(5), STEPS), (lambda: layers.GRU(5, reset_after=False), STEPS)],
    "SimpleRNN": [(lambda: layers.SimpleRNN(5), STEPS)],
    "MultiHeadAttention": [(lambda: layers.MultiHeadAttention(2, 3), [*STEPS, *STEPS])],
    "GroupedQueryAttention": [(lambda: layers.GroupQueryAttention(3, 4, 2), [*STEPS, *STEPS])],
    "BatchNormalization": [(layers.BatchNormalization, IMAGE)],
    "LayerNormalization": [
        (layers.LayerNormalization, IMAGE),
        (lambda: layers.LayerNormalization(axis=(1, 2, 3)), IMAGE),
    ],
    "RMSNormalization": [(layers.RMSNormalization, IMAGE)],
    "GroupNormalization": [(lambda: layers.GroupNormalization(2), IMAGE)],
    "UnitNormalization": [(layers.UnitNormalization, IMAGE)],
    "Normalization": [(lambda: layers.Normalization(mean=[0.5] * CHANNELS, variance=[2.0] * CHANNELS), IMAGE)],
    "Masking": [(layers.Masking, STEPS)],
    "Activation": [
        (lambda name=name: layers.Activation(name), IMAGE) for name in ("relu", "softmax", "glu", "log_softmax")
    ],
    "PReLU": [(layers.PReLU, IMAGE), (lambda: layers.PReLU(shared_axes=[1, 2]), IMAGE)],
    "Rescaling": [(lambda: layers.Rescaling(0.5, 1.0), IMAGE), (lambda: layers.Rescaling([0.5] * CHANNELS), IMAGE)],
    "ReLU": [(layers.ReLU, IMAGE)],
    "LeakyReLU": [(layers.LeakyReLU, IMAGE)],
    "ELU": [(layers.ELU, IMAGE)],
    "Identity": [(layers.Identity, IMAGE)],
    "Dropout": [(lambda: layers.Dropout(0.5), IMAGE)],
    "ActivityRegularization": [(lambda: layers.ActivityRegularization(0.1), IMAGE)],
    "GaussianNoise": [(lambda: layers.GaussianNoise(0.5), IMAGE)],
    "GaussianDropout": [(lambda: layers.GaussianDropout(0.5), IMAGE)],
    "AlphaDropout": [(lambda: layers.AlphaDropout(0.5), IMAGE)],
    "Flatten": [(layers.Flatten, places(1)), (layers.Flatten, IMAGE)],
    "Reshape": [(lambda: layers.Reshape((36, CHANNELS)), IMAGE), (lambda: layers.Reshape((-1,)), IMAGE)],
    "Permute": [(lambda: layers.Permute((3, 1, 2)), IMAGE), (lambda: layers.Permute((2, 1, 3)), IMAGE)],
    "RepeatVector": [(lambda: layers.RepeatVector(3), [(CHANNELS,)])],
    "Concatenate": [(layers.Concatenate, [*IMAGE, *places(2, 5)]), (lambda: layers.Concatenate(axis=1), TWO_IMAGES)],
    **{
        name: [(getattr(layers, name), TWO_IMAGES)]
        for name in ("Add", "Multiply", "Subtract", "Average", "Maximum", "Minimum")
    },
    "Softmax": [(layers.Softmax, IMAGE), (lambda: layers.Softmax(axis=1), IMAGE)],
    "Bidirectional": [(lambda: layers.Bidirectional(layers.LSTM(5)), STEPS)],
    "TimeDistributed": [
        (lambda: layers.TimeDistributed(layers.Dense(5)), STEPS),
        (lambda: layers.TimeDistributed(layers.BatchNormalization()), IMAGE),
        (lambda: layers.TimeDistributed(layers.MaxPooling2D()), places(3)),
        (lambda: layers.TimeDistributed(layers.Flatten()), places(3)),
    ],
}
ROWS = {kind.__name__ for kind in rules.RULES}
EXCUSED = {
    "Embedding": "it reads numbers of words, no channels",
    "Constant": "it reads nothing",
    "Sized": "it stands for an operation that needs all that it reads",
    "TrainingLoss": "it passes its first input on; its second is of a loss, and has no channels",
    "KeepInputs": "it stands behind inputs of the network, which have no channels that can go",
}


def _operation(name: str) -> Callable | None:
    """keras.ops' function behind an operation's class: `hard_silu` for HardSilu."""
    return getattr(ops, re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower(), None)


WITH_ARGUMENTS: dict[str, tuple[Callable, Shapes]] = {
    "Clip": (lambda x: ops.clip(x, -1.0, 1.0), IMAGE),
    "Cast": (lambda x: ops.cast(x, "float64"), IMAGE),
    "Threshold": (lambda x: ops.threshold(x, 0.5, 0.0), IMAGE),
    "Amax": (lambda x: ops.amax(x, axis=1), IMAGE),
    "Amin": (lambda x: ops.amin(x, axis=1), IMAGE),
    **{
        name: (lambda x, name=name: getattr(ops, name.lower())(x, axis=(1, 2)), IMAGE)
        for name in ("Mean", "Sum", "Max", "Min", "Var", "Std")
    },
    "Transpose": (lambda x: ops.transpose(x, (0, 2, 1, 3)), IMAGE),
    "Moveaxis": (lambda x: ops.moveaxis(x, 1, 2), IMAGE),
    "Swapaxes": (lambda x: ops.swapaxes(x, 1, 3), IMAGE),
    "ExpandDims": (lambda x: ops.expand_dims(x, 1), IMAGE),
    "Squeeze": (lambda x: ops.squeeze(x, 1), [(1, 6, CHANNELS)]),
    "Concatenate": (lambda x, y: ops.concatenate([x, y], axis=-1), TWO_IMAGES),
    "Reshape": (lambda x: ops.reshape(x, (-1, 36, CHANNELS)), IMAGE),
    "Split": (lambda x: ops.split(x, [3], axis=-1), IMAGE),
    "GetItem": (lambda x: x[:, 1:3, :, 2:7], IMAGE),
    "Where": (lambda x, y: ops.where(x > y, x, y), TWO_IMAGES),
    "LogicalAnd": (lambda x, y: ops.logical_and(x > 0, y > 0), TWO_IMAGES),
    "LogicalOr": (lambda x, y: ops.logical_or(x > 0, y > 0), TWO_IMAGES),
    "LogicalXor": (lambda x, y: ops.logical_xor(x > 0, y > 0), TWO_IMAGES),
    "LogicalNot": (lambda x: ops.logical_not(x > 0), IMAGE),
    "StopGradient": (ops.stop_gradient, IMAGE),
    "DotProductAttention": (ops.dot_product_attention, [(6, 2, CHANNELS)] * 3),
    "Einsum": (lambda x, y: ops.einsum("bhwc,bhwc->bhwc", x, y), TWO_IMAGES),
    "Matmul": (lambda x: ops.matmul(np.full((6, 6), 0.5, "float32"), x), IMAGE),
    "Slice": (lambda x: ops.slice(x, (0, 1, 0, 0), (1, 3, 6, CHANNELS)), IMAGE),
    "Stack": (lambda x, y: ops.stack([x, y], axis=2), TWO_IMAGES),
    "Repeat": (lambda x: ops.repeat(x, 2, axis=-1), IMAGE),
    "Take": (lambda x: ops.take(x, [0, 2, 1], axis=1), IMAGE),
}
BINARY = {"Add", "Multiply", "Subtract", "Divide", "TrueDivide", "DivideNoNan", "Maximum", "Minimum", "Power"} | {
    "Equal",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "NotEqual",
}
# Random numbers get the same answer from them: they are finite, and no two of them are equal.
UNMOVED = {"Equal", "NotEqual", "Isfinite", "Isinf", "Isnan", "OnesLike", "ZerosLike"}


def _operation_sample(name: str) -> tuple[Callable, Shapes] | None:
    if name in WITH_ARGUMENTS:
        return WITH_ARGUMENTS[name]
    function = _operation(name)
    if function is None:
        return None
    return function, TWO_IMAGES if name in BINARY else IMAGE


def test_every_row_has_a_sample():
    assert ROWS - SAMPLES.keys() == EXCUSED.keys()
    # Names of the same operation differ between Keras versions: a row without a function here has it elsewhere.
    untried = {name for name in rules.OPERATIONS if _operation_sample(name) is None}
    assert len(untried) < 0.15 * len(rules.OPERATIONS), untried


def traced(apply: Callable, shapes: Shapes) -> tuple[Flow, rules.Rule]:
    """The last call of `apply`, with a label for each channel of its inputs' last axis, and its row."""
    inputs = [keras.Input(shape) for shape in shapes]
    record = trace(keras.Model(inputs, apply(inputs)))
    call = record.calls[-1]
    labels = Labels()
    ranks = {number: len(record.shapes[number]) for number in call.inputs}
    marked = [
        labels.fresh(record.shapes[number][-1] or 0).reshape([1] * (ranks[number] - 1) + [-1]) for number in call.inputs
    ]
    flow = Flow(
        call=call,
        labels=labels,
        inputs=marked,
        shapes=[record.shapes[number] for number in call.inputs],
        output_shapes=[record.shapes[number] for number in call.outputs],
        dtypes=[record.dtypes[number] for number in call.inputs],
    )
    return flow, rules.rule_for(call.layer)


def check_row(flow: Flow, rule: rules.Rule) -> None:
    """What the rule says of a call is what the probe sees, or more cautious."""
    made = rule.flow(flow)
    output = made if isinstance(made, np.ndarray) else made[0]
    roots = flow.labels.roots(output)
    frozen = set(flow.labels.reasons())
    read = {int(root) for labels in flow.inputs for root in flow.labels.roots(labels).ravel()}
    varying = [axis for axis, length in enumerate(roots.shape) if length > 1]
    assert len(varying) < 2
    axis = varying[0] if varying else roots.ndim - 1
    tried = trial.Trial(flow, [labels.ndim - 1 for labels in flow.inputs], axis)
    try:
        sources = [
            sources_of(tried, index, labels.ndim - 1, tried.candidate_shapes()[-1])
            for index, labels in enumerate(flow.inputs)
        ]
    except trial.Doubt as doubt:
        if str(doubt) != "it mixes channels":
            raise
        mixes = bool(flow.makes) or rule.masked is not None or read <= frozen
        assert mixes, "the probe sees channels mixed, the rule carries them"
        return
    assert not flow.makes, "the rule says that this mixes, the probe sees channels carried"
    if read <= frozen:
        return
    told = np.broadcast_to(roots.reshape(-1), tried.size)
    assert np.any([source >= 0 for source in sources], axis=0).all()
    for labels, source in zip(flow.inputs, sources, strict=True):
        vector = flow.labels.roots(labels.reshape(-1))
        seen = source >= 0
        assert np.array_equal(told[seen], vector[source[seen]])


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        pytest.param(make, shapes, id=f"{name}-{place}")
        for name, samples in SAMPLES.items()
        if name in {*ROWS, "Bidirectional", "TimeDistributed"}
        for place, (make, shapes) in enumerate(samples)
    ],
)
def test_the_probe_sees_what_the_rules_say_of_layers(make, shapes):
    layer = make()
    attends = "Attention" in type(layer).__name__
    flow, rule = traced(
        lambda inputs: layer(*inputs) if attends else layer(inputs if len(inputs) > 1 else inputs[0]), shapes
    )
    assert rule.flow is not rules.UNKNOWN.flow
    check_row(flow, rule)


@pytest.mark.parametrize("name", sorted(name for name in rules.OPERATIONS.keys() - UNMOVED if _operation_sample(name)))
def test_the_probe_sees_what_the_rules_say_of_operations(name):
    sample = _operation_sample(name)
    assert sample is not None
    function, shapes = sample
    flow, rule = traced(lambda inputs: function(*inputs), shapes)
    assert rule.flow is not rules.UNKNOWN.flow
    check_row(flow, rule)


# --- layers without a row ---------------------------------------------------------------------------------------------


class Affine(layers.Layer):
    """A scale for each channel, an offset for each feature of two dimensions."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.bias = self.add_weight(shape=(1, shape[-1]), initializer="zeros", name="bias")

    def call(self, inputs):
        return inputs * self.scale + self.bias


class Twice(layers.Layer):
    """Each channel twice, next to each other."""

    def call(self, inputs):
        return ops.repeat(inputs, 2, axis=-1)


class Join(layers.Layer):
    """A weighted sum of two tensors."""

    def build(self, shapes):
        self.weight = self.add_weight(shape=(), initializer="ones", name="weight")

    def call(self, inputs):
        return inputs[0] + self.weight * inputs[1]


@pytest.mark.parametrize("body", [Affine(), Twice(), lambda x: Join()([x, conv(12, "c")(x)])])
def test_layers_that_carry_are_pruned_without_a_rule(body):
    model = network(lambda x: conv(6, "b")(body(x)))
    graph = morph.ChannelGraph.from_model(model)
    assert sizes(graph) == {"a": 12, "b": 6}
    structure = random_structure(graph, 0.5)
    assert morph.verify(model, structure, batch_for(model)) < 1e-5
    assert morph.rebuild(model, structure).count_params() == structure.costs["params"]["structure"]


class FarOut(layers.Layer):
    """Mixes channels only where a hard sigmoid leaves its flat part."""

    def call(self, inputs):
        return inputs + ops.hard_sigmoid(0.1 * ops.sum(inputs, axis=-1, keepdims=True) - 30.0)


class FarBelow(layers.Layer):
    """Mixes channels only where their sum is far below zero."""

    def call(self, inputs):
        return inputs + ops.relu(-200.0 - ops.sum(inputs, axis=-1, keepdims=True))


class ZeroMixing(layers.Layer):
    """A mixing kernel that starts as zeros."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), initializer="zeros", name="kernel")

    def call(self, inputs):
        return inputs + inputs @ self.kernel


class ZeroGate(layers.Layer):
    """A mean over channels behind a scalar that starts as zero."""

    def build(self, shape):
        self.gate = self.add_weight(shape=(), initializer="zeros", name="gate")

    def call(self, inputs):
        return inputs + self.gate * ops.mean(inputs, axis=-1, keepdims=True)


class Neighbours(layers.Layer):
    """Each channel less its neighbour."""

    def call(self, inputs):
        return inputs - ops.roll(inputs, 1, axis=-1)


class Noise(layers.Layer):
    """Random numbers at inference, too, of a generator of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(ops.shape(inputs), seed=self.generator)


class GlobalNoise(layers.Layer):
    """Random numbers of the global generator."""

    def call(self, inputs):
        return inputs * keras.random.uniform(ops.shape(inputs))


class Shuffle(layers.Layer):
    """Another order of channels at every call."""

    def __init__(self, **options):
        super().__init__(**options)
        self.generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        # Keras counts the axis from the front for PyTorch.
        return keras.random.shuffle(inputs, axis=len(inputs.shape) - 1, seed=self.generator)


class Width(layers.Layer):
    """Says in its configuration how many channels it has."""

    def __init__(self, channels, **options):
        super().__init__(**options)
        self.channels = channels

    def build(self, shape):
        self.scale = self.add_weight(shape=(self.channels,), initializer="ones", name="scale")

    def call(self, inputs):
        return inputs * self.scale

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


class First(layers.Layer):
    """The first six channels, whatever there are."""

    def call(self, inputs):
        return inputs[..., :6]


class Count(layers.Layer):
    """Divides by the number of channels: each output depends on one channel, but all on how many there are."""

    def call(self, inputs):
        return inputs / inputs.shape[-1]


class Roll(layers.Layer):
    """Moves channels by a third of their number."""

    def call(self, inputs):
        return ops.roll(inputs, inputs.shape[-1] // 3, axis=-1)


class Ranked(layers.Layer):
    """A fixed weight for each place, the same whatever stands there."""

    def call(self, inputs):
        return inputs * ops.arange(1, inputs.shape[-1] + 1, dtype="float32")


class Deaf(layers.Layer):
    """Does not react to its input."""

    def call(self, inputs):
        return 0.0 * inputs


class NoConfiguration(layers.Layer):
    """Has an argument and no get_config that returns it."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


class Both(layers.Layer):
    """Two outputs."""

    def call(self, inputs):
        return inputs, -inputs


REFUSED: dict[str, tuple[Callable, str]] = {
    "saturating": (FarOut, "it mixes channels"),
    "saturating on the other side": (FarBelow, "it mixes channels"),
    "zero kernel": (ZeroMixing, "it mixes channels"),
    "zero gate": (ZeroGate, "it mixes channels"),
    "neighbours": (Neighbours, "it mixes channels"),
    "noise": (Noise, "different answers to the same question"),
    "global noise": (GlobalNoise, "different answers to the same question"),
    "random shuffle": (Shuffle, "different answers to the same question"),
    "width in the configuration": (lambda: Width(12), "cannot be built for fewer channels|fixes its number"),
    "a fixed part": (First, "fixes its number of channels"),
    "a divisor": (Count, "treats channels differently when there are fewer"),
    "a roll": (Roll, "treats channels differently when there are fewer"),
    "a weight for each place": (Ranked, "treats channels differently when there are fewer"),
    "no reaction": (Deaf, "not seen to depend on any channel"),
    "no configuration": (lambda: NoConfiguration(ops.relu), "no usable get_config|cannot be built"),
    "several outputs": (lambda: lambda x: Both(name="own")(x)[1], "has no rule and several outputs"),
}


# Under JAX, Keras cannot put these into a graph at all.
if keras.backend.backend() == "jax":
    del REFUSED["global noise"], REFUSED["random shuffle"]


@pytest.mark.parametrize("name", REFUSED)
def test_the_probe_does_not_trust_layers_and_says_why(name):
    make, reason = REFUSED[name]
    channels = channels_of("", trace(network(lambda x: conv(6, "b")(make()(x)))))
    assert sizes(channels) == {"b": 6}
    (stem,) = [group for group in channels.groups if group.name == "a"]
    assert re.search(reason, stem.reason), stem.reason
    assert "register_rule" in stem.reason and "layer '" in stem.reason


# What these do to channels can be followed through the operations that they run.
FOLLOWED_INSIDE = {
    "width in the configuration": {"a": 12, "b": 6},
    "a fixed part": {"a": 6, "a:2": 6, "b": 6},
    "a divisor": {"a": 12, "b": 6},
    "saturating": {"a": 12, "b": 6},
    "saturating on the other side": {"a": 12, "b": 6},
    "zero kernel": {"a": 12, "b": 6},
    "zero gate": {"a": 12, "b": 6},
    "a weight for each place": {"a": 12, "b": 6},
    "no reaction": {"a": 12, "b": 6},
    "no configuration": {"a": 12, "b": 6},
    "several outputs": {"a": 12, "b": 6},
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_the_probe_does_not_trust_are_opened_or_kept_whole(name):
    make, reason = REFUSED[name]
    model = network(lambda x: conv(6, "b")(make()(x)))
    for weight in model.weights:
        if weight.path.startswith("zero"):
            weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    graph = morph.ChannelGraph.from_model(model)
    assert sizes(graph) == FOLLOWED_INSIDE.get(name, {"b": 6})
    if name in FOLLOWED_INSIDE:
        assert morph.verify(model, random_structure(graph, 0.5), batch_for(model)) < 1e-5
    else:
        (stem,) = [group for group in graph.groups if group.name == "a"]
        assert re.search(reason, stem.reason), stem.reason


def test_a_layer_that_joins_with_the_image_freezes_what_is_joined():
    image = keras.Input((8, 8, 3))
    y = Join(name="blend")([layers.Conv2D(3, 3, padding="same", name="a")(image), image])
    graph = morph.ChannelGraph.from_model(keras.Model(image, layers.Dense(2)(layers.Flatten()(y))))
    assert sizes(graph) == {}
    assert "'blend' (Join)" in str(graph)


# --- bounded and remembered -------------------------------------------------------------------------------------------


class Slow(layers.Layer):
    """Takes its time."""

    def call(self, inputs):
        time.sleep(0.1)
        return ops.relu(inputs)


def test_probing_is_bounded_in_time(monkeypatch):
    monkeypatch.setattr(trial, "_SECONDS", 0.3)
    model = network(lambda x: conv(6, "b")(Slow(name="sleepy")(x)))
    begin = time.monotonic()
    channels = channels_of("", trace(model))
    assert time.monotonic() - begin < 5
    (stem,) = [group for group in channels.groups if group.name == "a"]
    assert "'sleepy' (Slow) has no rule, and probing it takes longer than 0.3 s" in stem.reason


class Counted(layers.Layer):
    """Counts its calls."""

    calls = 0

    def __init__(self, slope, **options):
        super().__init__(**options)
        self.slope = slope

    def call(self, inputs):
        type(self).calls += 1
        return self.slope * inputs

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}


def calls_of(model: keras.Model) -> int:
    before = Counted.calls
    morph.ChannelGraph.from_model(model)
    return Counted.calls - before


def test_layers_that_are_alike_are_probed_once(monkeypatch):
    monkeypatch.setattr(probe, "_known", {})
    assert calls_of(network(Counted(2.0))) > 0
    assert calls_of(network(lambda x: Counted(2.0, name="other")(Counted(2.0)(x)))) == 0
    assert calls_of(network(Counted(3.0))) > 0


def test_layers_that_hold_functions_are_not_taken_for_alike():
    def through(function: Callable) -> dict[str, int]:
        return sizes(morph.ChannelGraph.from_model(network(lambda x: conv(6, "b")(Applied(function)(x)))))

    assert through(ops.relu) == {"a": 12, "b": 6}
    assert through(lambda x: x - ops.max(x, axis=-1, keepdims=True)) == {"b": 6}


def test_functions_of_one_name_are_not_taken_for_alike():
    def through(axis: int) -> dict[str, int]:
        def centered(x):
            return x - ops.mean(x, axis=axis, keepdims=True)

        return sizes(morph.ChannelGraph.from_model(network(lambda x: conv(6, "b")(layers.Lambda(centered)(x)))))

    assert through(1) == {"a": 12, "b": 6}
    assert through(-1) == {"b": 6}


class Applied(layers.Layer):
    """Applies a function that its configuration holds as an object."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)

    def get_config(self):
        return {**super().get_config(), "function": self.function}


def test_probing_leaves_weights_and_random_numbers_as_they_were():
    model = network(lambda x: conv(6, "b")(Noise()(Affine()(x))))
    before = [np.array(variable) for variable in model.variables]
    keras.backend.clear_session()  # which forgets the state of the global random numbers
    keras.utils.set_random_seed(3)
    expected: Any = keras.random.uniform((2,))
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    morph.ChannelGraph.from_model(model)
    assert np.array_equal(keras.random.uniform((2,)), expected)
    for variable, value in zip(model.variables, before, strict=True):
        assert np.array_equal(variable, value)


# --- rules of one's own -----------------------------------------------------------------------------------------------


def test_a_rule_registered_from_outside_makes_a_layer_prunable(monkeypatch):
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))
    model = network(lambda x: conv(6, "b")(Width(12)(x)))
    assert sizes(channels_of("", trace(model))) == {"b": 6}
    row = morph.Rule(morph.flows.follow_last, widths={"channels": "out"}, weights={"scale": ("out",)})
    morph.register_rule(Width, row)
    graph = morph.ChannelGraph.from_model(model)
    assert sizes(graph) == {"a": 12, "b": 6}
    structure = random_structure(graph, 0.5)
    assert morph.verify(model, structure) < 1e-5
    student = morph.rebuild(model, structure)
    assert next(layer for layer in student.layers if isinstance(layer, Width)).channels == 6
    assert student.count_params() == structure.costs["params"]["structure"]


def test_a_rule_for_something_else_than_a_layer_is_refused():
    with pytest.raises(morph.MorphError, match=r"<function relu.* is not a class of Keras layers"):
        morph.register_rule(ops.relu, morph.Rule(morph.flows.carry))


def test_a_rule_whose_gates_follow_no_weight_is_refused():
    row = morph.Rule(morph.flows.mix, weights={"kernel": ("in", "out")}, gates={"kernel": "between"})
    with pytest.raises(morph.MorphError, match=r"gates of Width name axis 'between' of weight 'kernel'"):
        morph.register_rule(Width, row)
