"""Networks of composite layers, as transformers are written: what can be pruned in them, and the law."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.arrays import as_numpy
from tests.core.networks import random_structure, randomize

STEPS, WIDTH, HEADS, FEATURES, HIDDEN = 6, 8, 4, 4, 12


@keras.saving.register_keras_serializable("test_composites")
def quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


@keras.saving.register_keras_serializable("test_composites")
class Block(layers.Layer):
    """A block as BERT's: attention with a mask, then two dense layers, each with a residual around it."""

    def build(self, shape):
        self.attention = layers.MultiHeadAttention(HEADS, FEATURES, dropout=0.1)
        self.attention.build(shape, shape)
        self.first_norm, self.second_norm = layers.LayerNormalization(), layers.LayerNormalization()
        self.wide = layers.Dense(HIDDEN, activation=quick_gelu)
        self.narrow = layers.Dense(WIDTH)
        for layer, size in ((self.first_norm, WIDTH), (self.wide, WIDTH), (self.narrow, HIDDEN)):
            layer.build((*shape[:-1], size))
        self.second_norm.build(shape)

    def call(self, x):
        mask = ops.ones((ops.shape(x)[0], STEPS, STEPS))
        x = self.first_norm(x + self.attention(x, x, attention_mask=mask))
        return self.second_norm(x + self.narrow(self.wide(x)))


@keras.saving.register_keras_serializable("test_composites")
class Scaled(layers.Layer):
    """A block as a vision transformer's: normalised first, and scaled by a weight of its own."""

    def build(self, shape):
        self.norm = layers.LayerNormalization()
        self.wide, self.narrow = layers.Dense(HIDDEN, activation="gelu"), layers.Dense(WIDTH)
        self.norm.build(shape)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], HIDDEN))
        self.gamma = self.add_weight(shape=(WIDTH,), initializer="ones", name="gamma")

    def call(self, x):
        return x + self.narrow(self.wide(self.norm(x))) * self.gamma


