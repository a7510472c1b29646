"""The law: a network that is widened answers as it did before, and its copies do not stay the same."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.structure.widen import widened
from tests.core.networks import batch_for, conv, mlp, network, random_structure, randomize, residual

BACKEND = keras.backend.backend()


def wider(model, factor=1.6, **widths):
    """Widths of a model's groups times a factor, no two of them alike."""
    graph = morph.ChannelGraph.from_model(model)
    prunable = [group for group in graph.groups if group.prunable]
    named = {group.name: round(group.size * factor) + index % 3 for index, group in enumerate(prunable)}
    return morph.describe(graph, {**named, **widths}, alive=dict.fromkeys({**named, **widths}))


def apart(model, wide, inputs=None):
    """How far two networks' answers are from each other, of the largest."""
    inputs = batch_for(model, seed=3) if inputs is None else inputs
    pairs = [keras.tree.flatten(each(inputs, training=False)) for each in (model, wide)]
    return max(
        np.abs(as_numpy(mine) - as_numpy(theirs)).max() / np.abs(as_numpy(mine)).max()
        for mine, theirs in zip(*pairs, strict=True)
    )


def sequence(body, shape=(6, 8)):
    steps = keras.Input(shape)
    return randomize(keras.Model(steps, layers.Dense(3, name="head")(body(steps))))


def tower(x):
    join = layers.Concatenate()([conv(3, "u")(x), conv(5, "t2")(conv(4, "t1")(x)), conv(2, "v")(x)])
    return conv(6, "after")(join)


def squeeze(x):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(4, 1, activation="relu", name="squeeze")(y)
    return layers.Multiply()([x, layers.Conv2D(12, 1, activation="sigmoid", name="excite")(y)])


def halves(x):
    left, right = keras.ops.split(layers.Dense(10, name="both")(x), 2, axis=-1)
    return layers.Dense(4, name="down")(left * keras.ops.sigmoid(right))


def shared(x):
    twice = layers.Conv2D(12, 3, padding="same", activation="relu", name="twice")
    return twice(twice(x))


def attention(x):
    x = x + layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return x + layers.Dense(8, name="narrow")(layers.Dense(12, activation="gelu", name="wide")(x))


class Block(keras.layers.Layer):
    """One that is opened."""

    def build(self, shape):
        self.attention = layers.MultiHeadAttention(2, 4)
        self.wide, self.narrow = layers.Dense(12, activation="gelu"), layers.Dense(shape[-1])
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        x = x + self.attention(x, x)
        return x + self.scale * self.narrow(self.wide(x))


NETWORKS = {
    "dense": lambda: randomize(mlp((10, 7))),
    "residual": lambda: randomize(residual(6)),
    "batch normalization": lambda: network(lambda x: conv(8, "b")(conv(6, "c", strides=2)(x))),
    "a tower": lambda: network(tower),
    "squeeze and excite": lambda: network(squeeze),
    "depthwise": lambda: network(
        lambda x: conv(7, "b", 1)(layers.DepthwiseConv2D(3, depth_multiplier=2, name="each")(x))
    ),
    "separable": lambda: network(
        lambda x: conv(5, "c")(layers.SeparableConv2D(7, 3, depth_multiplier=2, activation="relu", name="b")(x))
    ),
    "flatten": lambda: network(
        lambda x: layers.Dense(9, activation="relu", name="d")(layers.Flatten()(conv(4, "b")(x)))
    ),
    "in groups": lambda: network(lambda x: conv(8, "c")(conv(6, "b", groups=3)(x))),
    "transposed": lambda: network(lambda x: conv(4, "c")(layers.Conv2DTranspose(6, 2, strides=2, name="b")(x))),
    "pooling": lambda: network(lambda x: layers.MaxPooling2D()(layers.ZeroPadding2D()(layers.UpSampling2D()(x)))),
    "maximum, average": lambda: network(
        lambda x: layers.Maximum()([layers.Average()([x, conv(12, "b")(x)]), layers.Subtract()([x, conv(12, "c")(x)])])
    ),
    "a layer called twice": lambda: network(shared),
    "slopes": lambda: network(lambda x: conv(5, "b")(layers.PReLU(shared_axes=(1, 2))(x))),
    "halves": lambda: sequence(halves),
    "recurrent": lambda: sequence(
        lambda x: layers.LSTM(7, name="b")(layers.GRU(5, return_sequences=True, name="a")(x))
    ),
    "both ways": lambda: sequence(lambda x: layers.Bidirectional(layers.LSTM(4), name="b")(x)),
    "attention": lambda: sequence(attention),
    "an opened layer": lambda: sequence(lambda x: Block(name="block")(x)),
    "group normalization by channel": lambda: network(
        lambda x: conv(5, "b")(layers.GroupNormalization(groups=12, name="norm")(x))
    ),
}


