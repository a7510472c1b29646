"""Networks on which channels were coupled wrongly or told apart wrongly: what was found by trying many graphs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.errors import MorphError
from tests.core.networks import random_structure, randomize


def agreement(model, share=0.5, seeds=(0, 1, 2)):
    """The worst of several random structures: how far the rebuilt network is from the masked one."""
    randomize(model)
    graph = morph.ChannelGraph.from_model(model)
    return max(morph.verify(model, random_structure(graph, share, seed), seed=seed) for seed in seeds)


def two_branches(join, width=16):
    """dense a --+
    dense b -- join -- dense
    """
    inputs = keras.Input((6,))
    first, second = layers.Dense(width, name="a")(inputs), layers.Dense(width, name="b")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="out")(join(first, second)))


@pytest.mark.parametrize(
    "join",
    [
        pytest.param(lambda a, b: ops.where(a > 0, a, b), id="of its own sign"),
        pytest.param(lambda a, b: ops.where(a > b, a, b), id="of two"),
        pytest.param(lambda a, b: ops.where(ops.logical_and(a > 0, b > 0), a, b), id="of both signs"),
        pytest.param(lambda a, b: ops.where(ops.abs(a) <= 0.1, ops.zeros_like(a), b), id="near zero"),
    ],
)
def test_a_choice_between_two_tensors_couples_them_and_its_condition(join):
    model = two_branches(join)
    assert agreement(model) <= 1e-5
    groups = [group for group in morph.ChannelGraph.from_model(model).groups if group.prunable]
    assert [group.size for group in groups] == [16]


@keras.saving.register_keras_serializable("tests")
class HalfIsNegated(layers.Layer):
    """Treats the first half of the channels in another way than the rest."""

    def call(self, x):
        half = x.shape[-1] // 2
        return ops.concatenate([-x[..., :half], x[..., half:]], axis=-1)


@keras.saving.register_keras_serializable("tests")
class FirstQuarterIsDoubled(layers.Layer):
    def call(self, x):
        scale = np.ones(x.shape[-1], "float32")
        scale[: x.shape[-1] // 4] = 2.0
        return x * ops.convert_to_tensor(scale)


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        *((HalfIsNegated, width) for width in (9, 16, 17, 31, 33)),
        *((FirstQuarterIsDoubled, width) for width in (9, 16, 17, 31, 33)),
    ],
)
def test_a_layer_that_divides_its_channels_by_their_number_is_followed_or_kept_whole(kind, width):
    inputs = keras.Input((6,))
    hidden = kind()(layers.Dense(width, name="a")(inputs))
    assert agreement(keras.Model(inputs, layers.Dense(3)(hidden)), seeds=range(5)) <= 1e-5


@pytest.mark.parametrize(
    "choose",
    [
        lambda both: ops.where(both[0] > both[1], both[0], both[1]),
        lambda both: ops.where(ops.abs(both[0]) <= 1e-3, both[1], 0.5 * both[1]),
        lambda both: ops.where(both[0] > 1e9, both[0], both[1]),
    ],
    ids=["by size", "near zero", "where it never is"],
)
def test_a_layer_of_ones_own_that_compares_is_followed_or_kept_whole(choose):
    def join(first, second):
        return layers.Lambda(choose, output_shape=lambda shapes: shapes[0])([first, second])

    assert agreement(two_branches(join)) <= 1e-5


def test_a_layer_of_ones_own_on_conditions_is_tried_with_conditions():
    class OneOfThem(layers.Layer):
        def call(self, condition, first, second):
            return ops.where(condition, first, second)

    model = two_branches(lambda a, b: OneOfThem()(a > 0, a, b))
    assert agreement(model) <= 1e-5
    assert [group.size for group in morph.ChannelGraph.from_model(model).groups if group.prunable] == [16]


@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_both_directions_of_a_recurrent_layer_keep_as_many_channels(merge_mode):
    inputs = keras.Input((5, 4))
    both = layers.Bidirectional(layers.GRU(6), merge_mode=merge_mode, name="both")(inputs)
    hidden = layers.Concatenate()(both) if merge_mode is None else both
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    assert agreement(model) <= 1e-5
    assert [group.size for group in morph.ChannelGraph.from_model(model).groups if group.prunable] == [6]


@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_directions_of_different_widths_which_keras_cannot_run_are_refused(merge_mode):
    inputs = keras.Input((5, 4))
    both = layers.Bidirectional(
        layers.LSTM(5, name="forward"),
        merge_mode=merge_mode,
        backward_layer=layers.GRU(3, go_backwards=True),
        name="both",
    )(inputs)
    hidden = layers.Concatenate()(both) if merge_mode is None else both
    with pytest.raises(MorphError, match=r"'both' \(Bidirectional\) has 5 units forward and 3 backward.*go_backwards"):
        morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(3)(hidden)))


def build_nested():
    """A model as `build_model` returns it: a nested model without a name, whose layers have names."""
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="wide"), layers.Dense(5, name="narrow")])
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, name="head")(inner(inputs)))


def test_two_calls_of_one_build_model_give_networks_with_the_same_names():
    first, second = (morph.ChannelGraph.from_model(build_nested()) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert [group.name for group in first.groups] == [group.name for group in second.groups]


def test_a_nested_model_of_unknown_size_takes_the_size_it_is_called_with():
    body = keras.applications.MobileNetV2(include_top=False, weights=None, alpha=0.35)
    inputs = keras.Input((32, 32, 3))
    features = layers.GlobalAveragePooling2D()(body(inputs))
    nested = keras.Model(inputs, layers.Dense(4)(features))
    known = keras.applications.MobileNetV2((32, 32, 3), include_top=False, weights=None, alpha=0.35)
    same = keras.Model(known.input, layers.Dense(4)(layers.GlobalAveragePooling2D()(known.output)))
    counted, expected = (morph.ChannelGraph.from_model(one).cost("flops") for one in (nested, same))
    assert counted == expected > 0


@keras.saving.register_keras_serializable("tests")
class TiedOutput(layers.Layer):
    """Maps back to the vocabulary with the table of an embedding, which it holds."""

    def __init__(self, embedding, **options):
        super().__init__(**options)
        self.embedding = embedding

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))

    def get_config(self):
        return {**super().get_config(), "embedding": keras.saving.serialize_keras_object(self.embedding)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "embedding": keras.saving.deserialize_keras_object(config["embedding"])})


def test_a_weight_that_two_layers_hold_is_counted_once_and_stays_one():
    tokens = keras.Input((5,), dtype="int32")
    table = layers.Embedding(20, 8, name="table")
    hidden = layers.Dense(8, name="hidden")(table(tokens))
    model = keras.Model(tokens, TiedOutput(table, name="tied")(hidden))
    graph = morph.ChannelGraph.from_model(model)
    assert graph.cost("params") == model.count_params()
    structure = random_structure(graph, 0.5)
    assert morph.rebuild(model, structure).count_params() == graph.cost("params", structure)
    assert morph.verify(model, structure) <= 1e-5


@keras.saving.register_keras_serializable("tests")
class TiedDeepInside(TiedOutput):
    """As `TiedOutput`, but the layer that holds the table is not its own attribute."""

    def __init__(self, embedding, **options):
        super().__init__(embedding, **options)
        self.inner = [embedding]
        del self.embedding

    def build(self, shape):
        if not self.inner[0].built:
            self.inner[0].build()

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.inner[0].embeddings))

    def get_config(self):
        return {
            **layers.Layer.get_config(self),
            "embedding": keras.saving.serialize_keras_object(self.inner[0]),
        }


def test_a_weight_that_would_become_two_is_said_before_the_search():
    tokens = keras.Input((5,), dtype="int32")
    table = layers.Embedding(20, 8, name="table")
    hidden = layers.Dense(8)(layers.Dense(16)(table(tokens)))
    model = keras.Model(tokens, TiedDeepInside(table, name="tied")(hidden))
    with pytest.raises(MorphError, match=r"'tied' \(TiedDeepInside\) holds '.*embeddings' of another layer"):
        morph.StructureSearch(model, target=0.8)


@keras.saving.register_keras_serializable("tests")
class Table(layers.Layer):
    """An embedding of one's own."""

    def build(self, shape):
        self.numbers = self.add_weight(shape=(20, 8), initializer="random_normal", name="numbers")

    def call(self, tokens):
        return ops.take(self.numbers, tokens, axis=0)