@keras.saving.register_keras_serializable("test_composites")
class Gated(layers.Layer):
    """A block as Llama's: grouped-query attention by equations, normalisation by operations, a gated product."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(WIDTH,), initializer="ones", name="scale")
        self.query = layers.EinsumDense("bqm,muh->bquh", (None, HEADS, FEATURES), bias_axes="uh")
        self.key = layers.EinsumDense("bkm,mvh->bkvh", (None, HEADS // 2, FEATURES))
        self.value = layers.EinsumDense("bkm,mvh->bkvh", (None, HEADS // 2, FEATURES))
        self.output_dense = layers.EinsumDense("bquh,uhm->bqm", (None, WIDTH))
        self.gate, self.up, self.down = (layers.Dense(size, use_bias=False) for size in (HIDDEN, HIDDEN, WIDTH))
        for layer in (self.query, self.key, self.value, self.gate, self.up):
            layer.build(shape)
        self.output_dense.build((*shape[:-1], HEADS, FEATURES))
        self.down.build((*shape[:-1], HIDDEN))

    def call(self, x):
        normal = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale
        key = ops.repeat(self.key(normal), 2, axis=2)
        value = ops.repeat(self.value(normal), 2, axis=2)
        scores = ops.einsum("bquh,bkuh->buqk", self.query(normal), key) / FEATURES**0.5
        causal = ops.convert_to_tensor(np.triu(np.full((STEPS, STEPS), -1e9, "float32"), 1))
        scores = ops.softmax(scores + causal, axis=-1)
        x = x + self.output_dense(ops.einsum("buqk,bkuh->bquh", scores, value))
        return x + self.down(ops.silu(self.gate(x)) * self.up(x))


def network(block: type) -> keras.Model:
    inputs = keras.Input((STEPS, 5))
    x = layers.Dense(WIDTH, name="stem")(inputs)
    x = block(name="two")(block(name="one")(x))
    x = layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(x))
    return randomize(keras.Model(inputs, x))


BLOCKS = [Block, Scaled, Gated]


def batch() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, STEPS, 5)).astype("float32")


def difference(expected, received) -> float:
    expected, received = as_numpy(expected), as_numpy(received)
    return float(np.abs(expected - received).max() / np.abs(expected).max())


@pytest.mark.parametrize("block", BLOCKS)
def test_hidden_units_of_every_block_can_be_pruned_and_the_law_holds(block):
    model = network(block)
    graph = morph.ChannelGraph.from_model(model)
    prunable = [group for group in graph.groups if group.prunable]
    assert sum(group.size == HIDDEN for group in prunable) == 2, str(graph)
    for seed, share in enumerate((0.5, 0.3)):
        structure = random_structure(graph, share, seed)
        assert morph.verify(model, structure, batch()) < 1e-5


@pytest.mark.parametrize("block", BLOCKS)
def test_an_opened_network_of_full_width_answers_as_the_seed(block):
    model = network(block)
    whole = random_structure(morph.ChannelGraph.from_model(model), 1.0)
    expected = model(batch(), training=False)
    assert difference(expected, morph.masked(model, whole, batch())) < 1e-6
    assert difference(expected, morph.rebuild(model, whole, weights="inherit")(batch(), training=False)) < 1e-6


@pytest.mark.parametrize("block", BLOCKS)
def test_a_rebuilt_network_is_saved_and_loaded(block, tmp_path):
    model = network(block)
    structure = random_structure(morph.ChannelGraph.from_model(model), 0.5)
    student = morph.rebuild(model, structure, weights="inherit")
    student.save(tmp_path / "student.keras")
    loaded: Any = keras.models.load_model(tmp_path / "student.keras")
    assert student.count_params() < model.count_params()
    assert difference(student(batch()), loaded(batch())) == 0


def test_heads_of_attention_by_equations_go_with_their_keys_and_values():
    graph = morph.ChannelGraph.from_model(network(Gated))
    heads = [group for group in graph.groups if group.prunable and group.size == HEADS // 2]
    assert len(heads) == 2
    assert all(len(group.producers) == 3 for group in heads)


def test_a_search_of_composite_layers_ends_within_its_budget():
    model = network(Gated)
    search = morph.StructureSearch(model, cost="flops", target=0.5, gate="logistic_sigmoid")
    search.compile("adam", "mse")
    search.fit(batch(), np.zeros((3, 3), "float32"), epochs=8, verbose=0)
    graph = morph.ChannelGraph.from_model(model)
    structure = search.structure()
    assert graph.cost("flops", structure) <= 0.5 * graph.cost("flops")
    assert morph.verify(model, structure, batch()) < 1e-5


@keras.saving.register_keras_serializable("test_composites")
class Undecided(layers.Layer):
    """A layer whose code asks for numbers, which a symbolic tensor does not have."""

    def build(self, shape):
        self.dense = layers.Dense(WIDTH)
        self.dense.build(shape)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def call(self, x):
        return self.dense(x) if float(ops.sum(x)) > 0 else x


def test_a_layer_that_does_not_open_stays_closed_with_its_reason():
    inputs = keras.Input((WIDTH,))
    y = Undecided(name="undecided")(layers.Dense(WIDTH, name="a")(inputs))
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(2)(y)))
    assert not graph.prunable.any()
    assert "layer 'undecided' stays closed: its code does not run on symbolic tensors at test_composites.py:" in str(
        graph
    )


@keras.saving.register_keras_serializable("test_composites")
class Shifted(layers.Layer):
    """Weights of several kinds, used by themselves."""

    def __init__(self, **options):
        super().__init__(**options)
        self.shift_initializer = keras.initializers.Constant(0.25)

    def build(self, shape):
        self.dense = layers.Dense(HIDDEN)
        self.dense.build(shape)
        self.scale = self.add_weight(shape=(HIDDEN,), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(HIDDEN,), initializer=self.shift_initializer, name="shift")
        self.table = self.add_weight(shape=(STEPS, 1), initializer=keras.initializers.RandomNormal(3.0, 0.5))
        self.order = self.add_weight(
            shape=(STEPS,),
            initializer=lambda shape, dtype: ops.convert_to_tensor(np.arange(STEPS)[::-1].copy(), dtype=dtype),
            dtype="int32",
            trainable=False,
            name="order",
        )

    def call(self, x):
        return ops.take(self.dense(x) * self.scale + self.shift + self.table, self.order, axis=1)


def test_weights_used_by_themselves_start_anew_as_they_started_in_the_seed():
    inputs = keras.Input((STEPS, 5))
    head = layers.Dense(2, name="head")
    model = keras.Model(inputs, head(Shifted(name="shifted")(layers.Dense(WIDTH, name="stem")(inputs))))
    # Not as many as there are steps: Keras on TensorFlow adds a column along the channels then.
    structure = random_structure(morph.ChannelGraph.from_model(model), 0.25)
    student = morph.rebuild(model, structure)
    weights = {layer.name: layer.weights[0] for layer in student.layers if "shifted-" in layer.name and layer.weights}
    assert np.array_equal(weights["shifted-scale"], np.ones(HIDDEN // 4))
    assert np.array_equal(weights["shifted-shift"], np.full(HIDDEN // 4, 0.25))
    assert np.array_equal(weights["shifted-order"], np.arange(STEPS)[::-1])
    assert 2.0 < np.mean(weights["shifted-table"]) < 4.0
    assert morph.verify(model, structure, batch()) < 1e-5


@keras.saving.register_keras_serializable("test_composites")
class Boastful(layers.Layer):
    """Says that it halves its input, and does something else where numbers are at hand."""

    def build(self, shape):
        self.dense = layers.Dense(WIDTH)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x) * (0.5 if isinstance(x, keras.KerasTensor) else 1.0)


def test_an_opened_network_that_answers_otherwise_than_its_layers_is_not_opened():
    inputs = keras.Input((WIDTH,))
    y = Boastful(name="boastful")(layers.Dense(WIDTH, name="a")(inputs))
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(2)(y)))
    assert not graph.prunable.any()
    assert "no layer is opened: the opened network answers otherwise than the layers themselves" in str(graph)


class Subclassed(keras.Model):
    """A model as tutorials write them: its layers are wired in `call`."""

    def __init__(self, block=Block, **options):
        super().__init__(**options)
        self.stem, self.block, self.head = layers.Dense(WIDTH), block(), layers.Dense(3)

    def call(self, x, training=False):
        x = self.block(self.stem(x))
        return self.head(ops.mean(x, axis=1))


def test_a_subclassed_model_is_refused_with_the_way_to_have_it_opened():
    with pytest.raises(morph.MorphError, match=r"keras.Model\(inputs, model\(inputs\)\). Then its layers are opened"):
        morph.ChannelGraph.from_model(Subclassed(name="own"))


def test_a_subclassed_model_called_on_symbolic_inputs_is_opened():
    inputs = keras.Input((STEPS, 5))
    model = randomize(keras.Model(inputs, Subclassed(name="own")(inputs)))
    graph = morph.ChannelGraph.from_model(model)
    assert {group.name for group in graph.groups if group.prunable} >= {"own-stem", "own-block-wide"}
    structure = random_structure(graph, 0.5)
    assert morph.verify(model, structure, batch()) < 1e-5
    assert structure.costs["params"]["structure"] == morph.rebuild(model, structure).count_params()


@keras.saving.register_keras_serializable("test_composites")
class Positions(layers.Layer):
    """A class token in front, and a table of positions, of which as many rows are taken as there are places."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, WIDTH), initializer="random_normal", name="token")
        self.table = self.add_weight(shape=(2 * STEPS, WIDTH), initializer="random_normal", name="table")

    def call(self, x):
        x = ops.concatenate([ops.broadcast_to(self.token, (ops.shape(x)[0], 1, WIDTH)), x], axis=1)
        table = ops.slice(ops.convert_to_tensor(self.table), (0, 0), (STEPS + 1, WIDTH))
        return x + ops.broadcast_to(table, (ops.shape(x)[0], STEPS + 1, WIDTH))