@pytest.mark.parametrize("channels", ["copies", "fresh"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_widened_network_answers_as_before(name, channels):
    model = NETWORKS[name]()
    before = [as_numpy(weight).copy() for weight in model.weights]
    structure = wider(model)
    wide = morph.widen(model, structure, seed=5, channels=channels)
    assert apart(model, wide) < 1e-5
    assert wide.count_params() == structure.costs["params"]["structure"] > model.count_params()
    assert all((as_numpy(weight) == old).all() for weight, old in zip(model.weights, before, strict=True))
    assert (
        morph.ChannelGraph.from_model(wide).seed_widths.tolist()
        == structure.widths_in(morph.ChannelGraph.from_model(model)).tolist()
    )


@pytest.mark.parametrize("name", ["residual", "a tower", "attention"])
def test_what_was_narrowed_is_widened_to_a_structure_of_its_seed(name):
    seed = NETWORKS[name]()
    graph = morph.ChannelGraph.from_model(seed)
    narrow_structure = random_structure(graph, 0.5)
    narrow = morph.rebuild(seed, narrow_structure, weights="inherit")
    structure = morph.expand(narrow_structure, graph, "params", target=1.0)
    wide = morph.widen(narrow, structure)
    assert apart(narrow, wide) < 1e-5
    assert wide.count_params() == structure.costs["params"]["structure"] <= seed.count_params()
    fresh = morph.rebuild(seed, structure)
    assert [tuple(weight.shape) for weight in wide.weights] == [tuple(weight.shape) for weight in fresh.weights]


def test_a_structure_of_the_same_widths_gives_the_same_weights():
    model = NETWORKS["residual"]()
    wide = morph.widen(model, morph.describe(morph.ChannelGraph.from_model(model), {}))
    for mine, theirs in zip(wide.weights, model.weights, strict=True):
        assert (as_numpy(mine) == as_numpy(theirs)).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_copies_go_ways_of_their_own(optimizer):
    model = randomize(mlp((4,), inputs=6))
    wide = morph.widen(model, wider(model, d1=8))
    first = as_numpy(wide.get_layer("d1").kernel)
    assert len(np.unique(first.round(6), axis=1).T) == 4
    wide.compile(optimizer, "mse", run_eagerly=BACKEND == "tensorflow")
    rng = np.random.default_rng(0)
    for _ in range(3):
        wide.train_on_batch(rng.normal(size=(32, 6)).astype("float32"), rng.normal(size=(32, 2)).astype("float32"))
    assert len(np.unique(as_numpy(wide.get_layer("d1").kernel).round(6), axis=1).T) == 8


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fresh_channels_say_nothing_at_first_and_learn_from_the_second_step_on(optimizer):
    model = randomize(mlp((4,), inputs=6))
    wide = morph.widen(model, wider(model, d1=8), channels="fresh")
    first, read = as_numpy(wide.get_layer("d1").kernel), as_numpy(wide.layers[-1].kernel)
    assert (read[4:] == 0).all() and (read[:4] != 0).all()
    wide.compile(optimizer, "mse", run_eagerly=BACKEND == "tensorflow")
    rng = np.random.default_rng(0)
    for _ in range(2):
        wide.train_on_batch(rng.normal(size=(32, 6)).astype("float32"), rng.normal(size=(32, 2)).astype("float32"))
    assert (as_numpy(wide.get_layer("d1").kernel)[:, 4:] != first[:, 4:]).any(axis=0).all()
    assert (as_numpy(wide.layers[-1].kernel)[4:] != 0).any(axis=1).all()


def test_what_an_optimizer_knows_of_fresh_channels_is_nothing():
    model = randomize(mlp((4,), inputs=6))
    _, parts = widened(model, wider(model, d1=8), channels="fresh")
    kernel = next(part for part in parts if tuple(part.variable.shape) == (6, 8))
    slot = kernel.cut(np.ones((6, 4), "float32"))
    assert (slot[:, :4] == 1).all() and (slot[:, 4:] == 0).all()


def test_another_seed_copies_others():
    model = randomize(mlp((6,)))
    kernels = [as_numpy(morph.widen(model, wider(model, d1=9), seed=seed).get_layer("d1").kernel) for seed in (0, 0, 1)]
    assert (kernels[0] == kernels[1]).all() and not (kernels[0] == kernels[2]).all()


def test_statistics_that_adapt_has_set_stay():
    start = keras.Input((4,))
    normalize = layers.Normalization()
    normalize.adapt(np.random.default_rng(0).normal(3, 2, (100, 4)).astype("float32"))
    model = keras.Model(start, layers.Dense(2)(layers.Dense(5, name="d1")(normalize(start))))
    assert apart(model, morph.widen(model, wider(model))) < 1e-5


def test_a_sequential_network_and_several_outputs():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(6, activation="relu", name="a"), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    assert apart(model, morph.widen(model, wider(model)), x) < 1e-5
    start = keras.Input((5,))
    hidden = layers.Dense(6, name="a")(start)
    several = keras.Model(start, {"one": layers.Dense(2, name="p")(hidden), "two": layers.Dense(3, name="q")(hidden)})
    assert apart(several, morph.widen(several, wider(several))) < 1e-5


# --- statistics over channels -----------------------------------------------------------------------------------------

OVER_CHANNELS = {
    "layer normalization": lambda: layers.LayerNormalization(name="norm"),
    "group normalization": lambda: layers.GroupNormalization(groups=2, name="norm"),
}
if hasattr(layers, "RMSNormalization"):
    OVER_CHANNELS["RMS normalization"] = lambda: layers.RMSNormalization(name="norm")


def normalized(name):
    return network(lambda x: conv(5, "b")(OVER_CHANNELS[name]()(x)))


@pytest.mark.parametrize("name", OVER_CHANNELS)
def test_statistics_over_channels_stay_where_every_channel_has_as_many_copies(name):
    model = normalized(name)
    size = morph.ChannelGraph.from_model(model).groups[0].size
    assert apart(model, morph.widen(model, wider(model, a=2 * size))) < 1e-5


@pytest.mark.parametrize("name", OVER_CHANNELS)
def test_other_widths_are_refused_by_name_and_the_rest_may_grow(name):
    model = normalized(name)
    size = morph.ChannelGraph.from_model(model).groups[0].size
    message = (
        rf"layer 'norm' \(.*Normalization\) takes statistics over the channels of group 'a' .*: {2 * size}, {3 * size}"
    )
    with pytest.raises(morph.MorphError, match=message):
        morph.widen(model, wider(model, a=size + 1))
    assert apart(model, morph.widen(model, wider(model, a=size))) < 1e-5


@pytest.mark.parametrize("name", OVER_CHANNELS)
def test_fresh_channels_change_any_statistics_over_channels(name):
    model = normalized(name)
    size = morph.ChannelGraph.from_model(model).groups[0].size
    with pytest.raises(morph.MorphError, match=r"group 'a' .* New channels change them. Or leave the width of 'a'"):
        morph.widen(model, wider(model, a=2 * size), channels="fresh")


def test_an_expansion_to_whole_multiples_can_be_widened():
    model = sequence(lambda x: layers.Dense(9, name="b")(layers.LayerNormalization()(layers.Dense(4, name="a")(x))))
    graph = morph.ChannelGraph.from_model(model)
    structure = morph.expand(morph.describe(graph, {}), graph, multiplier=2.4, multiple_of={"a": 4})
    assert structure.widths["a"] == 8 and structure.widths["b"] == 22
    assert apart(model, morph.widen(model, structure)) < 1e-5


def test_a_norm_over_channels_has_no_such_widths():
    model = network(lambda x: conv(5, "b")(layers.UnitNormalization(name="norm")(x)))
    with pytest.raises(
        morph.MorphError, match=r"layer 'norm' \(UnitNormalization\) .* New channels change them. Or leave the width"
    ):
        morph.widen(model, wider(model, a=24))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_another_kind_of_channels_is_refused():
    with pytest.raises(morph.MorphError, match=r"channels is 'new'; expected one of 'copies', 'fresh'"):
        morph.widen(mlp(), wider(mlp()), channels="new")


def test_narrower_widths_are_refused():
    model = randomize(mlp((6, 5)))
    with pytest.raises(morph.MorphError, match=r"group 'd2' has 5 channels in network .*, and 4 in the structure"):
        morph.widen(model, wider(model, d2=4))


def test_a_structure_of_another_network_is_refused():
    with pytest.raises(morph.MorphError, match=r"says nothing of group 'd3', which the network '.*' has"):
        morph.widen(mlp((6, 5, 4)), wider(mlp((6, 5))))
    with pytest.raises(morph.MorphError, match=r"has channels in group 'd3', which the network '.*' has not"):
        morph.widen(mlp((6, 5)), wider(mlp((6, 5, 4))))


def test_a_wrong_rule_does_not_go_unnoticed():
    """A layer that mixes neighbours, but whose row says that it treats each channel by itself."""

    class Neighbours(keras.layers.Layer):
        def call(self, x):
            return x + 0.5 * keras.ops.roll(x, 1, axis=-1)

    morph.register_rule(Neighbours, morph.Rule(morph.flows.carry))
    model = network(lambda x: conv(5, "b")(Neighbours()(x)))
    with pytest.raises(morph.MorphError, match=r"answers otherwise when it is widened .* in 'a'"):
        morph.widen(model, wider(model, b=5))