@keras.saving.register_keras_serializable("tests")
class ClosedHead(TiedOutput):
    """As `TiedOutput`, in code that symbolic tensors do not run through."""

    def call(self, x):
        return ops.matmul(ops.convert_to_tensor(ops.convert_to_numpy(x)), ops.transpose(self.embedding.numbers))

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], 20), dtype=x.dtype)


@keras.saving.register_keras_serializable("tests")
class Wide(layers.Layer):
    """Runs others, so that the network is opened."""

    def build(self, shape):
        self.wide, self.narrow = layers.Dense(16), layers.Dense(8)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 16))

    def call(self, x):
        return self.narrow(ops.relu(self.wide(x)))


def test_a_layer_that_a_closed_one_holds_is_not_opened_and_stays_one():
    tokens = keras.Input((5,), dtype="int32")
    table = Table(name="table")
    model = keras.Model(tokens, ClosedHead(table, name="closed")(Wide(name="block")(table(tokens))))
    graph = morph.ChannelGraph.from_model(model)
    assert {group.name for group in graph.groups if group.prunable} == {"block-wide"}, str(graph)
    assert any("'table' stays closed: layer 'closed', which stays closed, holds it, too" in one for one in graph.notes)
    assert morph.rebuild(model, random_structure(graph, 0.5)).count_params() == model.count_params() - 8 * (8 + 8 + 1)