@pytest.mark.parametrize("block", [Scaled])
def test_the_residual_width_can_be_pruned_where_nothing_outside_needs_it(block):
    inputs = keras.Input((STEPS, 5))
    x = Positions(name="positions")(layers.Dense(WIDTH, name="stem")(inputs))
    x = block(name="two")(block(name="one")(x))
    model = randomize(keras.Model(inputs, layers.Dense(3, name="head")(x[:, 0])))
    graph = morph.ChannelGraph.from_model(model)
    (residual,) = [group for group in graph.groups if group.name == "stem"]
    assert residual.prunable and residual.size == WIDTH, str(graph)
    assert {"positions-token", "positions-table"} <= set(residual.producers)
    for seed, share in enumerate((0.75, 0.5, 0.25)):
        structure = random_structure(graph, share, seed)
        assert morph.verify(model, structure, batch()) < 1e-5
        assert structure.costs["params"]["structure"] == morph.rebuild(model, structure).count_params()


def test_a_block_whose_branches_die_goes():
    model = network(Scaled)
    graph = morph.ChannelGraph.from_model(model)
    hidden = {group.name: 0 if group.name.startswith("one-wide") else group.size for group in graph.groups}
    structure = morph.describe(graph, {name: hidden[name] for name in hidden if "wide" in name}, {"one-wide": []})
    assert {"one-norm", "one-wide", "one-narrow"} <= set(structure.removed["layers"])
    assert not any(layer.name.startswith("one-") for layer in morph.rebuild(model, structure).layers)


