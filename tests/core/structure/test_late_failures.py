"""What failed late, or was wrong in silence: each is to be said at the start, in one clear message, or to work."""

import time

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.errors import MorphError
from tests.core.networks import random_structure, randomize


def small_network(width=8):
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Dense(width, "relu", name="hidden")(inputs)))


def numbers_and_words():
    """numbers -- dense --+
    words -- embedding -- concatenate -- dense
    """
    numbers, word = keras.Input((4,), name="numbers"), keras.Input((), dtype="int32", name="word")
    joined = layers.Concatenate()(
        [layers.Dense(6, name="numeric")(numbers), layers.Embedding(9, 6, name="lookup")(word)]
    )
    return keras.Model({"numbers": numbers, "word": word}, layers.Dense(3, name="head")(joined))


def without_numbers(model):
    graph = morph.ChannelGraph.from_model(model)
    return morph.describe(graph, {"numeric": 0, "lookup": 6}, {"numeric": [], "lookup": list(range(6))})


def test_an_input_behind_which_no_channel_is_left_stays_an_input():
    model = randomize(numbers_and_words())
    structure = without_numbers(model)
    student = morph.rebuild(model, structure, weights="inherit")
    assert sorted(student.input) == ["numbers", "word"]
    assert morph.verify(model, structure) <= 1e-5


def test_a_network_with_an_unused_input_is_saved_and_loaded(tmp_path):
    model = numbers_and_words()
    student = morph.rebuild(model, without_numbers(model))
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    batch = {"numbers": np.ones((2, 4), "float32"), "word": np.array([1, 2])}
    np.testing.assert_allclose(as_numpy(student(batch)), as_numpy(loaded(batch)), rtol=1e-6)  # type: ignore[misc]


class WithoutConfig(layers.Layer):
    """A layer that Keras cannot make anew: its argument is no number or text, and there is no get_config."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def call(self, x):
        # Asks for numbers, which symbolic tensors do not have: so the layer cannot be opened either.
        return self.function(x) if float(ops.sum(x)) > 0 else x


def test_a_layer_that_cannot_be_made_anew_is_said_when_the_search_is_made():
    inputs = keras.Input((6,))
    hidden = WithoutConfig(ops.tanh, name="strange")(layers.Dense(4, name="whole")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(32, name="hidden")(hidden)))
    with pytest.raises(MorphError, match=r"'strange' \(WithoutConfig\).*get_config"):
        morph.StructureSearch(model, target=0.5)


def test_a_frozen_base_keeps_its_weights_when_it_is_rebuilt_fresh():
    model = randomize(small_network())
    model.get_layer("hidden").trainable = False
    graph = morph.ChannelGraph.from_model(model)
    structure = random_structure(graph, 0.5)
    student = morph.rebuild(model, structure, weights="fresh")
    kept = np.asarray(model.get_layer("hidden").kernel)[:, structure.groups["hidden"]["alive"]]
    np.testing.assert_array_equal(student.get_layer("hidden").kernel, kept)


def test_a_frozen_layer_has_no_weights_for_channels_that_were_added():
    model = small_network()
    model.get_layer("hidden").trainable = False
    graph = morph.ChannelGraph.from_model(model)
    wider = morph.expand(random_structure(graph, 0.5), graph, multiplier=3.0)
    with pytest.raises(MorphError, match=r"'hidden' \(Dense\) is frozen.*expanded.*Unfreeze"):
        morph.rebuild(model, wider)


def test_a_search_is_tried_at_widths_that_it_may_choose():
    @keras.saving.register_keras_serializable("tests")
    class InFours(layers.Layer):
        def call(self, x):
            if x.shape[-1] % 4:
                raise ValueError("no multiple of four")
            return x

    morph.register_rule(InFours, morph.Rule(morph.flows.carry))
    inputs = keras.Input((6,))
    hidden = InFours(name="fours")(layers.Dense(16, name="hidden")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    morph.StructureSearch(model, target=0.5, multiple_of=4)
    with pytest.raises(MorphError, match=r"'fours' \(InFours\) cannot be called.*no multiple of four"):
        morph.StructureSearch(model, target=0.5)


class OwnStep(keras.Model):
    def train_step(self, data):
        raise AssertionError("the user's own step")


def test_a_seed_with_a_training_step_of_its_own_is_refused():
    plain = small_network()
    with pytest.raises(MorphError, match=r"train_step.*OwnStep|OwnStep.*train_step"):
        morph.StructureSearch(OwnStep(plain.inputs, plain.outputs), target=0.5)


def chain(count):
    inputs = keras.Input((4,))
    x = inputs
    for _ in range(count):
        x = layers.Dense(4, "relu")(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def test_making_a_search_takes_time_in_proportion_to_the_calls():
    def seconds(model):
        best = np.inf
        for _ in range(2):
            start = time.process_time()
            morph.StructureSearch(model, target=0.5)
            best = min(best, time.process_time() - start)
        return best

    small, large = chain(150), chain(600)
    seconds(chain(10))
    assert seconds(large) <= 8 * seconds(small)  # four times the calls


@pytest.mark.filterwarnings("ignore:The search diverged")
@pytest.mark.parametrize("gate", ["fisher", "logistic_sigmoid"])
def test_data_that_are_no_numbers_end_the_search_with_a_word(gate):
    search = morph.StructureSearch(small_network(), target=0.5, gate=gate)
    search.compile("adam", "mse")
    data = np.full((32, 6), np.nan, "float32")
    with pytest.raises(MorphError, match=r"NaN"):
        search.fit(data, np.zeros((32, 3), "float32"), epochs=3, verbose=0)


@pytest.mark.parametrize("cost", [lambda: 1.0, lambda one, other: 1.0], ids=["no argument", "two arguments"])
def test_a_cost_function_of_the_wrong_arguments_is_told_what_it_is_called_with(cost):
    with pytest.raises(MorphError, match=r"cost.*one argument.*list of CallWidths"):
        morph.ChannelGraph.from_model(small_network()).cost(cost)


def test_rebuild_takes_the_path_of_a_structure_file(tmp_path):
    model = small_network()
    graph = morph.ChannelGraph.from_model(model)
    random_structure(graph, 0.5).save(tmp_path / "s.json")
    student = morph.rebuild(model, str(tmp_path / "s.json"))
    assert student.get_layer("hidden").units == 4


def test_expand_takes_the_seed_in_the_place_of_its_graph():
    model = small_network()
    graph = morph.ChannelGraph.from_model(model)
    structure = random_structure(graph, 0.5)
    assert morph.expand(structure, model, target=1.0).widths == morph.expand(structure, graph, target=1.0).widths


def test_exporting_a_search_says_to_export_what_is_rebuilt(tmp_path):
    search = morph.StructureSearch(small_network(), target=0.5)
    with pytest.raises(MorphError, match=r"morph\.rebuild"):
        search.export(tmp_path / "model")


def test_saving_a_search_in_the_old_format_says_to_use_the_new_one(tmp_path):
    search = morph.StructureSearch(small_network(), target=0.5)
    with pytest.raises(MorphError, match=r"\.keras"):
        search.save(tmp_path / "search.h5")