@keras.saving.register_keras_serializable("test_composites")
class Penalised(layers.Layer):
    """Adds a loss of what a layer inside makes."""

    def build(self, shape):
        self.dense = layers.Dense(WIDTH)
        self.dense.build(shape)

    def call(self, x):
        x = self.dense(x)
        self.add_loss(ops.mean(ops.square(x)))
        return x


def test_a_layer_that_adds_a_loss_stays_closed_and_goes_on_adding_it():
    inputs = keras.Input((5,))
    layer = Penalised(name="penalised")
    model = keras.Model(inputs, layers.Dense(2)(layer(layers.Dense(WIDTH, name="a")(inputs))))
    shown = str(morph.ChannelGraph.from_model(model))
    assert "layer 'penalised' stays closed: its code does not run on symbolic tensors" in shown and "add_loss" in shown
    x = np.ones((4, 5), "float32")
    model(x, training=True)
    (loss,) = model.losses
    assert float(loss) > 0


@keras.saving.register_keras_serializable("test_composites")
class ByHand(layers.Layer):
    """A normalisation written by hand: by the mean and the deviation, or by the root of the mean square."""

    def __init__(self, centred=True, **options):
        super().__init__(**options)
        self.centred = centred

    def build(self, shape):
        self.dense = layers.Dense(WIDTH)
        self.dense.build(shape)
        self.scale = self.add_weight(shape=(WIDTH,), initializer="ones", name="scale")

    def call(self, x):
        x = self.dense(x)
        if self.centred:
            x = x - ops.mean(x, axis=-1, keepdims=True)
            return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-3) * self.scale
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=(1, 2), keepdims=True) + 1e-6) * self.scale

    def get_config(self):
        return {**super().get_config(), "centred": self.centred}


@pytest.mark.parametrize("centred", [True, False])
def test_a_normalisation_by_hand_is_one_of_the_channels_that_are_left(centred):
    inputs = keras.Input((STEPS, 5))
    x = ByHand(centred, name="one")(inputs)
    model = randomize(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    graph = morph.ChannelGraph.from_model(model)
    assert [group.name for group in graph.groups if group.prunable] == ["one-dense"], str(graph)
    for seed, share in enumerate((0.75, 0.5, 0.25)):
        assert morph.verify(model, random_structure(graph, share, seed), batch()) < 1e-5


@keras.saving.register_keras_serializable("test_composites")
class Skipping(layers.Layer):
    """Leaves examples out in training, by a random number of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x, training=False):
        if not training:
            return x
        return x * ops.floor(0.5 + keras.random.uniform((ops.shape(x)[0], 1, 1), seed=self.seeds))


@keras.saving.register_keras_serializable("test_composites")
class Skipped(Scaled):
    """A block of which a part is skipped in training now and then."""

    def build(self, shape):
        super().build(shape)
        self.skip = Skipping()

    def call(self, x):
        return x + self.skip(self.narrow(self.wide(self.norm(x))) * self.gamma)


def test_a_layer_that_draws_in_training_is_closed_and_not_those_around_it():
    model = network(Skipped)
    graph = morph.ChannelGraph.from_model(model)
    assert {"one-wide", "two-wide"} <= {group.name for group in graph.groups if group.prunable}, str(graph)
    assert [call.kind for call in graph.trace.calls].count("Skipping") == 2
    structure = random_structure(graph, 0.5)
    assert morph.verify(model, structure, batch()) < 1e-5
    student = morph.rebuild(model, structure, weights="inherit")
    assert difference(student(batch(), training=False), student(batch(), training=True)) > 0


@keras.saving.register_keras_serializable("test_composites")
class Improvising(layers.Layer):
    """Makes a layer that holds nothing whenever it runs."""

    def build(self, shape):
        self.wide, self.narrow = layers.Dense(HIDDEN), layers.Dense(WIDTH)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], HIDDEN))

    def call(self, x):
        return self.narrow(layers.Activation("silu")(self.wide(x)))


def test_a_layer_made_in_code_that_holds_nothing_is_the_same_each_time():
    model = network(Improvising)
    graph = morph.ChannelGraph.from_model(model)
    assert {"one-wide", "two-wide"} <= {group.name for group in graph.groups if group.prunable}, str(graph)
    assert morph.verify(model, random_structure(graph, 0.5), batch()) < 1e-5


@keras.saving.register_keras_serializable("test_composites")
class ByBackend(layers.Layer):
    """Has a way of its own for the backend at hand, which no symbolic tensor can go."""

    def build(self, shape):
        self.wide, self.narrow = layers.Dense(HIDDEN), layers.Dense(WIDTH)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], HIDDEN))

    def call(self, x):
        x = self.wide(x)
        if keras.config.backend() == keras.src.backend.backend():
            x = keras.src.backend.numpy.maximum(x, 0.0)
        else:
            x = ops.relu(x)
        return self.narrow(x)


def test_code_with_a_way_of_its_own_for_this_backend_is_opened_by_the_other():
    model = network(ByBackend)
    graph = morph.ChannelGraph.from_model(model)
    assert {"one-wide", "two-wide"} <= {group.name for group in graph.groups if group.prunable}, str(graph)
    structure = random_structure(graph, 0.5)
    assert morph.verify(model, structure, batch()) < 1e-5
    assert keras.config.backend() == keras.src.backend.backend()


@keras.saving.register_keras_serializable("test_composites")
class Asking(layers.Layer):
    """Asks for the rank of a tensor, and puts a shape together as a tensor."""

    def build(self, shape):
        self.wide, self.narrow = layers.Dense(HIDDEN), layers.Dense(WIDTH)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], HIDDEN))

    def call(self, x):
        if ops.ndim(x) != 3:
            return x
        sizes = ops.concatenate([ops.convert_to_tensor(ops.shape(x)[:1]), ops.convert_to_tensor([STEPS * WIDTH])], 0)
        flat = ops.reshape(x, sizes)
        return self.narrow(ops.relu(self.wide(ops.reshape(flat, (-1, STEPS, WIDTH)))))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends take no shape that is a tensor")
def test_code_may_ask_for_a_rank_and_reshape_to_a_shape_in_a_tensor():
    model = network(Asking)
    graph = morph.ChannelGraph.from_model(model)
    assert {"one-wide", "two-wide"} <= {group.name for group in graph.groups if group.prunable}, str(graph)
    assert morph.verify(model, random_structure(graph, 0.5), batch()) < 1e-5
    assert isinstance(ops.ndim(keras.KerasTensor((2, 3))), keras.KerasTensor)
